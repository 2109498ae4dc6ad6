"""The settings: every one with its meaning, unit and default; read once, from a file, the environment and flags, in this order.

A later source overrides an earlier one. In the environment, ``limits.in_flight`` is ``TENANTGATE_LIMITS__IN_FLIGHT``; as a flag,
``--set limits.in_flight=64``. Values are YAML. Nothing else reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Meta, Struct

from sidecar.errors import SettingsError
from sidecar.translate import DelegationSettings, Limits, PolicySettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENVIRONMENT_PREFIX = "TENANTGATE_"

# What Kubernetes adds to the environment where there is a Service named tenantgate.
_OF_KUBERNETES = re.compile(r"TENANTGATE_(SERVICE_(HOST|PORT)|PORT)(_|$)")


def _about(text: str, **bounds: Any) -> Meta:
    return Meta(description=text, **bounds)


_Positive = Annotated[float, Meta(gt=0)]


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A group of settings."""


class Listen(_Section, frozen=True):
    """Where the sidecar listens."""

    socket: Annotated[str | None, _about("Path of the Unix socket; null for none. In `state_dir` unless absolute")] = (
        "tenantgate.sock"
    )
    socket_mode: Annotated[
        str, _about("Permissions of the Unix socket, in octal and in quotes", pattern="^0?[0-7]{3}$")
    ] = "0660"
    tcp: Annotated[
        str | None,
        _about("HOST:PORT to listen on besides; null for none. Without `tls` loopback only; port 0 picks one"),
    ] = None
    admin: Annotated[
        str | None,
        _about(
            "HOST:PORT of health and metrics over HTTP; null for none. Without `tls` loopback only; port 0 picks one"
        ),
    ] = None


class TlsSettings(_Section, frozen=True):
    """TLS, with certificates on both sides, for callers on other hosts."""

    cert_file: Annotated[
        str | None, _about("Certificate of the sidecar, and those up to its authority, in PEM; null for no TLS")
    ] = None
    key_file: Annotated[
        str | None, _about("Its private key, in PEM, which nobody else may read; a file of root's its group may")
    ] = None
    client_ca_file: Annotated[str | None, _about("Certificates, in PEM, of the authorities of clients")] = None
    allowed_clients: Annotated[
        tuple[str, ...],
        _about(
            "Who may connect, by a name in the certificate's SAN: DNS names, and SPIFFE ids, in whose path `*` is anything "
            "within a segment and `**` anything"
        ),
    ] = ()
    connection_seconds: Annotated[
        float, _about("How long a connection lives until its client must prove again who it is, seconds", ge=1)
    ] = 600.0


ClaimPath: TypeAlias = str | tuple[str | int, ...]
"""Where a claim is found: its name, or the names and positions on the way to one inside another."""


class Claims(_Section, frozen=True):
    """Where a token says who is asking. Null stands for what the preset says, an empty list for nowhere."""

    tenant: Annotated[ClaimPath | None, _about("The tenant: one text")] = None
    subject: Annotated[ClaimPath | None, _about("The user for whom the agent acts: one text")] = None
    principal: Annotated[
        tuple[ClaimPath, ...] | None, _about("The agent, where there is no `act`: the first of these that is there")
    ] = None
    roles: Annotated[tuple[ClaimPath, ...] | None, _about("Roles of the subject: those of all these together")] = None
    scopes: Annotated[
        tuple[ClaimPath, ...] | None,
        _about("Scopes, in a text with spaces or in a list: the first of these that is there"),
    ] = None
    properties: Annotated[
        dict[str, ClaimPath],
        _about("Properties of the subject by name, which conditions see as /subject/properties/NAME"),
    ] = {}


class Issuer(_Section, frozen=True):
    """One whose tokens are believed."""

    issuer: Annotated[str, _about("The `iss` claim, compared byte for byte", min_length=1)]
    audiences: Annotated[tuple[str, ...], _about("A token must be meant for one of these: its `aud`", min_length=1)]
    jwks: Annotated[
        str | None,
        _about(
            "Its public keys (RFC 7517): a file, or `https://...`; null for the `jwks_uri` that the issuer publishes"
        ),
    ] = None
    ca_file: Annotated[
        str | None,
        _about("Certificates, in PEM, that its `https://` address is checked against; null for the system's"),
    ] = None
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...],
        _about("Signature algorithms that are accepted", min_length=1),
    ] = ("RS256", "ES256")
    preset: Annotated[
        Literal["oauth", "cognito", "agentcore"],
        _about("Shape of its tokens: where `claims` are found unless said, and where the audience is"),
    ] = "oauth"
    claims: Annotated[Claims, _about("Where its tokens say who is asking")] = Claims()
    tenants: Annotated[
        tuple[str, ...] | None,
        _about("Tenants that it may speak for; null for all. Set it for an issuer that a tenant runs"),
    ] = None


