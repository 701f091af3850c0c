"""The project's own files, and what its Python modules import."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

_CODE = ("services", "tests", "bench")
_TEXT_SUFFIXES = {".md", ".proto", ".py", ".toml", ".tpl", ".yaml", ".yml"}
# Made by tools, or data of a run; not written by anyone.
_NOT_OURS = {".git", ".hypothesis", ".venv", "__pycache__", "data", "dist"}


@dataclass(frozen=True, slots=True)
class Module:
    """A Python module that somebody wrote."""

    path: Path
    """Relative to the root."""

    @property
    def name(self) -> str:
        """Dotted, for example "services.common.dns"."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def text(self) -> str:
        return (ROOT / self.path).read_text(encoding="utf-8")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))


@cache
def imports_of(module: Module) -> frozenset[str]:
    """The dotted names of the modules that it imports, wherever it does so.

    For `from a import b` both "a" and "a.b", since b may be a module. An import by a computed
    name (`import_module(name)`) is "?": no wall can be kept where it is used.
    """
    return frozenset(_imports(module))


def _imports(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                above = module.path.parts[:-level] if level else ()
                origin = ".".join((*above, *filter(None, [source])))
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in names)
            case (
                ast.Call(func=ast.Name(id="import_module" | "__import__"), args=[name, *_])
                | ast.Call(func=ast.Attribute(attr="import_module"), args=[name, *_])
            ):
                yield _constant_text(name) or "?"


def _constant_text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """The modules under these folders of the root, or of all the code."""
    return tuple(
        Module(path.relative_to(ROOT))
        for folder in folders or _CODE
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not _is_foreign(path)
    )


def text_files() -> Iterator[Path]:
    """Code, documents and settings, relative to the root."""
    for path in sorted(ROOT.rglob("*")):
        of_tools = path.name == "Makefile" or path.parent.name in {"tools", ".ci"}
        if not _is_foreign(path) and path.is_file() and (of_tools or _is_text(path)):
            yield path.relative_to(ROOT)


def _is_text(path: Path) -> bool:
    return path.suffix in _TEXT_SUFFIXES


def _is_foreign(path: Path) -> bool:
    return bool(_NOT_OURS.intersection(path.relative_to(ROOT).parts))
