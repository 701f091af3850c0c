"""Every object that the chart renders is one that Kubernetes takes, by its own JSON schemas.

In the strict form, which refuses keys that Kubernetes does not know and would drop in silence.
"""

import copy
import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from tests.chart.test_values import EVERYTHING, VALUES_FILES
from tests.cluster.objects import namespace, scripts, sender, sink
from tests.support.chart import Chart, Manifest, container, render

VERSIONS = ("1.33.0", "1.37.0")
"""The oldest that is supported by its own makers, and the newest that there are schemas of."""

NOT_OF_KUBERNETES = {
    "cert-manager.io/v1",
    "keda.sh/v1alpha1",
    "monitoring.coreos.com/v1",
}
"""Custom resources; their schemas come with the programs that define them."""

RENDERINGS = [pytest.param({}, [file], id=file) for file in VALUES_FILES] + [
    pytest.param(EVERYTHING, [], id="everything")
]


@cache
def validator(version: str, kind: str, api: str) -> jsonschema.Draft202012Validator:
    """For one kind of object, with what its schema refers to."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    # rbac.authorization.k8s.io/v1 is called rbac-v1 there, and v1 just so.
    group, _, number = api.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    schema, definitions = (
        Resource.from_contents(json.loads((folder / file).read_text(encoding="utf-8")))
        for file in (f"{name}.json", "_definitions.json")
    )
    registry: Registry[Any] = definitions @ Registry()
    return jsonschema.Draft202012Validator(schema.contents, registry=registry)


def complaints(version: str, manifest: Manifest) -> list[str]:
    """What is wrong with an object, with the path to it."""
    found = validator(version, manifest["kind"], manifest["apiVersion"]).iter_errors(manifest)
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    return [f"{name}: {error.json_path}: {error.message}" for error in found]


def built_in(chart: Chart) -> list[Manifest]:
    return [each for each in chart.objects if each["apiVersion"] not in NOT_OF_KUBERNETES]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("values", "from_files"), RENDERINGS)
def test_kubernetes_takes_every_object(
    values: dict[str, Any], from_files: list[str], version: str
) -> None:
    found = built_in(render(values, files=from_files))
    assert len(found) > 20
    assert not [text for each in found for text in complaints(version, each)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_that_kubernetes_does_not_know_is_noticed(version: str) -> None:
    deployment = copy.deepcopy(dict(render().one("Deployment", "ingress")))
    assert not complaints(version, deployment)
    box = container(deployment["spec"]["template"])
    box["securityContext"]["readonlyRootFilesystem"] = True
    (text,) = complaints(version, deployment)
    assert "containers[0].securityContext" in text
    assert "readonlyRootFilesystem" in text


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_the_cluster_test_brings(version: str) -> None:
    brought = [namespace("n"), scripts(), *sink("i"), sender("s", "i", ["a:25", "b", "1", "2"])]
    assert not [text for each in brought for text in complaints(version, each)]
