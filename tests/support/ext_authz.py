"""Questions as Envoy asks them, the cases that are written of them, and what is told to Envoy in short."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent.parent / "cases" / "ext_authz"
_REGISTRY = FOLDER / "registry.yaml"
_DECISION_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

Headers: TypeAlias = "Mapping[str, str | Sequence[str] | None]"


def registry() -> list[dict[str, Any]]:
    """Give the items that the cases are about."""
    items: list[dict[str, Any]] = yaml.safe_load(_REGISTRY.read_text())
    return items


def check_request(
    path: str = "/mcp",
    body: bytes | None = None,
    *,
    method: str = "POST",
    headers: Headers | None = None,
    extensions: Mapping[str, str] | None = None,
    merged: bool = False,
    as_text: bool = False,
) -> CheckRequest:
    """Make a question.

    ``headers`` stand beside or in place of those that Envoy sends; with None, there is none. ``merged`` writes them as Envoy does
    without ``encode_raw_headers``, and ``as_text`` the body as it does without ``pack_as_bytes``.
    """
    request = CheckRequest()
    request.attributes.source.address.socket_address.address = "192.0.2.7"
    request.attributes.context_extensions.update(extensions or {})
    http = request.attributes.request.http
    http.method, http.path, http.host = method, path, "gateway.example"
    whole: dict[str, str | Sequence[str] | None] = {":path": path, ":method": method, "x-request-id": "request-1"}
    if body is not None:
        if as_text:
            http.body = body.decode()
        else:
            http.raw_body = body
        whole |= {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-envoy-auth-partial-body": "false",
        }
    for name, values in (whole | {**(headers or {})}).items():
        for value in [values] if isinstance(values, str) else values or ():
            add_header(request, name, value, merged=merged)
    return request


def add_header(request: CheckRequest, name: str, value: str, *, merged: bool) -> None:
    """Add a header as Envoy does, with or without ``encode_raw_headers``."""
    http = request.attributes.request.http
    if not merged:
        http.header_map.headers.add(key=name, raw_value=value.encode())
    elif name in http.headers:
        http.headers[name] += f",{value}"
    else:
        http.headers[name] = value


@dataclass(frozen=True)
class Case:
    """One question, and what is expected of its answer."""

    file: str
    name: str
    request: CheckRequest
    expect: str
    told: dict[str, str] | None
    answer: Any
    challenge: str | None


def case_names() -> list[tuple[str, str]]:
    """List the cases by file and name."""
    return [(path.stem, case["name"]) for path in _files() for case in _read(path)["cases"]]


def file_settings(file: str) -> dict[str, Any]:
    """Give the settings of a file, by their dotted names."""
    settings: dict[str, Any] = _read(FOLDER / f"{file}.yaml").get("settings", {})
    return settings


def load_case(file: str, name: str, tokens: Mapping[str, str]) -> Case:
    """Read a case; ``tokens`` are those of the tenants."""
    case = next(case for case in _read(FOLDER / f"{file}.yaml")["cases"] if case["name"] == name)
    merged = case.get("merged", False)
    request = check_request(
        case.get("path", "/mcp"),
        _body(case),
        method=case.get("method", "POST"),
        headers=case.get("headers"),
        extensions=case.get("extensions"),
        merged=merged,
        as_text=case.get("as_text", False),
    )
    token = case.get("token", "acme")
    if token is not None:
        add_header(request, "authorization", f"Bearer {tokens[token]}", merged=merged)
    return Case(file, name, request, case["expect"], case.get("told"), case.get("answer"), case.get("challenge"))


def _files() -> list[Path]:
    return [path for path in sorted(FOLDER.glob("*.yaml")) if path != _REGISTRY]


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _body(case: dict[str, Any]) -> bytes | None:
    if "nested" in case:
        depth: int = case["nested"]
        return b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    if "padded" in case:
        return json.dumps({"a": "x" * case["padded"]}).encode()
    if "text" in case:
        return str(case["text"]).encode()
    return json.dumps(case["body"]).encode() if "body" in case else None


def outcome(response: CheckResponse) -> str:
    """Say in short what Envoy is told. The two halves of an answer must agree, whatever it is."""
    if response.status.code == code_pb2.OK:
        assert response.WhichOneof("http_response") == "ok_response"
        return "goes on"
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.denied_response.status.code
    return f"{response.denied_response.status.code} {response.status.message}"


def headers_of(response: CheckResponse) -> dict[str, str]:
    """Give the headers of an answer, each of which must replace what there is."""
    options = response.ok_response.headers or response.denied_response.headers
    assert {option.append_action for option in options} == {options[0].OVERWRITE_IF_EXISTS_OR_ADD}
    return {option.header.key: option.header.value for option in options}


def metadata_of(response: CheckResponse) -> dict[str, Any]:
    """Give the dynamic metadata that an answer carries."""
    metadata: dict[str, Any] = MessageToDict(response.dynamic_metadata)["tenantgate"]
    return metadata


def masked(value: Any) -> Any:
    """Put ``<id>`` in place of the ids of decisions."""
    return json.loads(_DECISION_ID.sub("<id>", json.dumps(value)))