class IdentitySettings(_Section, frozen=True):
    """How the sidecar learns who is asking."""

    mode: Annotated[
        Literal["verified", "asserted"],
        _about(
            "`verified` takes identities from tokens of `issuers`; `asserted` from requests, for callers that have "
            "verified them"
        ),
    ] = "verified"
    issuers: Annotated[tuple[Issuer, ...], _about("Whose tokens are believed; at least one with `verified`")] = ()
    tenant_headers: Annotated[
        tuple[Annotated[str, Meta(pattern="^[a-z0-9_.-]{1,128}(?<!-bin)$")], ...],
        _about("Metadata keys that name the tenant once more; a mismatch denies"),
    ] = ("x-tenant-id", "x-amzn-bedrock-agentcore-runtime-custom-tenantid")
    clock_skew_seconds: Annotated[float, _about("Difference of clocks that is tolerated, seconds", ge=0, le=600)] = 30.0
    max_token_bytes: Annotated[int, _about("Largest token, bytes", ge=256, le=16384)] = 8192
    max_lifetime_seconds: Annotated[
        _Positive, _about("Longest time from a token's issue, or from now where it has no `iat`, to its end, seconds")
    ] = 86400.0
    keys_refresh_seconds: Annotated[_Positive, _about("Time between looks at an issuer's keys, seconds")] = 300.0
    keys_lifetime_seconds: Annotated[
        _Positive, _about("How long keys are believed when the issuer cannot be reached, seconds")
    ] = 3600.0
    keys_timeout_seconds: Annotated[_Positive, _about("Longest wait for an issuer's keys, seconds")] = 2.0
    unknown_key_pause_seconds: Annotated[
        _Positive, _about("Shortest time between looks that tokens with unknown keys cause, seconds")
    ] = 10.0
    token_cache_entries: Annotated[int, _about("Verified tokens that are remembered; 0 for none", ge=0)] = 10_000


class CredentialSettings(_Section, frozen=True):
    """AWS credentials in exchange for a token."""

    role_arn: Annotated[
        Annotated[str, Meta(pattern="^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$")] | None,
        _about("Role that is assumed for every tenant; null for no exchange"),
    ] = None
    method: Annotated[
        Literal["assume_role", "web_identity"],
        _about(
            "`assume_role` with the sidecar's own credentials; `web_identity` with the token, which must carry AWS's tags claim"
        ),
    ] = "assume_role"
    region: Annotated[str | None, _about("Region of STS and of the resources; null for that of the environment")] = None
    endpoint_url: Annotated[str | None, _about("Another STS, for tests; null for AWS's")] = None
    duration_seconds: Annotated[
        int,
        _about(
            "How long credentials are good for at the most, seconds; over 3600 a role cannot be chained",
            ge=60,
            le=43200,
        ),
    ] = 3600
    renew_before_seconds: Annotated[
        int, _about("Credentials with less time left are not given out again, seconds", ge=0)
    ] = 300
    cache_entries: Annotated[int, _about("Credentials that are remembered; 0 for none", ge=0)] = 10_000
    timeout_seconds: Annotated[_Positive, _about("Longest wait for STS, seconds")] = 5.0
    tenant_tag: Annotated[str, _about("Session tag that holds the tenant", pattern="^[A-Za-z0-9_.:/=+@-]{1,128}$")] = (
        "TenantID"
    )
    templates: Annotated[
        str | None, _about("YAML file with IAM statements by resource type and action, in place of the built-in ones")
    ] = None


class AgentCoreSettings(_Section, frozen=True):
    """The interceptor of an AgentCore Gateway."""

    address: Annotated[
        str | None, _about("Sidecar on this host to ask: `unix:PATH` or HOST:PORT; null to run one in the function")
    ] = None
    tenant_header: Annotated[
        str | None,
        _about("Which of `identity.tenant_headers` tells targets the tenant that the token proves; null for the first"),
    ] = None
    tool_template: Annotated[
        str, _about("Id of the tool that a gateway calls `TARGET___TOOL`", pattern=r"\{tool\}")
    ] = "agent:tool:{tool}"
    agent_template: Annotated[
        str, _about("Id of the agent behind the target of `/TARGET/invocations`", pattern=r"\{target\}")
    ] = "agent:runtime:{target}"
    methods: Annotated[
        dict[str, Literal["pass", "deny"]], _about("MCP methods that pass without a question, or are denied, by name")
    ] = {}
    timeout_seconds: Annotated[_Positive, _about("Longest wait for the sidecar's answer, seconds")] = 2.0


class ExtAuthzRoute(_Section, frozen=True):
    """What the requests of a route ask for."""

    path: Annotated[
        str | None,
        _about("Paths that it is about, such as `/tools/{tool}`: each `{NAME}` is one segment; null for all"),
    ] = None
    mcp: Annotated[bool, _about("Whether it leads to an MCP server: its messages say what they ask for")] = False
    resource_type: Annotated[str, _about("Type of the resource")] = "TOOL"
    resource_id: Annotated[
        str | None, _about("Id of the resource, with `{NAME}` of the path; of an MCP server, that of its tool `{tool}`")
    ] = None
    action: Annotated[str, _about("What is done to it")] = "invoke"
    body: Annotated[bool, _about("Whether the body is looked at, for the arguments; it must be a JSON object then")] = (
        True
    )


class ExtAuthzSettings(_Section, frozen=True):
    """Envoy's external authorization, on the listener of calls."""

    enabled: Annotated[bool, _about("Answer Envoy's calls; needs the extra `ext-authz`")] = False
    routes: Annotated[
        tuple[ExtAuthzRoute, ...],
        _about("What requests ask for whose route says nothing of it in Envoy: the first whose path fits"),
    ] = ()
    identity_headers: Annotated[
        dict[Literal["tenant", "principal", "subject", "scopes", "roles"], str],
        _about("Headers that say who asks, for `identity.mode: asserted`, where the route says nothing of it in Envoy"),
    ] = {}
    methods: Annotated[
        dict[str, Literal["pass", "deny"]],
        _about("MCP methods, and GET and DELETE, that pass without a question, or are denied, by name"),
    ] = {}
    mcp_status: Annotated[
        Literal[200, 403],
        _about(
            "HTTP status of denials of MCP messages; with 200 the denial of a tool is a result that a model can read"
        ),
    ] = 403
    accepts: Annotated[tuple[str, ...], _about("Obligations that what stands behind Envoy carries out, by type")] = ()
    tenant_header: Annotated[
        str | None,
        _about("Which of `identity.tenant_headers` tells the tenant of the caller upstream; null for the first"),
    ] = None


class AuthzenSettings(_Section, frozen=True):
    """The AuthZEN Authorization API 1.0, over HTTP."""

    listen: Annotated[
        str | None, _about("HOST:PORT to listen on; null for none. Without `tls` loopback only; port 0 picks one")
    ] = None
    principal: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        _about("Principal of all calls with `identity.mode: asserted`, where they bring no token that says it"),
    ] = None
    user_types: Annotated[
        tuple[str, ...],
        _about("Types of subject that are users of the registry; ids of others begin there with TYPE and a colon"),
    ] = ("user", "identity")
    base_url: Annotated[
        Annotated[str, Meta(pattern="^https?://[^/?#]+$")] | None,
        _about("URL, without a path, under which callers find it, for its metadata; null for where it listens"),
    ] = None
    page_size: Annotated[int, _about("Most results on a page of a search, entries", ge=1, le=1000)] = 100


class Delegation(_Section, frozen=True):
    """How the chain of actors between subject and principal is checked."""

    check: Annotated[
        Literal["chain", "current"],
        _about("`chain` checks every actor; `current` the principal alone, as RFC 8693 section 4.1 has it"),
    ] = "chain"
    max_depth: Annotated[int, _about("Most earlier actors in a chain", ge=0, le=256)] = 8


class Scopes(_Section, frozen=True):
    """Which scopes grant which access to catalogued resources."""

    read: Annotated[tuple[str, ...], _about("Scopes that grant READ access")] = ("tools:read",)
    write: Annotated[tuple[str, ...], _about("Scopes that grant WRITE access, and READ with it")] = ("tools:write",)


class Opa(_Section, frozen=True):
    """The policy engine."""

    bundle: Annotated[
        str | None, _about("Bundle file that the embedded OPA loads once; null with `bundles.source` or `address`")
    ] = None
    address: Annotated[
        str | None, _about("A separate OPA to ask: `unix:PATH` or `http://HOST:PORT`; null to embed one")
    ] = None
    binary: Annotated[str | None, _about("OPA to run; null for the one in `.tools`, else on PATH")] = None
    timeout_seconds: Annotated[float, _about("Longest wait for an answer, seconds", gt=0)] = 1.0
    start_timeout_seconds: Annotated[float, _about("Longest wait for OPA at start, seconds", gt=0)] = 60.0
    connections: Annotated[int, _about("Connections kept open to OPA", ge=1)] = 32
    batch_items: Annotated[
        int,
        _about(
            "Most questions of different calls that go to OPA as one, when it is busy as they come; 1 for none", ge=1
        ),
    ] = 64
    max_answer_bytes: Annotated[int, _about("Largest answer taken from OPA, bytes", ge=1024)] = 16 * 1024 * 1024


