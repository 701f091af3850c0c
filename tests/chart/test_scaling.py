"""How many pods a service has: a number, or what scales it by CPU or by what is due."""

from typing import Any

import pytest

from tests.support.chart import SERVICES, Refused, render

ONE_NODE = {"enabled": True}
MANY_NODES = {"enabled": True, "accessModes": ["ReadWriteMany"]}
HA = "values-ha.yaml"


@pytest.mark.parametrize("service", SERVICES)
def test_cpu_scales_a_service_and_nothing_else_says_how_many(service: str) -> None:
    scaling = {"enabled": True, "minReplicas": 3, "maxReplicas": 7, "cpuPercent": 55}
    chart = render({service: {"autoscaling": scaling}})
    [scaler] = chart.of("HorizontalPodAutoscaler")
    spec = scaler["spec"]
    assert spec["scaleTargetRef"]["name"] == f"post-gatepost-{service}"
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 7)
    [metric] = spec["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == 55
    for each in SERVICES:
        assert ("replicas" in chart.one("Deployment", each)["spec"]) == (each != service)


def test_nothing_scales_by_itself_unless_asked() -> None:
    assert not render().of("HorizontalPodAutoscaler", "ScaledObject")


def test_two_scalers_of_delivery_are_refused() -> None:
    both = {"keda": {"enabled": True}, "autoscaling": {"enabled": True}}
    with pytest.raises(Refused, match=r"delivery\.autoscaling and delivery\.keda: choose one"):
        render({"delivery": both})


SEVERAL: dict[str, dict[str, Any]] = {
    "replicas": {"replicas": 2},
    "autoscaling": {"autoscaling": {"enabled": True}},
    "keda": {"keda": {"enabled": True}},
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_deliveries_need_a_volume_of_many_nodes(case: str) -> None:
    values = {"delivery": SEVERAL[case]}
    with pytest.raises(Refused, match=r"mailbox\.accessModes: .*ReadWriteMany"):
        render(values | {"mailbox": ONE_NODE})
    assert render(values | {"mailbox": MANY_NODES}).of("PersistentVolumeClaim")
    assert render(values).of("Deployment")


@pytest.mark.parametrize(
    "delivery",
    [
        {"autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 1}},
        {"keda": {"enabled": True, "maxReplicas": 1}, "replicas": 2},
    ],
    ids=["autoscaling", "keda"],
)
def test_one_delivery_at_most_may_have_a_volume_of_one_node(delivery: dict[str, Any]) -> None:
    assert render({"delivery": delivery, "mailbox": ONE_NODE}).of("PersistentVolumeClaim")


def test_the_values_that_survive_a_node_want_such_a_volume() -> None:
    with pytest.raises(Refused, match=r"mailbox\.accessModes"):
        render({"mailbox": ONE_NODE}, files=[HA])
    assert render({"mailbox": MANY_NODES}, files=[HA]).of("PersistentVolumeClaim")
