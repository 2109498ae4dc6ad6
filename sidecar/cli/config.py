"""``tenantgate config``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec
import yaml

from sidecar.cli.options import read_settings, settings_options
from sidecar.settings import ENVIRONMENT_PREFIX, Setting, describe, describe_issuer, sections

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@click.command()
@click.option("--markdown", is_flag=True, help="Print a Markdown table instead.")
@settings_options
def config(config: Path | None, flags: tuple[str, ...], *, markdown: bool) -> None:
    """Show every setting, with its meaning and its value in force.

    The output is a settings file: save it, change it, and pass it with --config. Settings are read from the file, then from the
    environment (limits.in_flight is TENANTGATE_LIMITS__IN_FLIGHT), then from --set.
    """
    settings = list(describe(read_settings(config, flags)))
    click.echo("\n".join(_markdown(settings) if markdown else _yaml(settings)))


def _yaml(settings: Iterable[Setting]) -> Iterable[str]:
    opened: list[str] = []
    for setting in settings:
        *path, name = setting.name.split(".")
        for depth in range(1, len(path) + 1):
            if opened[:depth] != path[:depth]:
                outer = "  " * (depth - 1)
                yield f"\n{outer}# {sections()['.'.join(path[:depth])]}\n{outer}{path[depth - 1]}:"
        opened = path
        indent = "  " * len(path)
        note = "" if setting.value == setting.default else f" (default: {_text(setting.default)})"
        yield f"{indent}# {setting.about}{note}"
        yield f"{indent}{name}: {_text(setting.value)}"


def _markdown(settings: Iterable[Setting]) -> Iterable[str]:
    yield "| setting | meaning | default | environment variable |"
    yield "|---|---|---|---|"
    for setting in settings:
        variable = ENVIRONMENT_PREFIX + setting.name.upper().replace(".", "__")
        yield f"| `{setting.name}` | {setting.about} | `{_text(setting.default)}` | `{variable}` |"
    yield "\nEach entry of `identity.issuers` has:\n"
    yield "| name | meaning | default |"
    yield "|---|---|---|"
    for setting in describe_issuer():
        default = "required" if setting.default is msgspec.NODEFAULT else f"`{_text(setting.default)}`"
        yield f"| `{setting.name}` | {setting.about} | {default} |"


def _text(value: Any) -> str:
    plain = msgspec.to_builtins(value)
    text: str = yaml.safe_dump(list(plain) if isinstance(plain, tuple) else plain, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("...").strip()
