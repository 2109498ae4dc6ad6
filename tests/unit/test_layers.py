"""Imports go one way, and the control plane and the data plane do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(sidecar.__file__).parent

LAYERS: dict[str, set[str]] = {
    # model <- translate <- engine <- doors <- server <- cli; what a part may import of ours, besides itself
    "errors": set(),
    "model": set(),
    "seal": {"errors", "model"},
    "http_server": {"errors"},
    "bundle_endpoint": {"http_server", "seal"},
    "toolchain": {"errors", "seal"},
    "telemetry": set(),
    "translate": {"errors", "model", "gen"},
    "settings": {"errors", "translate"},
    "tls": {"errors", "settings"},
    "places": {"errors"},
    "engine": {"errors", "model", "seal", "translate"},
    "tracing": {"model", "engine"},  # imported where calls are traced, and nowhere else
    "identity": {"errors", "model", "translate", "settings", "gen"},
    "credentials": {"errors", "model", "translate", "engine", "identity", "settings"},
    "audit": {"errors", "model", "settings"},
    "doors": {"errors", "model", "translate", "audit", "engine", "identity", "credentials", "settings", "tls", "gen"},
    "workers": {"errors", "settings", "engine", "doors"},
    "server": {
        "workers",
        "errors",
        "seal",
        "translate",
        "settings",
        "tls",
        "places",
        "toolchain",
        "http_server",
        "bundle_endpoint",
        "engine",
        "identity",
        "credentials",
        "audit",
        "doors",
        "tracing",
        "gen",
    },
    "tenancy": {"errors", "model", "identity", "gen"},  # for applications; no part of the sidecar uses it
    "worker": {"errors", "settings", "telemetry", "server", "workers", "engine", "identity", "doors", "gen"},
    "agentcore_lambda": {"errors", "settings", "telemetry", "server", "doors"},
    "registry": {"errors", "model"},
    "bundles": {"errors", "seal", "model", "registry"},
    "cli": {
        "errors",
        "model",
        "settings",
        "audit",
        "toolchain",
        "telemetry",
        "server",
        "identity",
        "credentials",
        "bundle_endpoint",
        "registry",
        "bundles",
        "gen",
    },
    "gen": set(),
}
# A process that others begin by naming a function below: imported by it when it is called.
BEGINNINGS = {"doors/agentcore/__init__.py": {"agentcore_lambda"}, "workers.py": {"worker"}}
DATA_PLANE = {"audit", "engine", "doors", "identity", "credentials", "server"}
CONTROL_PLANE = {"registry", "bundles"}


def _modules() -> Iterator[tuple[str, Path]]:
    """Yield the modules with the part of the package that each belongs to; generated code is as it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part not in {"gen", "__init__"}:
            yield part, path


def _imported(path: Path) -> set[str]:
    """List the parts of the package that a module imports, inside functions and for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "sidecar" else {module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("sidecar."):
            names.add(node.value)  # the commands name their modules in a table
    return {name.split(".")[1] for name in names if name.startswith("sidecar.")}


_MODULES = [*_modules()]
_IDS = [path.relative_to(PACKAGE).as_posix() for _, path in _MODULES]


@pytest.mark.parametrize(("part", "path"), _MODULES, ids=_IDS)
def test_a_module_imports_only_from_layers_below(part: str, path: Path) -> None:
    begins = BEGINNINGS.get(path.relative_to(PACKAGE).as_posix(), set())
    assert _imported(path) - {part} - LAYERS[part] == begins


def test_the_layers_have_no_circle() -> None:
    order: list[str] = []
    while len(order) < len(LAYERS):
        ready = [part for part in LAYERS if part not in order and LAYERS[part] <= {*order}]
        assert ready, f"a circle among {LAYERS.keys() - {*order}}"
        order += ready

    assert [part for part in order if part in {"model", "translate", "engine", "doors", "server", "cli"}] == [
        "model",
        "translate",
        "engine",
        "doors",
        "server",
        "cli",
    ]


def test_the_data_plane_does_not_know_the_control_plane_nor_the_reverse() -> None:
    assert not any(LAYERS[part] & CONTROL_PLANE for part in DATA_PLANE)
    assert not any(LAYERS[part] & DATA_PLANE for part in CONTROL_PLANE)


def test_every_part_has_its_layer_and_every_layer_its_part() -> None:
    parts = {
        path.name.removesuffix(".py")
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert parts - {"__init__"} == {*LAYERS}


def test_the_environment_is_read_by_the_settings_alone() -> None:
    readers = {
        path.relative_to(PACKAGE).as_posix()
        for _, path in _MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }

    assert readers == {"settings.py"}