class Cache(_Section, frozen=True):
    """What is remembered of OPA's decisions."""

    bytes: Annotated[int, _about("Most memory for decisions that are remembered, bytes; 0 for none", ge=0)] = (
        64 * 1024 * 1024
    )
    revision_check_seconds: Annotated[
        float,
        _about(
            "How long, at the most, a decision is given after OPA has another revision, seconds; OPA is asked for its revision "
            "twice as often",
            ge=0.01,
            le=60,
        ),
    ] = 0.2


class Bundles(_Section, frozen=True):
    """Where bundles come from, and whose are accepted."""

    source: Annotated[
        str | None,
        _about(
            "Where `base.tar.gz` and `overlay.tar.gz` are published: a directory, `http(s)://...` or `s3://BUCKET/PREFIX`; "
            "null with `opa.bundle` or `opa.address`"
        ),
    ] = None
    keys: Annotated[
        tuple[str, ...],
        _about("Public keys, files in PEM, that bundles may be signed with; the id of each is its name without ending"),
    ] = ()
    accept_unsigned: Annotated[bool, _about("Accept bundles that nobody has signed; only without `keys`")] = False
    poll_seconds: Annotated[
        _Positive | None, _about("Time between looks at the source, seconds; null for 0.1 with a directory, else 1")
    ] = None
    long_poll_seconds: Annotated[
        int, _about("How long a server that can may hold a request until there is something new, seconds", ge=1, le=600)
    ] = 30
    token_file: Annotated[str | None, _about("File with the bearer token for an `http(s)://` source")] = None
    ca_file: Annotated[
        str | None, _about("Certificates, in PEM, that an `https://` source is checked against; null for the system's")
    ] = None


class Freshness(_Section, frozen=True):
    """How old the registry may be."""

    max_staleness_seconds: Annotated[
        _Positive | None,
        _about("Age of the registry from which on everything is POLICY_STALE, seconds; null for no bound"),
    ] = None


class LimitSettings(_Section, frozen=True):
    """What a caller may send, and how much at a time."""

    message_bytes: Annotated[int, _about("Largest request message, bytes", ge=1024)] = 4 * 1024 * 1024
    json_bytes: Annotated[int, _about("Largest arguments, context or properties, bytes on the wire", ge=1)] = 65536
    json_depth: Annotated[int, _about("Deepest nesting of arguments, context or properties, levels", ge=1, le=32)] = 32
    list_entries: Annotated[int, _about("Most roles, scopes, actors or obligation types, entries", ge=1)] = 256
    batch_items: Annotated[int, _about("Most items of a batch or tools of a list, entries", ge=1)] = 1000
    in_flight: Annotated[int, _about("Most calls worked on at a time; more are refused at once", ge=1)] = 256
    threads: Annotated[int, _about("Threads that work on calls", ge=1, le=256)] = 32
    waiting: Annotated[
        int, _about("Most calls that wait for the registry to reach their `min_as_of`; each holds a thread", ge=0)
    ] = 8
    watchers: Annotated[int, _about("Most WatchStatus calls at a time; each holds a thread besides", ge=1)] = 8
    default_deadline_seconds: Annotated[float, _about("Deadline of calls that come without one, seconds", gt=0)] = 2.0


class Lifecycle(_Section, frozen=True):
    """Start, health and stop."""

    probe_interval_seconds: Annotated[
        float, _about("Time between evaluations that readiness rests on, seconds", gt=0)
    ] = 1.0
    drain_seconds: Annotated[float, _about("Longest wait for calls in flight when stopping, seconds", ge=0)] = 5.0


