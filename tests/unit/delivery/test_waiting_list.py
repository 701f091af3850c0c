"""The metric of who has the most mail waiting has few labels, whatever there is."""

from collections import Counter

from prometheus_client import REGISTRY

from services.delivery.waiting_list import LISTED, OTHERS, tell

NAME = "gatepost_delivery_waiting_by_destination_records"


def told() -> dict[str, float]:
    return {
        sample.labels["destination"]: sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == NAME
    }


def test_the_first_are_named_and_the_rest_is_one_number() -> None:
    tell(Counter({f"d{number}.test": number + 1 for number in range(1000)}))
    found = told()
    assert len(found) == LISTED + 1
    assert found["d999.test"] == 1000
    assert f"d{999 - LISTED}.test" not in found
    assert sum(found.values()) == 1000 * 1001 / 2
    assert found[OTHERS] > 0


def test_who_has_nothing_waiting_any_more_is_gone() -> None:
    tell(Counter({"a.test": 5}))
    assert told() == {"a.test": 5}
    tell(Counter())
    assert told() == {}
