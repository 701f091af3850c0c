"""A clock that stands still until the test moves it."""


class FakeClock:
    """Call it for the time in seconds; `advance` moves it, backwards too."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds
