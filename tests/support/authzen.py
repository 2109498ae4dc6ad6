"""Enforcement points that call the AuthZEN door of a sidecar."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
import yaml

from tests.support.exports import write_export
from tests.support.processes import build_bundle, running_sidecar, sidecar_settings
from tests.support.registries import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.server import Sidecar

PRINCIPAL = "agent:gateway"
ASSERTED = {"authzen__listen": "127.0.0.1:0", "authzen__principal": PRINCIPAL}
EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
SEARCH = "/access/v1/search/"

Answer = urllib3.BaseHTTPResponse


def registry(name: str) -> list[dict[str, Any]]:
    """Read the items of a registry in ``tests/data``."""
    items: list[dict[str, Any]] = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    return items


@contextmanager
def serving(items: list[dict[str, Any]], **settings: Any) -> Iterator[Sidecar]:
    """Run a sidecar with the door, from items as they stand in DynamoDB. Identities are asserted unless told otherwise."""
    with tempfile.TemporaryDirectory(prefix="tg-") as name:
        folder = Path(name)
        bundle = build_bundle(write_export(folder, items), folder / "bundle.tar.gz")
        with running_sidecar(sidecar_settings(folder, bundle, **{**ASSERTED, **settings})) as (sidecar, _):
            yield sidecar


def send(
    sidecar: Sidecar, path: str, body: bytes | None, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> Answer:
    """Send a request, whatever it is."""
    return urllib3.request(
        method,
        sidecar.authzen_url + path,
        body=body,
        headers={"content-type": "application/json", **(headers or {})},
        retries=False,
        redirect=False,
        timeout=20,
    )


def post(sidecar: Sidecar, path: str, body: Any, **headers: str) -> Answer:
    """Send JSON. In the names of headers, ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(sidecar, path, json.dumps(body).encode(), named)


def ask(sidecar: Sidecar, path: str, body: Any, **headers: str) -> Any:
    """Send JSON, and give the JSON that is answered."""
    answer = post(sidecar, path, body, **headers)
    assert answer.status == 200, answer.data
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def subject(subject_id: str, subject_type: str = "user", **properties: Any) -> dict[str, Any]:
    """Write a subject."""
    return {"type": subject_type, "id": subject_id} | ({"properties": properties} if properties else {})


def resource(resource_id: str, resource_type: str = "record", **properties: Any) -> dict[str, Any]:
    """Write a resource."""
    return {"type": resource_type, "id": resource_id} | ({"properties": properties} if properties else {})


def action(name: str, **properties: Any) -> dict[str, Any]:
    """Write an action."""
    return {"name": name} | ({"properties": properties} if properties else {})


def evaluation(who: str, does: str, what: str, **context: Any) -> dict[str, Any]:
    """Ask whether a user may do it to a record."""
    asked: dict[str, Any] = {"subject": subject(who), "action": action(does), "resource": resource(what)}
    return asked | ({"context": context} if context else {})
