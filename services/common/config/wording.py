"""What is wrong with a value, in the words of a configuration file and not of Python.

Kinds of mistakes that have no words here keep those of the library.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel

_A_LIST: Final = "must be a list, such as [a, b]"
_SETTINGS: Final = "must be settings, such as {{key: value}}"
_WHOLE: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_BOOLEAN: Final = "must be true or false"
# In braces, what the library tells with such a mistake.
_WORDS: Final = {
    "tuple_type": _A_LIST,
    "list_type": _A_LIST,
    "model_type": _SETTINGS,
    "dict_type": _SETTINGS,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "string_type": "must be text; in quotes, if it looks like a number or true or false",
    "path_type": "must be the path of a file or folder",
    "ip_v4_address": "must be an IPv4 address",
    "ip_v6_address": "must be an IPv6 address",
    "missing": "must be set",
    "too_short": "must have at least {min_length} of them",
    "too_long": "must have at most {max_length} of them",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
}


def in_plain_words(kind: str, text: str, context: Mapping[str, Any]) -> str:
    """A mistake of this kind; `text` and `context` are the library's."""
    if kind == "value_error":
        return text.removeprefix("Value error, ")
    words = _WORDS.get(kind)
    if words is not None:
        return words.format_map(context)
    text = text.removeprefix("Input ")
    return f"{text[:1].lower()}{text[1:]}"


def no_such_setting(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """The words for an unknown key, with the known one that was most likely meant."""
    near = difflib.get_close_matches(str(location[-1]), _known_keys(model, location[:-1]), n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"no such setting{meant}; `gatepost config schema` lists all of them"


def _known_keys(model: type[BaseModel], section: Sequence[str | int]) -> list[str]:
    kind: Any = model
    for part in section:
        kind = _bare(_below(kind, part))
    return list(kind.model_fields) if _is_model(kind) else []


def _below(kind: Any, part: str | int) -> Any:
    """The type of what stands at `part` of a value of this type; None if nothing can."""
    if _is_model(kind):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    return arguments[0] if get_origin(kind) is tuple else None


def _bare(kind: Any) -> Any:
    """The type without what is annotated, and without the None that it may be instead."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if type(None) in get_args(kind):
        return _bare(next(each for each in get_args(kind) if each is not type(None)))
    return kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
