"""What credentials are good for: one table of IAM statements by type of resource and action (``templates.yaml``).

The same statements make two policies. The **session policy** of an exchange names the tenant and the resource, and ends with
the decision. The **permission policy** of the role stands for all tenants: IAM puts the tag of the session in where it says
``${aws:PrincipalTag/...}``. AWS grants what both allow, so tenants stay apart when one of the two is wrong.

A placeholder is a word in ``<...>``, which IAM gives no meaning to. What is put in for it can hold nothing that IAM does: no
wildcard, no variable, no quote. Where ``<tenant>`` stands is checked when a table is read, so that what one tenant's statements
match is never another's.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
import yaml
from msgspec import Meta, Struct

from sidecar.credentials.values import LONGEST_POLICY
from sidecar.errors import CredentialsUnavailableError, InvalidRequestError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

BUILT_IN = Path(__file__).with_name("templates.yaml")

LONGEST_ROLE_POLICY = 10_240
"""Characters that the inline policies of a role may have together (IAM quotas)."""

Document: TypeAlias = dict[str, Any]
"""A policy in IAM's JSON."""

_Texts: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=1)]

_TENANT = "<tenant>"
_PLACEHOLDER = re.compile("<([^<>]*)>")
_PLACEHOLDERS = {"tenant", "tag", "id", "region", "account", "partition"}
_NAMES_TENANT = re.compile(_TENANT)
_NAMES_ID = re.compile(f"<(?!({'|'.join(_PLACEHOLDERS - {'id'})})>)")

# What IAM gives a meaning to, what JSON does, what a placeholder is made of, and what does not show.
_NEVER = re.compile(r"[*?${}\"'\\<>\x00-\x1f\x7f-\x9f]")

_LONGEST_TENANT = 256

# Operators that hold for the values that are named alone. ForAnyValue is not among them: one key of a batch would do for all.
_BINDING = {"StringEquals", "StringLike", "ForAllValues:StringEquals", "ForAllValues:StringLike"}


