"""The Job that makes the streams. No Job's pod can be changed, so another pod is another Job."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.test_values import EVERYTHING
from tests.support.chart import CHART, Chart, Manifest, helm, render


def _job(chart: Chart) -> Manifest:
    (found,) = chart.of("Job")
    return found


def _name(job: Manifest) -> str:
    return str(job["metadata"]["name"])


CHANGES: dict[str, dict[str, Any]] = {
    "image.tag": {"image": {"tag": "2"}},
    "image.pullPolicy": {"image": {"pullPolicy": "Always"}},
    "image.pullSecrets": {"image": {"pullSecrets": [{"name": "registry"}]}},
    "jobs.resources": {"jobs": {"resources": {"limits": {"memory": "512Mi"}}}},
    "nats.auth.existingSecret": {"nats": {"auth": {"existingSecret": "mine"}}},
    "nats.tls.enabled": {"nats": {"tls": {"enabled": True}}},
    "nats.tls.existingSecret": {"nats": {"tls": {"enabled": True, "existingSecret": "mine"}}},
    "pods.nodeSelector": {"pods": {"nodeSelector": {"disk": "any"}}},
    "config.nats": {"config": {"nats": {"events_max_size": "1GiB"}}},
}


def test_any_change_of_its_pod_is_another_job() -> None:
    jobs = {case: _job(render(values)) for case, values in {"none": {}, **CHANGES}.items()}
    pods = {yaml.safe_dump(job["spec"]["template"]) for job in jobs.values()}
    assert len(pods) == len(jobs), "a change that is none proves nothing"
    assert len({_name(job) for job in jobs.values()}) == len(jobs)


def test_what_concerns_others_leaves_it_as_it_is() -> None:
    others = {"ingress": {"replicas": 2}, "config": {"log": {"level": "debug"}}}
    assert _job(render(others)) == _job(render())


def test_a_newer_chart_with_the_same_image_makes_another_job(tmp_path: Path) -> None:
    """Its version is a label of the pod."""
    newer = tmp_path / "gatepost"
    shutil.copytree(CHART, newer)
    about = yaml.safe_load((newer / "Chart.yaml").read_text(encoding="utf-8"))
    about["version"] += "-next"
    (newer / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    first, second = (
        _job(Chart(helm("template", "post", str(folder)))) for folder in (CHART, newer)
    )
    assert first["spec"]["template"] != second["spec"]["template"]
    assert _name(first) != _name(second)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_it_is_no_hook(values: dict[str, Any]) -> None:
    """Helm would wait for services that wait for it."""
    assert "helm.sh/hook" not in yaml.safe_dump(dict(_job(render(values))))
