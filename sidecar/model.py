"""The words of the design as frozen values: what is asked, and what is answered.

The shapes are those of OPA's input and output (``policies/``), so that nothing is renamed on the way.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

Json: TypeAlias = Any
"""A JSON value; objects have string keys."""

Microseconds: TypeAlias = Annotated[int, Meta(ge=0, le=253_402_300_799_999_999)]
"""A moment in microseconds since 1970, up to the end of the year 9999."""

Effect = Literal["ALLOW", "DENY"]

Code = Literal[
    "TENANT_MISMATCH",
    "TENANT_UNKNOWN",
    "TENANT_SUSPENDED",
    "IMPERSONATION",
    "DELEGATION_INVALID",
    "SUBJECT_NOT_MEMBER",
    "RESOURCE_SUSPENDED",
    "DENIED_BY_RULE",
    "SCOPE_INSUFFICIENT",
    "CONDITION_NOT_MET",
    "NO_MATCHING_RULE",
    "OBLIGATION_UNSUPPORTED",
    "ALLOWED",
    "POLICY_STALE",
]
"""Why a decision is what it is, in the order of the decision table. POLICY_STALE is the sidecar's own."""

CODES: tuple[Code, ...] = get_args(Code)

Part = Literal["arguments", "context", "subject.properties", "resource.properties", "action.properties", "time"]
"""A part of a request that a decision may or may not depend on. Identity, resource and action name always count."""


class Value(Struct, frozen=True, omit_defaults=True):
    """The base of what is asked: immutable, equal by content."""


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """The base of what is answered: immutable, and read strictly."""


class Tenant(Value, frozen=True):
    """The customer whose data is isolated; ``named`` are the tenants that request fields and headers claim it to be."""

    id: str
    named: tuple[str, ...] = ()


class Principal(Value, frozen=True, omit_defaults=False):
    """The agent service that makes the call; an empty id where the caller does not say."""

    id: str


class Subject(Value, frozen=True, omit_defaults=False):
    """The user for whom the agent acts; an empty id where there is none."""

    id: str = ""
    roles: tuple[str, ...] = ()
    properties: dict[str, Json] = field(default_factory=dict)


class Actor(Value, frozen=True, omit_defaults=False):
    """One hop of a delegation. ``scopes`` is unset where the hop does not declare any."""

    id: str
    scopes: tuple[str, ...] | UnsetType = UNSET


class Identity(Value, frozen=True, omit_defaults=False):
    """Who is asking: ``principal`` acts for ``subject`` of ``tenant``, through ``delegation`` (outermost first).

    ``may_act`` names the agents that the subject lets act for it (RFC 8693 section 4.4); unset where nothing says so.
    """

    tenant: Tenant
    principal: Principal
    subject: Subject = Subject()
    delegation: tuple[Actor, ...] = ()
    scopes: tuple[str, ...] = ()
    may_act: tuple[str, ...] | UnsetType = UNSET


class Resource(Value, frozen=True, omit_defaults=False):
    """What is acted on."""

    type: str
    id: str
    properties: dict[str, Json] = field(default_factory=dict)


class Action(Value, frozen=True, omit_defaults=False):
    """What is done to it."""

    name: str = "invoke"
    properties: dict[str, Json] = field(default_factory=dict)


class Item(Value, frozen=True, omit_defaults=False):
    """One thing that is asked about. ``arguments`` is unset where they are not known yet (FilterTools)."""

    resource: Resource
    action: Action = Action()
    context: dict[str, Json] = field(default_factory=dict)
    arguments: dict[str, Json] | UnsetType = field(default_factory=dict)


class Question(Value, frozen=True):
    """What all kinds of request have in common: who asks, and on which terms the answer is wanted.

    ``accepts`` are the types of obligation that the caller can carry out; ``min_as_of`` (microseconds since 1970) is the
    oldest registry that it takes an answer from.
    """

    identity: Identity
    items: tuple[Item, ...]
    accepts: tuple[str, ...] = ()
    explain: bool = False
    min_as_of: Microseconds = 0


class Search(Value, frozen=True, omit_defaults=False):
    """Which part of what a search could find is looked at: ``most`` candidates, in the order of their ids, behind ``after``.

    ``prefix`` is what ids of subjects begin with, and ``properties`` are what the caller says of every one of them.
    """

    after: str = ""
    most: int = 100
    prefix: str = ""
    properties: dict[str, Json] = field(default_factory=dict)


class Finding(Answer, frozen=True):
    """A row of the decision table that applies."""

    code: Code
    reason: str
    policy_id: str = ""
    rule_id: str = ""


class ConditionOutcome(Answer, frozen=True):
    """One condition of a rule: what it expected, what it found, and what came of it."""

    path: str
    op: str
    outcome: Literal["HOLDS", "FAILS", "UNEVALUABLE", "UNDECIDED"]
    expected: Json | UnsetType = UNSET
    expected_from: str = ""
    actual: Json | UnsetType = UNSET