class Statement(Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    """What an action needs, in IAM's words with placeholders."""

    action: _Texts
    resource: _Texts
    condition: dict[str, dict[str, _Texts]] = {}

    def texts(self) -> Iterator[str]:
        """Give every text that may hold placeholders."""
        yield from (*self.action, *self.resource)
        for keys in self.condition.values():
            for key, values in keys.items():
                yield from (key, *values)


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """A type of resource: its ids, the tenants that can be kept apart in it, and what each action needs.

    ``id`` is a regular expression that an id matches as a whole, whose named groups are placeholders, and ``example`` such an id.
    ``tenant`` is the class of characters that a tenant id is made of; unless said, those of a tag's value (botocore
    ``sts/2011-06-15``, ``tagValueType``).
    """

    id: str
    example: str
    actions: Annotated[dict[str, Annotated[tuple[Statement, ...], Meta(min_length=1)]], Meta(min_length=1)]
    tenant: str = r"[\w.:/=+@ -]"

    @property
    def tagged(self) -> bool:
        """Tell whether a tag of the resource itself keeps tenants apart, so that its id need not be known beforehand."""
        wanted = {"aws:ResourceTag/<tag>": (_TENANT,)}.items()
        return all(wanted <= statement.condition.get("StringEquals", {}).items() for statement in self.statements())

    def statements(self) -> Iterator[Statement]:
        """Give the statements of all actions."""
        for statements in self.actions.values():
            yield from statements

    def parts(self, resource_id: str) -> dict[str, str]:
        """Give the values of the placeholders that an id has. Raises ``ValueError`` with what is wrong with it."""
        if bad := _NEVER.search(resource_id):
            msg = f"it holds {bad[0]!r}"
            raise ValueError(msg)
        if (found := re.fullmatch(self.id, resource_id)) is None:
            msg = f"it is not of the form of {self.example!r}"
            raise ValueError(msg)
        return {**found.groupdict(""), "id": resource_id}

    def tenant_fault(self, tenant_id: str) -> str | None:
        """Say why a tenant cannot be kept apart from others in resources of this type, if it cannot."""
        bad = _NEVER.search(tenant_id) or next((c for c in tenant_id if not re.fullmatch(self.tenant, c)), None)
        if bad:
            return f"it holds {bad[0]!r}"
        if not tenant_id or len(tenant_id) > _LONGEST_TENANT:
            return f"it has {len(tenant_id)} characters, where 1 to {_LONGEST_TENANT} are possible"
        if tenant_id in {".", ".."} or tenant_id != tenant_id.strip():
            return "it is not the same everywhere: dots alone, and spaces at the ends, get lost on the way"
        return None


class Templates(Struct, frozen=True):
    """The table, checked: statements by type of resource and action."""

    kinds: dict[str, Kind]

    def session_policy(
        self,
        resource_type: str,
        resource_id: str,
        action: str,
        *,
        tenant_id: str,
        tenant_tag: str,
        region: str,
        account: str,
        partition: str,
        until: datetime,
    ) -> str:
        """Give the policy, as compact JSON, of a session that does one action to one resource of one tenant, ``until`` then.

        Raises ``InvalidRequestError`` for a type or action that is not in the table, and ``CredentialsUnavailableError`` for a
        resource or tenant that cannot be put into a policy and mean itself alone.
        """
        kind = self._kind(resource_type)
        if (statements := kind.actions.get(action)) is None:
            msg = f"no credentials for {action!r} of {resource_type}; there are some for {', '.join(kind.actions)}"
            raise InvalidRequestError(field="action.name", fault=msg)
        if fault := kind.tenant_fault(tenant_id):
            msg = f"tenant {tenant_id!r} cannot be told from all others in resources of type {resource_type}: {fault}"
            raise CredentialsUnavailableError(msg)
        try:
            parts = kind.parts(resource_id)
        except ValueError as bad:
            msg = f"resource {resource_id!r} cannot be what credentials of type {resource_type} are good for: {bad}"
            raise CredentialsUnavailableError(msg) from bad
        place = {"tag": tenant_tag, "region": region, "account": account, "partition": partition}
        # Cut to the second, so that it ends no later than it should.
        end = {"DateLessThan": {"aws:CurrentTime": [until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]}}
        values = {**parts, **place, "tenant": tenant_id}
        text = json.dumps(
            document([_statement(statement, values, end) for statement in statements]), separators=(",", ":")
        )
        if len(text) > LONGEST_POLICY:
            msg = (
                f"tenant {tenant_id!r} and resource {resource_id!r} make a session policy of {len(text)} characters, where STS "
                f"takes {LONGEST_POLICY}; shorten the ids, or the statements in credentials.templates"
            )
            raise CredentialsUnavailableError(msg)
        return text

    def permission_policy(
        self,
        resources: Mapping[str, Sequence[str]],
        *,
        tenant_tag: str,
        region: str,
        account: str,
        partition: str,
    ) -> Document:
        """Give the policy of the role that all sessions have: every action to these resources, each tenant to its own.

        ``resources`` has the ids by type; no ids stand for every resource of the type. Raises ``SettingsError`` for a type or id
        that cannot be, and where ids are needed to keep tenants apart.
        """
        place = {"tag": tenant_tag, "region": region, "account": account, "partition": partition}
        place["tenant"] = f"${{aws:PrincipalTag/{tenant_tag}}}"
        statements: list[Document] = []
        for resource_type, ids in resources.items():
            if (kind := self.kinds.get(resource_type)) is None:
                msg = f"{resource_type}: no statements for this type; there are some for {', '.join(self.kinds)}"
                raise SettingsError(msg)
            parts = _parts_of_all(resource_type, kind, ids)
            guard = _guard(kind, tenant_tag)
            for action, templates in kind.actions.items():
                same: dict[str, Document] = {}
                for template in templates:
                    for values in parts:
                        made = _statement(template, {**values, **place}, guard)
                        first = same.setdefault(json.dumps([made["Action"], made["Condition"]]), made)
                        first["Resource"] += [name for name in made["Resource"] if name not in first["Resource"]]
                name = re.sub("[^A-Za-z0-9]", "", f"{resource_type}_{action}".title())
                statements += [{"Sid": f"{name}{n}", **made} for n, made in enumerate(same.values(), 1)]
        policy = document(statements)
        if (length := len(json.dumps(policy, separators=(",", ":")))) > LONGEST_ROLE_POLICY:
            msg = f"the permission policy has {length} characters, where IAM takes {LONGEST_ROLE_POLICY}; name fewer resources"
            raise SettingsError(msg)
        return policy

    def _kind(self, resource_type: str) -> Kind:
        if (kind := self.kinds.get(resource_type)) is None:
            msg = f"no credentials for {resource_type!r}; there are some for {', '.join(self.kinds)}"
            raise InvalidRequestError(field="resource.type", fault=msg)
        return kind


def load_templates(path: Path | str | None) -> Templates:
    """Read the table of a file, or the one that comes with tenantgate. Raises ``SettingsError`` with what is wrong with it."""
    file = BUILT_IN if path is None else Path(path)
    where = f"credentials.templates: {file}"
    try:
        kinds = msgspec.convert(yaml.safe_load(file.read_text()), Annotated[dict[str, Kind], Meta(min_length=1)])
    except (OSError, UnicodeDecodeError) as fault:
        msg = f"{where}: cannot be read: {fault}"
        raise SettingsError(msg) from fault
    except yaml.YAMLError as fault:
        msg = f"{where}: not YAML: {fault}"
        raise SettingsError(msg) from fault
    except msgspec.ValidationError as fault:
        msg = f"{where}: {fault}"
        raise SettingsError(msg) from fault
    faults = [f"{name}: {fault}" for name, kind in kinds.items() for fault in _faults(kind)]
    if faults:
        raise SettingsError("\n  ".join([f"{where}: cannot be used:", *faults]))
    return Templates(kinds)


def document(statements: list[Document]) -> Document:
    """Make a policy of statements."""
    return {"Version": "2012-10-17", "Statement": statements}


def _parts_of_all(resource_type: str, kind: Kind, ids: Sequence[str]) -> list[dict[str, str]]:
    """Give what to put in for each of the ids of a type, or for all there are. Raises ``SettingsError``."""
    if not ids:
        if not kind.tagged:
            msg = (
                f"{resource_type}: name the resources, such as {resource_type}={kind.example}: names inside them tell "
                "tenants apart, and in others such names may mean something else"
            )
            raise SettingsError(msg)
        return [dict.fromkeys(["id", *re.compile(kind.id).groupindex], "*")]
    for outer in ids:
        if outer.endswith("/") and (inner := next((i for i in ids if i != outer and i.startswith(outer)), None)):
            tenant = inner.removeprefix(outer).partition("/")[0]
            msg = (
                f"{resource_type}: {inner!r} is inside {outer!r}, where a tenant called {tenant!r} would reach all of it; "
                "let neither be inside the other"
            )
            raise SettingsError(msg)
    parts = []
    for resource_id in ids:
        try:
            parts.append(kind.parts(resource_id))
        except ValueError as fault:
            msg = f"{resource_type}: {resource_id!r} cannot be put into a policy: {fault}"
            raise SettingsError(msg) from fault
    return parts


def _guard(kind: Kind, tenant_tag: str) -> Mapping[str, Mapping[str, list[str]]]:
    """Give the conditions on the tag of a session that the tenant's id is held to elsewhere, whoever made the session.

    It must be there, or a session without a tenant would be that of what is tagged with nothing. And it must not hold what comes
    after the tenant in a name: in an S3 prefix, ``a/b`` is inside the folder of ``a``.
    """
    after = {
        text.partition(_TENANT)[2][:1]
        for statement in kind.statements()
        for text in statement.texts()
        if _TENANT in text
    } - {""}
    key = f"aws:PrincipalTag/{tenant_tag}"
    conditions = {"StringLike": {key: ["?*"]}}
    return conditions | ({"StringNotLike": {key: [f"*{c}*" for c in sorted(after)]}} if after else {})


def _statement(template: Statement, values: Mapping[str, str], more: Mapping[str, Mapping[str, list[str]]]) -> Document:
    """Put values in, and more conditions, where the template has none of its own on the same key."""
    conditions: Document = _fill(template.condition, values)
    for operator, keys in more.items():
        conditions[operator] = {**keys, **conditions.get(operator, {})}
    return {
        "Effect": "Allow",
        "Action": _fill(template.action, values),
        "Resource": _fill(template.resource, values),
        "Condition": conditions,
    }


def _fill(template: Any, values: Mapping[str, str]) -> Any:
    match template:
        case str():
            return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
        case dict():
            return {_fill(key, values): _fill(value, values) for key, value in template.items()}
        case _:
            return [_fill(value, values) for value in template]


# ── what a table must not say ───────────────────────────────────────────────────────────────────────────────────────────


def _faults(kind: Kind) -> Iterator[str]:
    """Say what is wrong with a type of resource."""
    try:
        groups = re.compile(kind.id).groupindex
        if not (kind.tenant.startswith("[") and kind.tenant.endswith("]") and not re.fullmatch(kind.tenant, "aa")):
            yield f"tenant: {kind.tenant!r} is not a class of characters, such as [A-Za-z0-9]"
            return
    except re.error as bad:
        yield f"id or tenant: not a regular expression: {bad}"
        return
    try:
        kind.parts(kind.example)
    except ValueError as bad:
        yield f"example: {kind.example!r} is no id: {bad}"
    known = _PLACEHOLDERS | {*groups}
    for action, statements in kind.actions.items():
        for number, statement in enumerate(statements, 1):
            for fault in _statement_faults(statement, known, kind.tenant):
                yield f"{action}, statement {number}: {fault}"


def _statement_faults(statement: Statement, known: set[str], tenant: str) -> Iterator[str]:
    for text in statement.texts():
        yield from (f"there is no placeholder <{n}> in {text!r}" for n in _PLACEHOLDER.findall(text) if n not in known)
        before, _, after = text.partition(_TENANT)
        if _TENANT not in text:
            continue
        if "*" in before or "?" in before:
            yield f"{text!r}: a wildcard before {_TENANT} finds the tenant's name in what belongs to others"
        if after and (after[0] in "*?<" or re.fullmatch(tenant, after[0])):
            yield f"{text!r}: after {_TENANT} must come its end or what no tenant id holds, else it matches longer ids too"
    if not _held_to(statement, _NAMES_TENANT):
        yield f"nothing binds it to {_TENANT}: neither each resource nor a condition on what is reached names it"
    if not _held_to(statement, _NAMES_ID):
        yield "nothing binds it to <id> or a part of it, so that credentials for one resource would be good for others"
    if "DateLessThan" in statement.condition:
        yield "DateLessThan: the end is that of the decision"


def _held_to(statement: Statement, name: re.Pattern[str]) -> bool:
    """Tell whether a statement holds for nothing but what has a name."""
    if all(name.search(resource) for resource in statement.resource):
        return True
    present = [key for key, values in statement.condition.get("Null", {}).items() if values == ("false",)]
    return any(
        all(name.search(value) for value in values)
        for operator, keys in statement.condition.items()
        if operator in _BINDING
        for key, values in keys.items()
        # What is said of the caller says nothing of what it reaches; and of no values at all, all that is said is true.
        if not key.lower().startswith("aws:principal") and (":" not in operator or key in present)
    )
