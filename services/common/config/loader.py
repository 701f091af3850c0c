"""Load `gatepost.yaml`: every mistake is named with its key, its line and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from services.common.config.model import Config
from services.common.config.wording import in_plain_words, no_such_setting

MAX_FILE_OCTETS: Final = 8 * 2**20
"""A ConfigMap holds 1 MiB at most; more than this is not a configuration."""


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Loader(yaml.SafeLoader):
    """YAML without surprises: a key that stands twice is an error, `on` is no boolean."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


def read(path: Path) -> tuple[Mapping[str, Any], yaml.Node | None]:
    """The file's values, and its node tree for line numbers. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_OCTETS + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    if len(text) > MAX_FILE_OCTETS:
        raise ConfigError([f"{path}: larger than {MAX_FILE_OCTETS} octets"])
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            values = loader.construct_document(node) if node is not None else {}
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError([f"{path}: {_yaml_problem(error)}"]) from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            [f"{path}: must hold sections such as `smtp:`, not a {type(values).__name__}"]
        )
    return values, node


def load(path: Path | None, *, defaults: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a file laid over `defaults`. Raises `ConfigError`."""
    values, node = read(path) if path else ({}, None)
    try:
        return Config.model_validate(overlaid(defaults or {}, values))
    except ValidationError as error:
        raise ConfigError(list(_problems(error, path, node))) from error


def overlaid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`: sections are joined, all else is replaced."""
    joined = dict(under)
    for key, value in over.items():
        below = joined.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            joined[key] = overlaid(below, value)
        else:
            joined[key] = value
    return joined


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    return " ".join(str(error).split()) or "not YAML"


def _problems(error: ValidationError, path: Path | None, node: yaml.Node | None) -> Iterator[str]:
    """In the order of the file."""
    problems = error.errors(include_url=False)
    told: list[tuple[int, str]] = []
    for problem in problems:
        location = problem["loc"]
        if any(location == other["loc"][: len(location)] != other["loc"] for other in problems):
            continue  # a list with a bad item is reported for that item
        key = ".".join(str(part) for part in location)
        line = _line_of(node, location)
        where = f"{path}: line {line}: " if line else f"{path}: " if path else ""
        if problem["type"] == "extra_forbidden":
            what = no_such_setting(Config, location)
        else:
            what = in_plain_words(problem["type"], problem["msg"], problem.get("ctx", {}))
        told.append((line or 0, f"{where}{key or 'the configuration'}: {what}"))
    yield from (text for _, text in sorted(told, key=itemgetter(0)))


def _line_of(node: yaml.Node | None, location: Sequence[str | int]) -> int | None:
    """The line, from 1, of the key that a problem is about, or of the nearest one in the file."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(
                ((key, value) for key, value in node.value if key.value == str(part)), None
            )
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
