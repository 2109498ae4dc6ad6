"""What a token says about who is asking: from its claims to the words of the model, where the settings of its issuer say.

The claim ``act`` and its nesting are RFC 8693 section 4.1, ``scope`` is section 4.2 and ``may_act`` section 4.4. What is not
there is left out; what is there and is not what it should be is refused, never passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from sidecar.errors import UnauthenticatedError
from sidecar.model import Actor, Identity, Principal, Subject, Tenant, id_fault
from sidecar.settings import ClaimPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sidecar.model import Json
    from sidecar.settings import Issuer

_T = TypeVar("_T")

MOST_ENTRIES = 256
"""The most roles, scopes, actors or audiences that a token may hold."""

AWS_TENANT = ("https://aws.amazon.com/tags", "principal_tags", "TenantID", 0)
"""Where STS finds the session tag (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html)."""

_NONE: tuple[str, ...] = ()


class Preset(Struct, frozen=True):
    """Where the tokens of a kind of issuer say what. Of several ``tenant`` that are there, all must be the same.

    The first of ``audience`` that is there is whom the token is meant for. ``uses`` are the values of ``token_use`` that are
    accepted, where there must be one.
    """

    tenant: tuple[ClaimPath, ...]
    subject: ClaimPath
    principal: tuple[ClaimPath, ...]
    roles: tuple[ClaimPath, ...]
    scopes: tuple[ClaimPath, ...]
    audience: tuple[str, ...]
    uses: tuple[str, ...] = ()


PRESETS = {
    # RFC 9068; azp is that of OpenID Connect Core section 2, scp that of Okta and Entra ID
    "oauth": Preset(
        tenant=("tenant_id",),
        subject="sub",
        principal=("client_id", "azp"),
        roles=("roles",),
        scopes=("scope", "scp"),
        audience=("aud",),
    ),
    # Access tokens name the app client in client_id and have an aud only for a resource that was asked for; ID tokens name it
    # in aud (https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html).
    "cognito": Preset(
        tenant=("custom:tenant_id",),
        subject="sub",
        principal=("client_id", "azp"),
        roles=("cognito:groups",),
        scopes=("scope",),
        audience=("aud", "client_id"),
        uses=("access", "id"),
    ),
    # As its inbound authorizer takes them, which checks aud or client_id, and as authorization servers issue them on behalf of
    # a user; those of Entra ID name the client in azp or appid
    # (https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/inbound-jwt-authorizer.html).
    "agentcore": Preset(
        tenant=(AWS_TENANT, "tenant_id"),
        subject="sub",
        principal=("client_id", "azp", "appid"),
        roles=("roles", "cognito:groups"),
        scopes=("scope", "scp"),
        audience=("aud", "client_id"),
    ),
}


def identity_from(claims: dict[str, Json], issuer: Issuer) -> Identity:
    """Read who a token says is asking. Raises ``UnauthenticatedError`` with the reason TOKEN_CLAIMS, naming the claim."""
    places = _places(issuer)
    if places.uses and claims.get("token_use") not in places.uses:
        _refuse("token_use", f"must be {' or '.join(places.uses)}")
    scopes = _first(claims, places.scopes, _scopes, _NONE)
    chain = _chain(claims)
    if chain and chain[0].scopes is not UNSET:
        # the current actor was given no more than this of what the token as a whole allows
        scopes = tuple(scope for scope in scopes if scope in chain[0].scopes)
    return Identity(
        tenant=Tenant(_tenant(claims, places.tenant)),
        principal=Principal(chain[0].id if chain else _first(claims, places.principal, _id, "")),
        subject=Subject(
            id=_first(claims, (places.subject,), _id, ""),
            roles=_unique(role for path in places.roles for role in _first(claims, (path,), _ids, _NONE)),
            properties={
                name: value
                for name, path in issuer.claims.properties.items()
                if (value := _at(claims, path)) is not UNSET
            },
        ),
        delegation=chain[1:],
        scopes=scopes,
        may_act=_may_act(claims),
    )


def audience_of(claims: dict[str, Json], issuer: Issuer) -> tuple[str, ...]:
    """Read whom a token is meant for; empty where it does not say. Raises ``UnauthenticatedError`` like ``identity_from``."""
    return _first(claims, PRESETS[issuer.preset].audience, _audience, _NONE)


def _places(issuer: Issuer) -> Preset:
    said = issuer.claims
    given = {
        "tenant": None if said.tenant is None else (said.tenant,),
        "subject": said.subject,
        "principal": said.principal,
        "roles": said.roles,
        "scopes": said.scopes,
    }
    return replace(PRESETS[issuer.preset], **{name: value for name, value in given.items() if value is not None})


def _tenant(claims: dict[str, Json], paths: Sequence[ClaimPath]) -> str:
    found = {path: _id(_name(path), value) for path in paths if (value := _at(claims, path)) is not UNSET}
    if AWS_TENANT in found and len(tags := _at(claims, AWS_TENANT[:-1])) > 1:  # a session tag has one value
        _refuse(_name(AWS_TENANT), f"must stand alone in its list, which has {len(tags)} entries")
    if not found:
        _refuse(" or ".join(map(_name, paths)), "is missing: a token must say which tenant it is for")
    if len({*found.values()}) > 1:
        _refuse(" and ".join(map(_name, found)), "name two tenants: a token must be for one")
    return next(iter(found.values()))


def _chain(claims: dict[str, Json]) -> tuple[Actor, ...]:
    """List the actors: the principal first, then the earlier ones, outermost first."""
    chain: list[Actor] = []
    around = claims
    while "act" in around:
        if len(chain) == MOST_ENTRIES:
            _refuse("act", f"must have at most {MOST_ENTRIES} actors")
        hop, around = f"act (hop {len(chain)})", around["act"]
        actor_id = _sub(hop, around)
        chain.append(Actor(actor_id, _scopes(f"scope of {hop}", around["scope"]) if "scope" in around else UNSET))
    return tuple(chain)


def _may_act(claims: dict[str, Json]) -> tuple[str, ...] | UnsetType:
    if "may_act" not in claims:
        return UNSET
    said = claims["may_act"]
    return _unique(_sub("may_act", entry) for entry in _bounded("may_act", said if isinstance(said, list) else [said]))


def _first(claims: dict[str, Json], paths: Iterable[ClaimPath], read: Callable[[str, Json], _T], default: _T) -> _T:
    for path in paths:
        value = _at(claims, path)
        if value is not UNSET:
            return read(_name(path), value)
    return default


def _at(claims: dict[str, Json], path: ClaimPath) -> Json:
    """Give the value at a path; unset where there is none, and for the path that leads nowhere."""
    if not path:
        return UNSET
    value: Json = claims
    for step in (path,) if isinstance(path, str) else path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step, UNSET)
        elif isinstance(step, int) and isinstance(value, list):
            value = value[step] if 0 <= step < len(value) else UNSET
        elif value is not UNSET:
            _refuse(_name(path), f"cannot be reached: there is no {step!r} in what is neither object nor list")
    return value


def _name(path: ClaimPath) -> str:
    return path if isinstance(path, str) else ".".join(map(str, path))


def _sub(name: str, said: Json) -> str:
    if not isinstance(said, dict) or "sub" not in said:
        _refuse(name, "must be an object with a sub")
    return _id(f"sub of {name}", said["sub"])


def _id(name: str, value: Json) -> str:
    if not isinstance(value, str):
        _refuse(name, "must be one text")
    if fault := id_fault(value):
        _refuse(name, fault)
    return value


def _ids(name: str, value: Json) -> tuple[str, ...]:
    return _unique(_id(f"an entry of {name}", entry) for entry in _bounded(name, value))


def _scopes(name: str, value: Json) -> tuple[str, ...]:
    return _ids(name, [scope for scope in value.split(" ") if scope] if isinstance(value, str) else value)


def _audience(name: str, value: Json) -> tuple[str, ...]:
    return _ids(name, [value] if isinstance(value, str) else value)


def _bounded(name: str, value: Json) -> list[Json]:
    if not isinstance(value, list) or len(value) > MOST_ENTRIES:
        _refuse(name, f"must be a list of at most {MOST_ENTRIES} entries")
    return value


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _refuse(name: str, fault: str) -> NoReturn:
    msg = f"{name}: {fault}"
    raise UnauthenticatedError(msg, "TOKEN_CLAIMS")