class Log(_Section, frozen=True):
    """What is written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], _about("Least severe lines that are written")] = (
        "info"
    )
    format: Annotated[Literal["json", "text"], _about("`json` for machines, `text` for people")] = "json"
    access: Annotated[bool, _about("One line for each call")] = True
    opa_decisions: Annotated[bool, _about("One line for each decision of the embedded OPA, content masked")] = False


class ArgumentRule(_Section, frozen=True):
    """What the decision log says of arguments."""

    tools: Annotated[
        str,
        _about("Ids of the resources that it is about; `*` is anything within a segment, `**` anything", min_length=1),
    ] = "**"
    path: Annotated[
        str,
        _about("Values that it covers, with all in them: a JSON Pointer, in which `*` is any one name; empty for all"),
    ] = ""
    how: Annotated[
        Literal["keep", "mask", "digest", "drop"],
        _about("As they are, as `***`, as an HMAC that is the same for the same value, or not at all"),
    ] = "mask"


class AuditFile(_Section, frozen=True):
    """A file of JSON lines, which is rotated."""

    path: Annotated[str | None, _about("The file; null for none. In `state_dir` unless absolute")] = "decisions.jsonl"
    max_bytes: Annotated[int, _about("Size at which it is rotated, bytes", ge=4096)] = 16 * 1024 * 1024
    keep: Annotated[int, _about("Most files that are kept besides it: `PATH.1` and so on", ge=0, le=1000)] = 3


class AuditHttp(_Section, frozen=True):
    """A collector that takes the decision logs of OPA."""

    url: Annotated[
        Annotated[str, Meta(pattern="^https?://[^/?#]+(/[^#]*)?$")] | None,
        _about("Where records are posted to, such as `https://collector.example/logs`; null for nowhere"),
    ] = None
    token_file: Annotated[str | None, _about("File with the bearer token; read for each post")] = None
    ca_file: Annotated[
        str | None, _about("Certificates, in PEM, that an `https://` address is checked against; null for the system's")
    ] = None
    labels: Annotated[dict[str, str], _about("Labels of all events, besides `app`, `id` and `version`")] = {}
    batch_bytes: Annotated[int, _about("Most that is posted at once, bytes before compression", ge=1024)] = 1024 * 1024
    pause_seconds: Annotated[_Positive, _about("How long records are gathered, seconds")] = 1.0
    timeout_seconds: Annotated[_Positive, _about("Longest wait for the collector, seconds")] = 10.0


class AuditS3(_Section, frozen=True):
    """A bucket that gets an object for each batch of records."""

    address: Annotated[
        Annotated[str, Meta(pattern="^s3://[^/]+(/.*)?$")] | None,
        _about("Where objects are put: `s3://BUCKET/PREFIX`; null for nowhere"),
    ] = None
    batch_bytes: Annotated[int, _about("Most that is put at once, bytes before compression", ge=1024)] = 8 * 1024 * 1024
    pause_seconds: Annotated[_Positive, _about("How long records are gathered, seconds")] = 60.0
    timeout_seconds: Annotated[_Positive, _about("Longest wait for S3, seconds")] = 10.0


class Audit(_Section, frozen=True):
    """The decision log: one record for each decision, and for each error in place of one."""

    stdout: Annotated[bool, _about("Write records to standard output")] = False
    arguments: Annotated[
        tuple[ArgumentRule, ...],
        _about("What is said of arguments: the first rule that covers a value counts; what none covers is left out"),
    ] = ()
    digest_key_file: Annotated[
        str | None, _about("File with the key of `digest`, at least 16 random bytes; needed where a rule digests")
    ] = None
    on_full: Annotated[
        Literal["drop", "block"],
        _about(
            "When a sink has too much waiting: `drop` records, and count them; or `block` calls until their deadline, and give "
            "no decision without its record"
        ),
    ] = "drop"
    queue_records: Annotated[
        int, _about("Most records that wait for each sink; no fewer than `limits.batch_items`", ge=1)
    ] = 20_000
    queue_bytes: Annotated[int, _about("Most records that wait for each sink, bytes", ge=65536)] = 32 * 1024 * 1024
    file: AuditFile = AuditFile()
    http: AuditHttp = AuditHttp()
    s3: AuditS3 = AuditS3()


class TracingSettings(_Section, frozen=True):
    """Traces by OpenTelemetry, sent as OTLP over HTTP."""

    enabled: Annotated[
        bool,
        _about(
            "Trace calls; needs the extra `otel`. OpenTelemetry's own variables say where to (`OTEL_EXPORTER_OTLP_ENDPOINT`), "
            "which (`OTEL_TRACES_SAMPLER`), and in whose name (`OTEL_SERVICE_NAME`)"
        ),
    ] = False


class Settings(_Section, frozen=True):
    """All settings."""

    state_dir: Annotated[
        str,
        _about("Directory for sockets, OPA's configuration and bundles taken in; made if missing, for the owner only"),
    ] = ".tenantgate"
    workers: Annotated[
        int,
        _about(
            "Processes that answer calls on `listen.tcp` and `authzen.listen`; 1 for the one that starts", ge=1, le=256
        ),
    ] = 1
    listen: Listen = Listen()
    tls: TlsSettings = TlsSettings()
    identity: IdentitySettings = IdentitySettings()
    delegation: Delegation = Delegation()
    scopes: Scopes = Scopes()
    opa: Opa = Opa()
    cache: Cache = Cache()
    bundles: Bundles = Bundles()
    freshness: Freshness = Freshness()
    credentials: CredentialSettings = CredentialSettings()
    agentcore: AgentCoreSettings = AgentCoreSettings()
    ext_authz: ExtAuthzSettings = ExtAuthzSettings()
    authzen: AuthzenSettings = AuthzenSettings()
    limits: LimitSettings = LimitSettings()
    lifecycle: Lifecycle = Lifecycle()
    log: Log = Log()
    audit: Audit = Audit()
    tracing: TracingSettings = TracingSettings()

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket to listen on."""
        return None if self.listen.socket is None else Path(self.state_dir) / self.listen.socket

    @property
    def decision_log_path(self) -> Path | None:
        """The file of the decision log."""
        return None if self.audit.file.path is None else Path(self.state_dir) / self.audit.file.path

    @property
    def policy(self) -> PolicySettings:
        """What the Rego needs to know of the settings."""
        granting = {"READ": (*self.scopes.read, *self.scopes.write), "WRITE": self.scopes.write}
        return PolicySettings(DelegationSettings(self.delegation.check, self.delegation.max_depth), granting)

    @property
    def request_limits(self) -> Limits:
        """What translation needs to know of the settings."""
        limits = self.limits
        return Limits(limits.batch_items, limits.json_depth, limits.json_bytes, limits.list_entries)


