"""What machines are told of the door: its metadata, and its OpenAPI description (https://spec.openapis.org/oas/v3.1.1.html).

Schemas say what is read and no more: fields that they do not name are passed over. One evaluation among many may be anything,
as a malformed one is an evaluation that fails, and not a request that does.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from sidecar.doors.authzen.requests import STOPS_AT
from sidecar.model import CODES, MAX_ID_LENGTH

if TYPE_CHECKING:
    from sidecar.model import Json
    from sidecar.translate import Limits

WELL_KNOWN = "/.well-known/authzen-configuration"
OF_TENANT = "/tenants/{tenant}"
DESCRIPTION = "/openapi.json"

_PRINTABLE = r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$"
_JSON = "application/json"


class Endpoint(NamedTuple):
    """One of the API's endpoints. ``method`` is what it is called in metrics and logs."""

    path: str
    method: str
    parameter: str
    summary: str
    asks: str
    answers: str


ENDPOINTS = (
    Endpoint(
        "/access/v1/evaluation",
        "AuthZEN.evaluation",
        "access_evaluation_endpoint",
        "May the subject do it?",
        "Evaluation",
        "Decision",
    ),
    Endpoint(
        "/access/v1/evaluations",
        "AuthZEN.evaluations",
        "access_evaluations_endpoint",
        "Many evaluations at once",
        "Evaluations",
        "Decisions",
    ),
    Endpoint(
        "/access/v1/search/subject",
        "AuthZEN.search.subject",
        "search_subject_endpoint",
        "Which subjects may do it?",
        "SubjectSearch",
        "Subjects",
    ),
    Endpoint(
        "/access/v1/search/resource",
        "AuthZEN.search.resource",
        "search_resource_endpoint",
        "To which resources may the subject do it?",
        "ResourceSearch",
        "Resources",
    ),
    Endpoint(
        "/access/v1/search/action",
        "AuthZEN.search.action",
        "search_action_endpoint",
        "What may the subject do to the resource?",
        "ActionSearch",
        "Actions",
    ),
)


def metadata(url: str, tenant: str | None) -> dict[str, Json]:
    """Give the metadata (section "Policy Decision Point Metadata") of the whole, or as it serves one tenant alone."""
    base = url if tenant is None else url + OF_TENANT.format(tenant=quote(tenant, safe=""))
    return {"policy_decision_point": base} | {entry.parameter: base + entry.path for entry in ENDPOINTS}


def description(url: str, limits: Limits, *, verified: bool) -> dict[str, Json]:
    """Give the OpenAPI description. ``verified``: whether calls need a token."""
    paths: dict[str, Json] = {}
    for entry in ENDPOINTS:
        paths[entry.path] = {"post": _operation(entry)}
        paths[OF_TENANT + entry.path] = {"parameters": [_TENANT], "post": _operation(entry, "_of_tenant")}
    paths[WELL_KNOWN] = {"get": _read("metadata", "Where the endpoints are", "Metadata")}
    paths[WELL_KNOWN + OF_TENANT] = {
        "parameters": [_TENANT],
        "get": _read("metadata_of_tenant", "Where the endpoints of one tenant are", "Metadata"),
    }
    bearer = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tenantgate: AuthZEN Authorization API 1.0",
            "version": version("tenantgate"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "externalDocs": {"url": "https://openid.net/specs/authorization-api-1_0.html"},
        "servers": [{"url": url}],
        "security": [{"bearer": []}] if verified else [],
        "paths": paths,
        "components": {"schemas": _schemas(limits), "headers": _HEADERS} | (bearer if verified else {}),
    }


def _schema(name: str) -> dict[str, Json]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(entry: Endpoint, suffix: str = "") -> dict[str, Json]:
    return {
        "operationId": entry.parameter.removesuffix("_endpoint") + suffix,
        "summary": entry.summary,
        "parameters": [{"name": "X-Request-ID", "in": "header", "schema": {"type": "string"}}],
        "requestBody": {"required": True, "content": {_JSON: {"schema": _schema(entry.asks)}}},
        "responses": {"200": _answer(entry.answers), **_ERRORS},
    }


def _read(name: str, summary: str, answers: str) -> dict[str, Json]:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": _answer(answers), "400": _ERRORS["400"]},
    }


def _answer(name: str) -> dict[str, Json]:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    return {"description": "An answer", "headers": headers, "content": {_JSON: {"schema": _schema(name)}}}


def _error(what: str, **headers: Json) -> dict[str, Json]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {"description": what, "content": text} | ({"headers": headers} if headers else {})


