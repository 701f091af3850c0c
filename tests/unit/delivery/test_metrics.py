"""The metrics of the service: none registered twice, names and help as Prometheus wants them."""

import subprocess

from prometheus_client import REGISTRY, generate_latest

import services.delivery.app as app
from tests.support.programs import program


def test_the_metrics_please_promtool() -> None:
    assert app.run
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=generate_latest(REGISTRY),
        capture_output=True,
        check=False,
    )
    ours = [line for line in done.stderr.decode().splitlines() if "gatepost_delivery" in line]
    assert not ours