class Setting(Struct, frozen=True):
    """One setting, for documentation: its dotted name, meaning, default and value in force."""

    name: str
    about: str
    default: Any
    value: Any


def load(file: Path | None, environment: Mapping[str, str] | None = None, flags: Sequence[str] = ()) -> Settings:
    """Read the settings from a YAML file, the environment and flags of the form ``NAME=VALUE``.

    Raises ``SettingsError``, naming the setting and where it came from.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read_file(file)
        _convert(tree, str(file))
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and not _OF_KUBERNETES.match(name):
            dotted = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _put(tree, dotted, text, f"environment variable {name}")
    for flag in flags:
        dotted, separator, text = flag.partition("=")
        if not separator:
            msg = f"--set {flag}: write NAME=VALUE"
            raise SettingsError(msg)
        _put(tree, dotted, text, f"--set {dotted}")
    settings = _convert(tree, "settings")
    _check(settings)
    return settings


def describe(settings: Settings) -> Iterator[Setting]:
    """Yield every setting, in the order of the documentation."""
    yield from _describe("", Settings, Settings(), settings)


def describe_issuer() -> Iterator[Setting]:
    """Yield what an entry of ``identity.issuers`` may say. ``NODEFAULT`` is the default of what it must say."""
    blank = Issuer(issuer=msgspec.NODEFAULT, audiences=msgspec.NODEFAULT)  # type: ignore[arg-type]  # not checked, on purpose
    yield from _describe("", Issuer, blank, blank)


def sections() -> dict[str, str]:
    """Give what each section is about, by its dotted name."""
    return dict(_sections("", Settings))


def _sections(prefix: str, kind: type[Struct]) -> Iterator[tuple[str, str]]:
    for entry in msgspec.structs.fields(kind):
        if _is_section(entry.type):
            yield prefix + entry.name, (entry.type.__doc__ or "").strip()
            yield from _sections(f"{prefix}{entry.name}.", entry.type)


def _describe(prefix: str, kind: type[Struct], default: Any, value: Any) -> Iterator[Setting]:
    hints = get_type_hints(kind, include_extras=True)
    for entry in msgspec.structs.fields(kind):
        of_default, of_value = getattr(default, entry.name), getattr(value, entry.name)
        if _is_section(entry.type):
            yield from _describe(f"{prefix}{entry.name}.", entry.type, of_default, of_value)
        else:
            about = next(m.description for m in get_args(hints[entry.name]) if isinstance(m, Meta) and m.description)
            yield Setting(prefix + entry.name, about, of_default, of_value)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, _Section)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as fault:
        msg = f"{file}: cannot be read: {fault}"
        raise SettingsError(msg) from fault
    except yaml.YAMLError as fault:
        msg = f"{file}: not YAML: {fault}"
        raise SettingsError(msg) from fault
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        msg = f"{file}: must hold a mapping of settings"
        raise SettingsError(msg)
    return tree


def _put(tree: dict[str, Any], dotted: str, text: str, source: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        msg = f"{source}: {text!r} is not YAML: {fault}"
        raise SettingsError(msg) from fault
    *path, name = dotted.split(".")
    branch = tree
    for step in path:
        branch = branch.setdefault(step, {})
        if not isinstance(branch, dict):
            msg = f"{source}: {step} is not a section"
            raise SettingsError(msg)
    branch[name] = value
    _convert(tree, source)


def _convert(tree: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as fault:
        text, _, path = str(fault).partition(" - at `")
        name = path.removesuffix("`").removeprefix("$").removeprefix(".")
        text = text.replace("Object contains unknown field", "there is no setting")
        msg = f"{source}: {f'{name}: ' if name else ''}{text}; `tenantgate config` lists the settings"
        raise SettingsError(msg) from fault


def _check(settings: Settings) -> None:
    """Refuse what is well-typed and yet cannot be meant."""
    _check_listen(settings.listen, settings.authzen, secure=settings.tls.cert_file is not None)
    _check_tls(settings.tls)
    _check_workers(settings)
    _check_identity(settings.identity, settings.credentials)
    _check_agentcore(settings.agentcore, settings.identity)
    _check_ext_authz(settings.ext_authz, settings.identity)
    _check_authzen(settings.authzen, settings.identity)
    _check_bundles(settings.opa, settings.bundles)
    _check_audit(settings)


def _check_listen(listen: Listen, authzen: AuthzenSettings, *, secure: bool) -> None:
    if listen.socket is None and listen.tcp is None:
        msg = "listen: socket and tcp are both null, so nobody could call"
        raise SettingsError(msg)
    if listen.socket is not None and int(listen.socket_mode, 8) & 0o007:
        msg = (
            f"listen.socket_mode: {listen.socket_mode} is for everybody on this host; use 0660, and put who may call into the "
            "group"
        )
        raise SettingsError(msg)
    for setting, address, fault in (
        ("listen.tcp", listen.tcp, "calls are not encrypted; listen on 127.0.0.1 or on the Unix socket"),
        ("listen.admin", listen.admin, "nobody is asked who they are; listen on 127.0.0.1"),
        (
            "authzen.listen",
            authzen.listen,
            "calls are not encrypted; listen on 127.0.0.1, behind a proxy that does TLS",
        ),
    ):
        if address is not None and not is_loopback(split_address(address, setting)[0]) and not secure:
            msg = f"{setting}: {address} can be reached from other hosts, and {fault}, or set tls.cert_file"
            raise SettingsError(msg)


_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|$))[A-Za-z0-9._*-]+)+")
_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")


def _check_tls(tls: TlsSettings) -> None:
    given = {
        "cert_file": tls.cert_file,
        "key_file": tls.key_file,
        "client_ca_file": tls.client_ca_file,
        "allowed_clients": tls.allowed_clients,
    }
    missing = [name for name, value in given.items() if not value]
    if missing and len(missing) < len(given):
        msg = f"tls.{missing[0]}: is missing; set {', '.join(given)} together, as clients are always asked who they are"
        raise SettingsError(msg)
    for entry in tls.allowed_clients:
        if not (_SPIFFE_ID if "/" in entry else _DNS_NAME).fullmatch(entry):
            msg = (
                f"tls.allowed_clients: {entry!r} is neither a SPIFFE id with a path, such as spiffe://example.org/agents/*, "
                "nor a DNS name, in lower case and without *"
            )
            raise SettingsError(msg)


def _check_workers(settings: Settings) -> None:
    if settings.workers > 1 and settings.listen.tcp is None:
        msg = f"workers: {settings.workers} processes cannot share a Unix socket; set listen.tcp, to 127.0.0.1:PORT for example"
        raise SettingsError(msg)


def _check_identity(identity: IdentitySettings, credentials: CredentialSettings) -> None:
    names = [issuer.issuer for issuer in identity.issuers]
    for name in names:
        if names.count(name) > 1:
            msg = f"identity.issuers: {name!r} is there twice"
            raise SettingsError(msg)
    if identity.mode == "asserted":
        if identity.issuers:
            msg = "identity.issuers: tokens are not looked at with identity.mode: asserted; leave one of the two out"
            raise SettingsError(msg)
        if credentials.role_arn is not None:
            msg = (
                "credentials.role_arn: credentials are given for a token alone, and with identity.mode: asserted there is none; "
                "use identity.mode: verified"
            )
            raise SettingsError(msg)
    if identity.keys_lifetime_seconds < identity.keys_refresh_seconds:
        msg = "identity.keys_lifetime_seconds: is shorter than keys_refresh_seconds, so keys would end before they are renewed"
        raise SettingsError(msg)


def _check_agentcore(agentcore: AgentCoreSettings, identity: IdentitySettings) -> None:
    if agentcore.tenant_header not in {None, *identity.tenant_headers}:
        msg = f"agentcore.tenant_header: {agentcore.tenant_header!r} is none of identity.tenant_headers; add it there"
        raise SettingsError(msg)
    address = agentcore.address
    if address is not None and not address.startswith("unix:"):
        host, _ = split_address(address, "agentcore.address")
        if not is_loopback(host):
            msg = (
                f"agentcore.address: {address} is on another host, and calls, which carry tokens, are not encrypted; name a "
                "sidecar on this one"
            )
            raise SettingsError(msg)


def _check_ext_authz(ext_authz: ExtAuthzSettings, identity: IdentitySettings) -> None:
    if ext_authz.tenant_header not in {None, *identity.tenant_headers}:
        msg = f"ext_authz.tenant_header: {ext_authz.tenant_header!r} is none of identity.tenant_headers; add it there"
        raise SettingsError(msg)
    for number, route in enumerate(ext_authz.routes):
        fault = "path: is missing" if route.path is None else route_fault(route)
        if fault is not None:
            msg = f"ext_authz.routes[{number}].{fault}"
            raise SettingsError(msg)


def _check_authzen(authzen: AuthzenSettings, identity: IdentitySettings) -> None:
    if identity.mode == "verified" and authzen.principal is not None:
        msg = "authzen.principal: with identity.mode: verified the token says who calls; leave it out"
        raise SettingsError(msg)
    if identity.mode == "asserted" and authzen.listen is not None and authzen.principal is None:
        msg = "authzen.principal: name the principal of calls, as with identity.mode: asserted they bring no token that says it"
        raise SettingsError(msg)


_PATH = re.compile(r"(/([^/{}?#%]*|\{[a-z][a-z0-9_]*\}))+")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def route_fault(route: ExtAuthzRoute) -> str | None:
    """Say which field of a route is wrong, and how, if any is."""
    names = _PLACE.findall(route.path or "")
    given = {*names, "tool"} if route.mcp else {*names}
    wanted = {*_PLACE.findall(route.resource_id or "")}
    faults = {
        "path: must be segments after slashes, each a text or a {NAME}": not _PATH.fullmatch(route.path or "/"),
        "path: has a {NAME} twice": len({*names}) < len(names),
        "path: must not have {tool}, which an MCP server's messages say": route.mcp and "tool" in names,
        "mcp: messages say what they ask for; leave resource_type, action and body out": route.mcp
        and (route.resource_type, route.action, route.body) != ("TOOL", "invoke", True),
        "resource_id: is missing": not route.mcp and not route.resource_id,
        "resource_id: must have {tool}, or the MCP server's tools cannot be told apart": route.mcp
        and route.resource_id is not None
        and "tool" not in wanted,
        "resource_id: has a {NAME} that the path does not have": bool(wanted - given),
    }
    return next((fault for fault, applies in faults.items() if applies), None)


def _check_bundles(opa: Opa, bundles: Bundles) -> None:
    if opa.address is not None and (opa.bundle is not None or bundles.source is not None):
        given = "opa.bundle" if opa.bundle is not None else "bundles.source"
        msg = f"opa: with an address, OPA is configured with its bundle elsewhere; leave {given} null"
        raise SettingsError(msg)
    if bundles.source is None:
        return
    if opa.bundle is not None:
        msg = "bundles.source and opa.bundle are both set; leave opa.bundle null to follow the source"
        raise SettingsError(msg)
    if bundles.keys and bundles.accept_unsigned:
        msg = "bundles: with keys, a bundle that is not signed is refused; leave bundles.accept_unsigned false"
        raise SettingsError(msg)
    if not bundles.keys and not bundles.accept_unsigned:
        msg = (
            "bundles.keys: name the public keys that bundles from bundles.source are signed with (`tenantgate bundle keygen` "
            "makes a pair), or set bundles.accept_unsigned: true"
        )
        raise SettingsError(msg)
    scheme, separator, rest = bundles.source.partition("://")
    if separator and (scheme not in {"http", "https", "s3"} or not rest.strip("/")):
        msg = f"bundles.source: {bundles.source!r} is neither a directory nor http://..., https://... or s3://BUCKET/PREFIX"
        raise SettingsError(msg)


def _check_audit(settings: Settings) -> None:
    audit, limits = settings.audit, settings.limits
    for number, rule in enumerate(audit.arguments):
        if fault := argument_rule_fault(rule):
            msg = f"audit.arguments[{number}].{fault}"
            raise SettingsError(msg)
        if rule.how == "digest" and audit.digest_key_file is None:
            msg = f"audit.arguments[{number}].how: digest needs audit.digest_key_file, or who guesses a value could check it"
            raise SettingsError(msg)
    if audit.queue_records < limits.batch_items:
        msg = (
            f"audit.queue_records: {audit.queue_records} is less than limits.batch_items, {limits.batch_items}, so that there "
            "would never be room for the largest batch"
        )
        raise SettingsError(msg)
    url = audit.http.url or ""
    if url.startswith("http://") and not is_loopback(_host(url)):
        msg = f"audit.http.url: {url} is on another host, and records, and the token, are not encrypted; use https://"
        raise SettingsError(msg)


def argument_rule_fault(rule: ArgumentRule) -> str | None:
    """Say which field of a rule is wrong, and how, if any is."""
    if "***" in rule.tools:
        return "tools: three or more `*` in a row mean nothing; write `*` or `**`"
    if rule.path and not rule.path.startswith("/"):
        return f"path: {rule.path!r} is no JSON Pointer; begin it with a slash"
    if re.search(r"~(?![01])", rule.path):
        return f"path: {rule.path!r} is no JSON Pointer; write ~0 for ~, and ~1 for / within a name"
    return None


def _host(url: str) -> str:
    """Give the host of an http(s) URL; empty if it has none."""
    return urlsplit(url).hostname or ""


def split_address(address: str, setting: str = "listen.tcp") -> tuple[str, int]:
    """Split HOST:PORT. Raises ``SettingsError``, naming the setting."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the last port
        msg = f"{setting}: {address!r} is not HOST:PORT"
        raise SettingsError(msg)
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this host can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
