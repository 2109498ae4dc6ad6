"""What Envoy hands over, read: who asks, and for what. Pure functions.

Three kinds of source speak. A route speaks by the context extensions that Envoy's configuration gives it, and nobody else can:
what it says is never asked of a request. Path and body are the caller's: a resource is read from them in one way or not at all.
Headers are the caller's too: who asks is proven by the token among them, or believed where ``identity.mode: asserted`` says so.
The message is https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/auth/v3/attribute_context.proto.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from sidecar import translate
from sidecar.doors.mcp import Mcp, fill
from sidecar.doors.verdicts import Asked, Refusal
from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1.decision_pb2 import Identity as IdentityMessage
from sidecar.identity.encoding import read_value
from sidecar.model import id_fault
from sidecar.settings import ExtAuthzRoute, route_fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envoy.service.auth.v3.external_auth_pb2 import CheckRequest

    from sidecar.model import Json
    from sidecar.settings import ExtAuthzSettings
    from sidecar.translate import Limits

    Headers: TypeAlias = Mapping[str, Sequence[str]]
    Http: TypeAlias = Any  # AttributeContext.HttpRequest, which has no types

_MCP_TOOL = "agent:tool:{tool}"
_ROUTE_FIELDS = ExtAuthzRoute.__struct_fields__

_PARTIAL = "x-envoy-auth-partial-body"
"""Which Envoy sets where it gives a body, and takes away where a client sets it."""

_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+"
"""A segment of a path that all readers see alike: RFC 3986 section 3.3, without what is encoded, ``.``, ``..`` and parameters."""

_JSON = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
_WITHOUT_BODY = {"GET", "HEAD", "DELETE", "OPTIONS"}
"""Methods that have no body unless a header says so (RFC 9110 section 9.3, RFC 9112 section 6)."""

_ROUTE_UNKNOWN = Refusal(
    "METHOD",
    "ROUTE_UNKNOWN",
    "nothing says what this path asks for: neither the context extensions of its route nor ext_authz.routes",
)
_HTTP_METHOD_DENIED = Refusal("METHOD", "HTTP_METHOD_DENIED", "this method of HTTP is not let through to an MCP server")
_QUERY_DENIED = Refusal(
    "METHOD", "QUERY_DENIED", "what a query says is not looked at: send it in the body, as a JSON object"
)
_UPGRADE_DENIED = Refusal("METHOD", "UPGRADE_DENIED", "what comes after an upgrade cannot be looked at")
_BODY_AS_TEXT = Refusal(
    "METHOD", "BODY_AS_TEXT", "the body came as text, which Envoy alters: set with_request_body.pack_as_bytes to true"
)
_BODY_ENCODED = Refusal("METHOD", "BODY_ENCODED", "the body is compressed, so it cannot be looked at: send it as it is")
_BODY_INCOMPLETE = Refusal(
    "METHOD",
    "BODY_INCOMPLETE",
    "the body did not come whole, so it cannot be looked at: send at most with_request_body.max_request_bytes, and {} for no "
    "arguments",
)
_BODY_NOT_JSON = Refusal("MALFORMED", "REQUEST_INVALID", "content-type: must be application/json, in UTF-8")


def header_values(request: CheckRequest) -> dict[str, list[str]]:
    """Give the headers by name, in lower case, with all the values that each has."""
    http = request.attributes.request.http
    values: dict[str, list[str]] = {}
    for name, value in http.headers.items():
        values.setdefault(name.lower(), []).append(value)
    for header in http.header_map.headers:  # in place of the others with encode_raw_headers
        values.setdefault(header.key.lower(), []).append(header.raw_value.decode(errors="replace") or header.value)
    return values


def context(request: CheckRequest, limits: Limits) -> dict[str, Json]:
    """Give what conditions may look at as the context. Raises ``InvalidRequestError``."""
    http = request.attributes.request.http
    source = request.attributes.source.address.socket_address.address
    about = {"method": http.method, "host": http.host, "path": _path(http), "sourceIp": source}
    return translate.plain_object("context", about, limits)


class _Found(NamedTuple):
    """A route, and what stands in the places of its path."""

    route: ExtAuthzRoute
    parts: dict[str, str]


class Reader:
    """Reads requests under the section ``ext_authz``. Raises ``SettingsError`` if that lets pass what must be asked about."""

    def __init__(self, settings: ExtAuthzSettings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self._mcp(_MCP_TOOL)

    def stated(self, request: CheckRequest, headers: Headers) -> IdentityMessage:
        """Give the identity that the route states, or else the headers. Raises ``InvalidRequestError``."""
        said = {name: self._said(name, request, headers) for name in ("tenant", "principal", "subject")}
        listed = {name: _words(self._said(name, request, headers)) for name in ("scopes", "roles")}
        message = IdentityMessage(tenant_id=said["tenant"], scopes=listed["scopes"])
        if said["principal"]:
            message.principal.id = said["principal"]
        if said["subject"] or listed["roles"]:
            message.subject.id = said["subject"]
            message.subject.roles.extend(listed["roles"])
        return message

    def asked(self, request: CheckRequest, headers: Headers) -> Asked | Refusal | None:
        """Say what a request asks for. None is for what passes without a question. Raises ``InvalidRequestError``."""
        http = request.attributes.request.http
        found = self._found(request)
        if isinstance(found, Refusal):
            return found
        route, parts = found
        if route.body and ("upgrade" in headers or http.method == "CONNECT"):
            return _UPGRADE_DENIED
        if route.mcp:
            return self._asked_by_message(http, headers, fill(route.resource_id or _MCP_TOOL, **parts))
        arguments = self._arguments(http, headers) if route.body else {}
        if isinstance(arguments, Refusal):
            return arguments
        return Asked(
            _checked("resource.type", route.resource_type),
            _checked("resource.id", fill(route.resource_id or "", **parts)),
            _checked("action.name", route.action),
            arguments,
        )

    def message(self, request: CheckRequest) -> Json | UnsetType:
        """Give the message of MCP that a request carries, None if it cannot be read; unset if the request is another."""
        found = self._found(request)
        http = request.attributes.request.http
        if isinstance(found, Refusal) or not found.route.mcp or http.method in _WITHOUT_BODY:
            return UNSET
        try:
            return read_value(http.raw_body)
        except (ValueError, RecursionError):
            return None

    def _said(self, name: str, request: CheckRequest, headers: Headers) -> str:
        extensions = request.attributes.context_extensions
        if name in extensions:
            return str(extensions[name])
        header = self._settings.identity_headers.get(name)  # type: ignore[call-overload]  # it has some of the names
        values = headers.get(header.lower(), ()) if header else ()
        if len(values) > 1:
            field = f"header {header}"
            raise InvalidRequestError(field, f"is there {len(values)} times")
        return values[0] if values else ""

    def _found(self, request: CheckRequest) -> _Found | Refusal:
        """Give the route of a request: that of its context extensions, which is taken whole, or else one of the settings."""
        extensions = request.attributes.context_extensions
        said = {name: extensions[name] for name in _ROUTE_FIELDS if name in extensions}
        routes: Iterable[ExtAuthzRoute] = self._settings.routes
        if said:
            try:
                route = msgspec.convert(said, ExtAuthzRoute, strict=False)
            except msgspec.ValidationError as fault:
                return _route_invalid(str(fault))
            if wrong := route_fault(route):
                return _route_invalid(wrong)
            routes = (route,)
        path = _path(request.attributes.request.http)
        for route in routes:
            fits = _pattern(route.path).fullmatch(path)
            if fits:
                return _Found(route, fits.groupdict())
        return _ROUTE_UNKNOWN

    def _asked_by_message(self, http: Http, headers: Headers, tool_template: str) -> Asked | Refusal | None:
        if http.method in {"GET", "DELETE"}:  # a stream of what the server has to say, and the end of a session
            return _HTTP_METHOD_DENIED if self._settings.methods.get(http.method) == "deny" else None
        if http.method != "POST":
            return _HTTP_METHOD_DENIED
        body = _body(http, headers)
        if isinstance(body, Refusal):
            return body
        asked = self._mcp(tool_template).asked(_json(body))
        if isinstance(asked, Asked):
            arguments = translate.plain_object("params.arguments", asked.arguments, self._limits)
            return replace(asked, arguments=arguments)
        return asked

    def _arguments(self, http: Http, headers: Headers) -> dict[str, Json] | Refusal:
        if "?" in http.path:
            return _QUERY_DENIED
        body = _body(http, headers)
        if isinstance(body, Refusal):
            return body
        return translate.plain_object("body", _json(body), self._limits) if body else {}

    def _mcp(self, tool_template: str) -> Mcp:
        return Mcp(tool_template, self._settings.methods, section="ext_authz", targets=False)


def _route_invalid(fault: str) -> Refusal:
    return Refusal("METHOD", "ROUTE_INVALID", f"the context extensions of the route are no good: {fault}")


def _path(http: Http) -> str:
    return str(http.path).partition("?")[0]


@functools.lru_cache(1024)
def _pattern(path: str | None) -> re.Pattern[str]:
    """Write the path of a route as a pattern, in which each place is one segment."""
    if path is None:
        return re.compile(".*", re.DOTALL)
    texts = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(f"(?P<{text}>{_SEGMENT})" if i % 2 else re.escape(text) for i, text in enumerate(texts)))


def _checked(field: str, text: str) -> str:
    fault = id_fault(text)
    if fault:
        raise InvalidRequestError(field, fault)
    return text


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


def _body(http: Http, headers: Headers) -> bytes | Refusal:
    """Give the body of a request, if it is there whole and every reader reads it alike."""
    body: bytes = http.raw_body
    if http.body:
        return _BODY_AS_TEXT
    if any(coding.lower() != "identity" for coding in headers.get("content-encoding", ())):
        return _BODY_ENCODED
    if not _is_whole(http.method, body, headers):
        return _BODY_INCOMPLETE
    types = headers.get("content-type", ())
    if body and not (len(types) == 1 and _JSON.fullmatch(types[0])):
        return _BODY_NOT_JSON
    return body


def _is_whole(method: str, body: bytes, headers: Headers) -> bool:
    lengths = {*headers.get("content-length", ())}
    if lengths and lengths != {str(len(body))}:
        return False
    partial = headers.get(_PARTIAL, ())
    if partial:
        return {*partial} == {"false"}
    # Envoy gives no body: there is none, or it was not told to give it
    return not body and (bool(lengths) or (method in _WITHOUT_BODY and "transfer-encoding" not in headers))


def _json(body: bytes) -> Json:
    try:
        return read_value(body)
    except (ValueError, RecursionError) as fault:
        field = "body"
        raise InvalidRequestError(field, f"is not JSON that every reader reads alike: {fault}") from fault
