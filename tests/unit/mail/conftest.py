"""Property tests here are bounded by pytest's deadline alone."""

from hypothesis import settings

# Hypothesis fails an example that takes 0.2 s; on a busy machine any example may.
settings.register_profile("no deadline per example", deadline=None)
settings.load_profile("no deadline per example")
