"""The client of STS: a session of one role, for one tenant and one user, in exchange for an identity that is proven.

What comes from STS is secret: neither errors nor representations hold any of it, and no more of what STS says went wrong than one
line. Sources: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html,
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sidecar.credentials import values
from sidecar.errors import CredentialsNotGivenError, CredentialsUnavailableError, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.identity.tokens import VerifiedToken
    from sidecar.model import Identity, Json
    from sidecar.settings import CredentialSettings

LONGEST_CHAINED_SECONDS = 3600
"""How long a session may last that is made with the credentials of another role's session."""

TAGS_CLAIM = "https://aws.amazon.com/tags"
SOURCE_IDENTITY_CLAIM = "https://aws.amazon.com/source_identity"

_ATTEMPTS = 2
_LONGEST_MESSAGE = 300
_UNUSABLE = {
    "PackedPolicyTooLarge": "shorten the resource's id, or the statements in credentials.templates",
    "MalformedPolicyDocument": "mend the statements in credentials.templates",
}
_REMEDIES = {
    "AccessDenied": "the role's trust policy must let the sidecar assume it, tag its sessions and set their source identity",
    "ValidationError": "credentials.duration_seconds may be longer than the role lets sessions last",
    "RegionDisabledException": "turn on STS in this region, or set credentials.region to another",
}

_Text = Annotated[str, Meta(min_length=1)]


class Credentials(Struct, frozen=True):
    """Temporary AWS credentials. ``expiration`` is in seconds since 1970; ``session_name`` is what CloudTrail names them by."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: float
    assumed_role_arn: str
    session_name: str

    def __repr__(self) -> str:
        """Tell them apart, and nothing that could be used."""
        return f"<Credentials of {self.assumed_role_arn} until {self.expiration:.0f}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell no more where rich shows them."""
        return [("assumed_role_arn", self.assumed_role_arn), ("expiration", self.expiration)]


class _Keys(Struct, frozen=True, rename="pascal"):
    access_key_id: _Text
    secret_access_key: _Text
    session_token: _Text
    expiration: datetime


class _User(Struct, frozen=True, rename="pascal"):
    arn: _Text


class _Answer(Struct, frozen=True, rename="pascal"):
    """What both ways of assuming a role answer, as far as it is of use."""

    credentials: _Keys
    assumed_role_user: _User


class StsGateway:
    """Asks STS for sessions of the role that the settings name. At most ``most`` calls are under way at a time.

    Raises ``StartError`` if it cannot be told which STS to ask, or STS has no such tag.
    """

    def __init__(self, settings: CredentialSettings, most: int) -> None:
        self._role_arn = settings.role_arn or ""
        _, self.partition, _, _, self.account, _ = self._role_arn.split(":", 5)
        self._with_token = settings.method == "web_identity"
        try:
            self.tag = values.tag_key(settings.tenant_tag)
        except CredentialsUnavailableError as fault:
            msg = f"credentials.tenant_tag: {fault}"
            raise StartError(msg) from fault
        self._client = _client(settings, most)
        self.region: str = self._client.meta.region_name
        self._chained: bool | None = None

    def check(self, identity: Identity, token: VerifiedToken) -> None:
        """Check that STS can carry who is asking. Raises ``CredentialsUnavailableError``."""
        tenant, subject = values.tenant_tag(identity.tenant.id), values.source_identity(identity.subject.id)
        if self._with_token:
            _check_claims(token.claims, self.tag, tenant, subject)

    def chained(self) -> bool:
        """Tell whether the sidecar's own credentials are those of a role's session. STS is asked once.

        Raises ``CredentialsNotGivenError``.
        """
        if self._with_token:
            return False
        if self._chained is None:
            # arn:aws:sts::111122223333:assumed-role/ROLE/SESSION; a user of IAM is arn:aws:iam::111122223333:user/NAME
            self._chained = ":assumed-role/" in self._call("get_caller_identity", "").get("Arn", "")
        return self._chained

    def assume(
        self, identity: Identity, token: VerifiedToken, *, session_name: str, policy: str, seconds: float
    ) -> Credentials:
        """Get a session that has no more permissions than ``policy`` gives, for so many seconds or the least that STS gives.

        Raises ``CredentialsUnavailableError`` or ``CredentialsNotGivenError``.
        """
        self.check(identity, token)
        asked: dict[str, Any] = {
            "RoleArn": self._role_arn,
            "RoleSessionName": values.session_name(session_name),
            "Policy": values.session_policy(policy),
            "DurationSeconds": values.duration(seconds),
        }
        if self._with_token:
            answer = self._call("assume_role_with_web_identity", token.text, WebIdentityToken=token.text, **asked)
        else:
            answer = self._call(
                "assume_role",
                "",
                SourceIdentity=identity.subject.id,
                Tags=[{"Key": self.tag, "Value": identity.tenant.id}],
                TransitiveTagKeys=[self.tag],
                **asked,
            )
        return _read(answer, session_name)

    def _call(self, operation: str, secret: str, **asked: Any) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow to load, seldom needed
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        try:
            answer: Mapping[str, Any] = getattr(self._client, operation)(**asked)
        except ClientError as fault:
            raise _refusal(fault.response.get("Error", {}), secret) from None
        except BotoCoreError as fault:
            msg = f"STS was not reached: {_one_line(str(fault), secret)}"
            raise CredentialsNotGivenError(msg) from None
        except (ResponseParserError, ValueError, LookupError, TypeError, AttributeError) as fault:
            # What cannot be read may be credentials none the less: nothing of it is repeated.
            msg = f"STS answered what is no answer of STS ({type(fault).__name__})"
            raise CredentialsNotGivenError(msg) from None
        return answer


