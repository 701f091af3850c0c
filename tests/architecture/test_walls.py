"""The walls that import-linter cannot express; the others are its contracts in pyproject.toml."""

from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, Module, imports_of, modules

# Library → where it may be imported: in one module of a package, or anywhere in it (`.*`). Whatever
# wants it elsewhere goes through that adapter: so the library's exceptions, defaults and faults are
# met in one place, and it can be replaced in one place.
_ADAPTERS = {
    "aiohttp": ("services.delivery", "services.keys"),
    "aiosmtpd": ("services.ingress",),
    "aiosmtplib": ("services.delivery",),
    "argon2": ("services.policy",),
    "dkim": ("services.delivery", "services.keys", "services.policy"),
    "dns": ("services.common.dns.*",),
    "kubernetes_asyncio": ("services.keys",),
    "nats": ("services.common.jetstream.*",),
    "spf": ("services.policy",),
}

# Runs the service that is named on the command line, and so loads `services.<service>.app` by name.
_LAUNCHER = "services.cli.serve"


@pytest.mark.parametrize(("library", "places"), _ADAPTERS.items(), ids=_ADAPTERS)
def test_a_library_is_imported_by_its_adapter_alone(library: str, places: tuple[str, ...]) -> None:
    importers = {module.name for module in modules("services") if _imports(module, library)}
    for place in places:
        package = place.removesuffix(".*")
        adapters = {name for name in importers if _is_in(name, package)}
        assert len(adapters) <= 1 or package != place, f"two adapters of {library}: {adapters}"
        importers -= adapters
    assert not importers, f"{library} belongs into {', '.join(places)}"


def test_the_mail_vocabulary_stands_alone() -> None:
    strays = {
        (module.name, imported)
        for module in modules("services/common/mail")
        for imported in imports_of(module)
        if _is_in(imported, "services")
        and not _is_in(imported, "services.common.mail")
        # `from services.common import mail` names the package on the way.
        and imported != "services.common"
    }
    assert not strays


def test_the_command_line_knows_only_the_entry_points_of_the_services() -> None:
    services = ("ingress", "policy", "delivery", "keys")
    strays = {
        (module.name, imported)
        for module in modules("services/cli")
        for imported in imports_of(module)
        for service in services
        if _is_in(imported, f"services.{service}")
        and imported != f"services.{service}"
        and not _is_in(imported, f"services.{service}.app")
    }
    assert not strays


def test_no_import_hides_behind_a_computed_name() -> None:
    hiding = {module.name for module in modules("services") if "?" in imports_of(module)}
    assert hiding <= {_LAUNCHER}


def test_generated_code_is_all_that_is_named_gatepost() -> None:
    written = [
        path.relative_to(ROOT)
        for path in (ROOT / "proto").rglob("*.py*")
        if path.suffix in {".py", ".pyi"} and "_pb2" not in path.name
    ]
    assert not written


def test_every_folder_of_code_is_a_package() -> None:
    """import-linter does not look into folders without `__init__.py`: their walls would be open."""
    folders = {module.path.parent for module in modules("services")}
    assert not {str(folder) for folder in folders if not _is_package(folder)}


def _imports(module: Module, library: str) -> bool:
    return any(_is_in(imported, library) for imported in imports_of(module))


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _is_package(folder: Path) -> bool:
    return (ROOT / folder / "__init__.py").is_file()
