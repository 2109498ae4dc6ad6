"""The case corpus (``tests/cases``), read for whichever door runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.json_format import ParseDict

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.settings import Settings, load
from tests.support.registries import sample_items

FOLDER = Path(__file__).parent.parent / "cases"


@dataclass(frozen=True)
class Case:
    """One question and what is expected of it: a code with the rule that decided, or the field that is malformed."""

    name: str
    request: pb.AuthorizeRequest
    tenant_header: str | None
    expect: tuple[str, str, str] | None
    error: str | None
    reason: str | None
    obligations: list[dict[str, Any]]


@dataclass(frozen=True)
class CaseFile:
    """A registry and the cases about it."""

    name: str
    items: list[dict[str, Any]]
    flags: list[str]
    cases: list[Case] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """The settings that the file asks for, on top of the defaults."""
        return load(None, {}, self.flags)


def load_files() -> list[CaseFile]:
    """Read the whole corpus."""
    return [_load(path) for path in sorted(FOLDER.glob("*.yaml"))]


def _load(path: Path) -> CaseFile:
    content = yaml.safe_load(path.read_text())
    items = sample_items() if content["registry"] == "sample" else content["registry"]
    flags = [f"{name}={value}" for name, value in content.get("settings", {}).items()]
    return CaseFile(path.stem, items, flags, [_case(content["identity"], case) for case in content["cases"]])


def _case(identity: dict[str, Any], case: dict[str, Any]) -> Case:
    case = dict(case)
    resource = case.pop("resource")
    name, header = case.pop("name"), case.pop("tenant_header", None)
    expect, error, reason = case.pop("expect", None), case.pop("error", None), case.pop("reason", None)
    obligations = case.pop("obligations", [])
    message = {
        "resource": resource if isinstance(resource, dict) else {"type": "TOOL", "id": resource},
        **case,
        "identity": {**identity, **case.get("identity", {})},
    }
    code, policy, rule = ((*expect.split(), "", "")[:3]) if expect else ("", "", "")
    return Case(
        name,
        ParseDict(message, pb.AuthorizeRequest()),
        header,
        (code, policy, rule) if expect else None,
        error,
        reason,
        obligations,
    )