class RuleOutcome(Answer, frozen=True):
    """One rule that concerns the resource, and what came of it."""

    policy_id: str
    rule_id: str
    effect: Effect
    verdict: Literal["NARROWED_OUT", "APPLIES", "CONDITIONS_FAIL", "UNDECIDED"]
    narrowed_by: tuple[str, ...]
    conditions: tuple[ConditionOutcome, ...]


class WeakestHop(Answer, frozen=True):
    """The actor of a chain that narrows the delegated scopes most. ``hop`` is its place: 0 for the principal."""

    id: str
    hop: Annotated[int, Meta(ge=0)]
    lacks: tuple[str, ...]


class Explanation(Answer, frozen=True):
    """Everything that applied, not only what decided.

    ``principal`` and ``subject`` are ids, empty where there is none. ``weakest_hop`` is None where no actor lacks a scope.
    """

    codes: tuple[Finding, ...]
    rules: tuple[RuleOutcome, ...]
    principal: str
    subject: str
    roles: tuple[str, ...]
    effective_scopes: tuple[str, ...]
    weakest_hop: WeakestHop | None = None


def _check_obligations(obligations: tuple[dict[str, Json], ...]) -> None:
    for obligation in obligations:
        if not isinstance(obligation.get("type"), str):
            msg = "an obligation has no type"
            raise ValueError(msg)  # noqa: TRY004 - msgspec reports a ValueError as a malformed message


class Decision(Answer, frozen=True):
    """The answer to one question.

    ``as_of`` and ``valid_until`` are microseconds since 1970; ``valid_until`` is the next moment at which the passing of time
    alone may change the decision. ``max_staleness_seconds`` is the bound that the tenant itself sets.
    """

    effect: Effect
    code: Code
    reason: str
    revision: str
    as_of: Microseconds
    depends_on: tuple[Part, ...]
    policy_id: str = ""
    rule_id: str = ""
    obligations: tuple[dict[str, Json], ...] = ()
    valid_until: Microseconds | None = None
    max_staleness_seconds: Annotated[float, Meta(gt=0)] | None = None
    explanation: Explanation | None = None

    def __post_init__(self) -> None:
        """Refuse an effect that its code contradicts: an ALLOW must be meant."""
        _check_obligations(self.obligations)
        if (self.effect == "ALLOW") != (self.code == "ALLOWED"):
            msg = f"effect {self.effect} contradicts code {self.code}"
            raise ValueError(msg)


class Residual(Answer, frozen=True):
    """A rule whose conditions on arguments decide."""

    policy_id: str
    rule_id: str
    effect: Effect
    conditions: tuple[ConditionOutcome, ...]


class ToolAnswer(Answer, frozen=True):
    """Whether a tool may be called at all; ``residual`` says what the arguments must be where that decides."""

    state: Literal["ALLOWED", "DENIED", "CONDITIONAL"]
    code: Code | None = None
    reason: str = ""
    policy_id: str = ""
    rule_id: str = ""
    obligations: tuple[dict[str, Json], ...] = ()
    residual: tuple[Residual, ...] = ()
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a state that its code contradicts."""
        _check_obligations(self.obligations)
        if (self.state == "ALLOWED") != (self.code == "ALLOWED") or (self.state == "DENIED") != (
            self.code not in {None, "ALLOWED"}
        ):
            msg = f"state {self.state} contradicts code {self.code}"
            raise ValueError(msg)


class Listing(Answer, frozen=True):
    """The answers for a list of tools, all made under one revision.

    ``depends_on`` and ``valid_until`` are as those of a decision, for all of them together.
    """

    revision: str
    as_of: Microseconds
    tools: tuple[ToolAnswer, ...]
    depends_on: tuple[Part, ...] | None = None
    max_staleness_seconds: Annotated[float, Meta(gt=0)] | None = None
    valid_until: Microseconds | None = None


class Found(Answer, frozen=True):
    """Those of the candidates that an ALLOW is about, in the order of their ids, all under one revision.

    ``next`` is the id of the last candidate that was looked at, where there are more behind it; else it is empty.
    """

    revision: str
    as_of: Microseconds
    found: tuple[str, ...]
    next: str = ""
    max_staleness_seconds: Annotated[float, Meta(gt=0)] | None = None


MAX_ID_LENGTH = 512
"""The longest id, in characters, that the registry holds and a request may carry."""


def id_fault(text: str) -> str | None:
    """Say what is wrong with an id, if anything.

    Ids are compared byte for byte. Characters that do not show (control and format characters, separators other than the
    space) are refused, so that two ids that look alike in a log differ only by letters that look alike.
    """
    if not text:
        return "must not be empty"
    if len(text) > MAX_ID_LENGTH:
        return f"must have at most {MAX_ID_LENGTH} characters, has {len(text)}"
    if not text.isprintable():
        bad = next(c for c in text if not c.isprintable())
        return f"must not contain the unprintable character U+{ord(bad):04X}"
    return None