_TENANT = {"name": "tenant", "in": "path", "required": True, "schema": _schema("Id")}
_HEADERS: dict[str, Json] = {
    "X-Request-ID": {"description": "That of the request, if it has one", "schema": {"type": "string"}}
}
_ERRORS: dict[str, Json] = {
    "400": _error("The request is malformed: a reason in capitals, a colon, the field and what is wrong with it"),
    "401": _error("It is not known who calls", **{"WWW-Authenticate": {"schema": {"type": "string"}}}),
    "413": _error("The request is too large"),
    "500": _error("There is no decision, as the policy could not be evaluated"),
    "503": _error("There is no decision now: too many calls, no policy yet, or no answer in time"),
}


def _object(required: tuple[str, ...] = (), **properties: Json) -> dict[str, Json]:
    shape: dict[str, Json] = {"type": "object", "properties": properties}
    return shape | {"required": [*required]} if required else shape


def _schemas(limits: Limits) -> dict[str, Json]:
    identifier, properties = _schema("Id"), {"type": "object"}
    subject, resource, action, context = map(_schema, ("Subject", "Resource", "Action", "Context"))
    typed = _object(("type",), type=identifier, properties=properties)
    asked = {"subject": subject, "action": action, "resource": resource, "context": context}
    searched = {"context": context, "page": _schema("PageAsked")}
    entity, text = _object(("type", "id"), type=identifier, id=identifier), {"type": "string"}
    anything: dict[str, Json] = {}
    return {
        "Id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "pattern": _PRINTABLE},
        "Subject": _object(("type", "id"), type=identifier, id=identifier, properties=properties),
        "Resource": _object(("type", "id"), type=identifier, id=identifier, properties=properties),
        "Action": _object(("name",), name=identifier, properties=properties),
        "Context": _object(
            tenant_id=identifier,
            arguments={"type": "object"},
            accepted_obligations={"type": "array", "maxItems": limits.list_entries, "items": identifier},
        ),
        "Evaluation": _object(("subject", "action", "resource"), **asked),
        "Evaluations": {
            "anyOf": [
                _object(("subject", "action", "resource"), **asked, evaluations={"type": "array", "maxItems": 0}),
                _object(
                    ("evaluations",),
                    **{name: {"type": "object"} for name in asked},
                    evaluations={"type": "array", "minItems": 1, "maxItems": limits.batch_items, "items": anything},
                    options=_object(evaluations_semantic={"type": "string", "enum": [*STOPS_AT]}),
                ),
            ]
        },
        "PageAsked": _object(token=text, limit={"type": "integer", "minimum": 0}),
        "SubjectSearch": _object(
            ("subject", "action", "resource"), subject=typed, action=action, resource=resource, **searched
        ),
        "ResourceSearch": _object(
            ("subject", "action", "resource"), subject=subject, action=action, resource=typed, **searched
        ),
        "ActionSearch": _object(("subject", "resource"), subject=subject, resource=resource, **searched),
        "Decision": _object(("decision", "context"), decision={"type": "boolean"}, context=_schema("DecisionContext")),
        "Decisions": {
            "anyOf": [
                _schema("Decision"),
                _object(("evaluations",), evaluations={"type": "array", "minItems": 1, "items": _schema("Decision")}),
            ]
        },
        "DecisionContext": _object(
            ("id",),
            id=text,
            code={"type": "string", "enum": [*CODES]},
            policy_id=identifier,
            rule_id=identifier,
            reason_admin={"type": "object", "additionalProperties": text},
            reason_user={"type": "object", "additionalProperties": text},
            obligations={"type": "array", "items": _object(("type",), type=text)},
            revision=text,
            as_of={"type": "string", "format": "date-time"},
            error=_object(("status", "message"), status={"type": "integer"}, message=text),
        ),
        "Page": _object(("next_token", "count"), next_token=text, count={"type": "integer", "minimum": 0}),
        "Subjects": _results(entity),
        "Resources": _results(entity),
        "Actions": _results(_object(("name",), name=identifier)),
        "Metadata": _object(
            ("policy_decision_point", *(entry.parameter for entry in ENDPOINTS)),
            policy_decision_point={"type": "string", "format": "uri"},
            **{entry.parameter: {"type": "string", "format": "uri"} for entry in ENDPOINTS},
        ),
    }


def _results(entity: Json) -> dict[str, Json]:
    return _object(
        ("page", "context", "results"),
        page=_schema("Page"),
        context=_object(("id", "revision", "as_of"), id={"type": "string"}, revision={"type": "string"}),
        results={"type": "array", "items": entity},
    )