def _client(settings: CredentialSettings, most: int) -> Any:
    import boto3  # noqa: PLC0415 - slow to load, seldom needed
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    config = Config(
        connect_timeout=settings.timeout_seconds,
        read_timeout=settings.timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=most,
    )
    try:
        session = boto3.Session(region_name=settings.region)
        if session.region_name is None:
            msg = "credentials.region: name the region, whose STS is asked and which the resources are in"
            raise StartError(msg)
        return session.client("sts", endpoint_url=settings.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as fault:
        msg = f"credentials: {fault}"
        raise StartError(msg) from fault


def _check_claims(claims: Mapping[str, Json], tag: str, tenant: str, subject: str) -> None:
    """Check that the token tags its session with the tenant, and names no other subject. Raises ``CredentialsUnavailableError``.

    STS takes the tags from one claim, or from one claim for each tag. Keys that differ only by case are one key to it.
    """
    stated = [(key, value) for key, value in _stated_tags(claims) if key.lower() == tag.lower()]
    if stated not in ([(tag, tenant)], [(tag, [tenant])]):
        msg = (
            f'the token does not tag its session with {tag} {tenant!r}: have the issuer put {{"principal_tags": {{"{tag}": '
            f'["{tenant}"]}}, "transitive_tag_keys": ["{tag}"]}} into the claim {TAGS_CLAIM}, and nothing else about {tag}'
        )
        raise CredentialsUnavailableError(msg)
    if tag not in _transitive(claims):
        msg = (
            f"the token's tag {tag} would be lost where another role is assumed: have the issuer put "
            f'"transitive_tag_keys": ["{tag}"] into the claim {TAGS_CLAIM}'
        )
        raise CredentialsUnavailableError(msg)
    if claims.get(SOURCE_IDENTITY_CLAIM, subject) != subject:
        msg = f"the token's claim {SOURCE_IDENTITY_CLAIM} is not its subject {subject!r}, so AWS would log another user"
        raise CredentialsUnavailableError(msg)


def _stated_tags(claims: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    nested = claims.get(TAGS_CLAIM)
    tags = nested.get("principal_tags") if isinstance(nested, dict) else None
    if isinstance(tags, dict):
        yield from tags.items()
    prefix = f"{TAGS_CLAIM}/principal_tags/"
    for name, value in claims.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), value


def _transitive(claims: Mapping[str, Json]) -> list[Json]:
    nested = claims.get(TAGS_CLAIM)
    keys = nested.get("transitive_tag_keys") if isinstance(nested, dict) else None
    if keys is None:
        keys = claims.get(f"{TAGS_CLAIM}/transitive_tag_keys")
    return keys if isinstance(keys, list) else []


def _read(answer: Mapping[str, Any], session_name: str) -> Credentials:
    try:
        read = msgspec.convert(answer, _Answer)
        expiration = read.credentials.expiration.timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError) as fault:
        msg = f"STS answered without credentials: {fault}"
        raise CredentialsNotGivenError(msg) from None
    keys = read.credentials
    return Credentials(
        keys.access_key_id,
        keys.secret_access_key,
        keys.session_token,
        expiration,
        read.assumed_role_user.arn,
        session_name,
    )


def _refusal(error: Mapping[str, Any], secret: str) -> CredentialsUnavailableError | CredentialsNotGivenError:
    code = str(error.get("Code"))
    said = f"{code}: {_one_line(str(error.get('Message')), secret)}"
    if code in _UNUSABLE:
        return CredentialsUnavailableError(f"STS cannot use the session policy: {said}; {_UNUSABLE[code]}")
    remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES else ""
    return CredentialsNotGivenError(f"STS refuses: {said}{remedy}")


def _one_line(text: str, secret: str) -> str:
    """Cut what others say to what can be logged: further lines may repeat the request, and with it a token."""
    line = text.strip().partition("\n")[0]
    return (line.replace(secret, "…") if secret else line)[:_LONGEST_MESSAGE]
