"""What `/metrics` says about the keys, worked out when it is asked.

gatepost_keys_stored_keys{state}               how many keys there are
gatepost_keys_damaged_keys                     unreadable, or gone and should sign
gatepost_keys_store_readable                   0 while the store cannot be read
gatepost_keys_expiry_seconds{domain,selector}  until a signing key expires, negative afterwards
gatepost_keys_successor_published{domain,selector}  whether the key that replaces it is visible
gatepost_keys_record_visible{domain,selector}  0: a key signs and its record is not visible
gatepost_keys_unpublished_signing_domains      domains with such a key
gatepost_keys_waiting_domains                  domains whose mail has to be signed and cannot be
gatepost_keys_unsigned_local_domains           local domains without an active key, if signing is on
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.keys.key import Key
from services.keys.keyring import Keyring
from services.keys.state import KeyState

_WAITING = (KeyState.PENDING, KeyState.PUBLISHED)


class KeyMetrics(Collector):
    """Collected in the thread that renders the metrics; reads snapshots only."""

    def __init__(
        self,
        keyring: Keyring,
        visible: Mapping[tuple[str, str], bool],
        *,
        now: Callable[[], datetime],
        unsigned: Callable[[], int] = int,
    ) -> None:
        """`visible`: by domain and selector, whether the record was visible when last looked for;
        without those of which nobody knows. `unsigned`: how many local domains sign nothing and
        might."""
        self._keyring = keyring
        self._visible = visible
        self._now = now
        self._unsigned = unsigned

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        keys = self._keyring.present()
        counts = Counter(key.state for key in keys)
        stored = GaugeMetricFamily("gatepost_keys_stored_keys", "Keys by state.", labels=["state"])
        for state in KeyState:
            if state is not KeyState.DELETED:
                stored.add_metric([state], counts[state])
        yield stored
        yield GaugeMetricFamily(
            "gatepost_keys_damaged_keys",
            "Entries of the key store that cannot be read, or are gone while their key signs.",
            value=self._keyring.damaged,
        )
        yield GaugeMetricFamily(
            "gatepost_keys_store_readable",
            "1 while the key store can be read, 0 while what is known of it may be out of date.",
            value=int(not self._keyring.lost),
        )
        yield from self._signing_keys()
        yield GaugeMetricFamily(
            "gatepost_keys_waiting_domains",
            "Domains whose mail has to be signed and waits, because no key of theirs can.",
            value=len(self._keyring.waiting),
        )
        yield GaugeMetricFamily(
            "gatepost_keys_unsigned_local_domains",
            "Local domains whose mail goes out unsigned although signing is on.",
            value=self._unsigned(),
        )

    def _signing_keys(self) -> Iterator[Metric]:
        expiry = GaugeMetricFamily(
            "gatepost_keys_expiry_seconds",
            "Time until a key that signs expires; negative: it expired and still signs.",
            labels=["domain", "selector"],
        )
        visible = GaugeMetricFamily(
            "gatepost_keys_record_visible",
            "Whether the record of a key that signs was visible at every server when last asked.",
            labels=["domain", "selector"],
        )
        succession = GaugeMetricFamily(
            "gatepost_keys_successor_published",
            "Whether the record of the key that was made to replace one that signs is visible.",
            labels=["domain", "selector"],
        )
        unpublished = set()
        keys = self._keyring.present()
        successors = _successors(keys)
        for key in keys:
            if key.state is not KeyState.ACTIVE:
                continue
            if key.expires is not None:
                left = (key.expires - self._now()).total_seconds()
                expiry.add_metric(key.id, left)
            if key.id in successors:
                succession.add_metric(key.id, int(successors[key.id]))
            seen = self._visible.get(key.id)
            if seen is not None:
                visible.add_metric(key.id, int(seen))
                if not seen:
                    unpublished.add(key.domain)
        yield expiry
        yield succession
        yield visible
        yield GaugeMetricFamily(
            "gatepost_keys_unpublished_signing_domains",
            "Domains whose mail is signed with a key whose record is not visible.",
            value=len(unpublished),
        )


def _successors(keys: Iterable[Key]) -> dict[tuple[str, str], bool]:
    """By the key that is to be replaced: whether a key is there for it whose record is visible."""
    found: dict[tuple[str, str], bool] = {}
    for key in keys:
        if key.predecessor and key.state in _WAITING:
            replaced = (key.domain, key.predecessor)
            found[replaced] = found.get(replaced, False) or key.state is KeyState.PUBLISHED
    return found
