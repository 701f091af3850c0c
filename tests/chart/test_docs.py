"""The values that the documentation shows are values that the chart takes."""

import re

import pytest
import yaml

from tests.support.chart import ROOT, render

INSTALL = (ROOT / "docs/install.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", INSTALL, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS, ids=[f"block-{n}" for n in range(len(BLOCKS))])
def test_every_example_renders(text: str) -> None:
    values = yaml.safe_load(text)
    assert render(values).of("Deployment")


def test_there_are_examples() -> None:
    assert len(BLOCKS) > 8


def test_the_names_in_commands_are_those_of_the_release() -> None:
    """The documentation installs a release `gatepost`; the tests' is `post`."""
    there = {
        f"{each['kind'].lower()}/{each['metadata']['name'].removeprefix('post-')}"
        for each in render().objects
    }
    text = "\n".join(
        (ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("install", "operate")
    )
    short = {"deploy": "deployment"}
    named = re.findall(r"\b(deploy|deployment|service|statefulset)/(gatepost-[a-z-]+)", text)
    assert named
    for kind, name in named:
        assert f"{short.get(kind, kind)}/{name}" in there, name
