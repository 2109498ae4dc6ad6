"""What is checked before STS is asked, and what is never shown of its answer."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sidecar.credentials.sts import SOURCE_IDENTITY_CLAIM, TAGS_CLAIM, Credentials, StsGateway
from sidecar.errors import CredentialsUnavailableError, StartError
from sidecar.identity.tokens import VerifiedToken
from sidecar.model import Identity, Principal, Subject, Tenant
from sidecar.settings import CredentialSettings
from tests.support.sts import ENVIRONMENT, ROLE

_IDENTITY = Identity(Tenant("acme"), Principal("agent:order-bot"), Subject("alice"))
_TAGS: dict[str, Any] = {"principal_tags": {"TenantID": ["acme"]}, "transitive_tag_keys": ["TenantID"]}
_FLAT = f"{TAGS_CLAIM}/principal_tags/TenantID"
_FLAT_KEYS = f"{TAGS_CLAIM}/transitive_tag_keys"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def _gateway(**settings: Any) -> StsGateway:
    return StsGateway(CredentialSettings(role_arn=ROLE, **settings), most=1)


def _token(**claims: Any) -> VerifiedToken:
    return VerifiedToken("header.claims.signature", "https://issuer.example", "1", _IDENTITY, 2e9, claims)


# ── what a token must say for STS to tag the session ────────────────────────────────────────────────────────────────────

_TAGGED = {
    "as AWS documents it": {TAGS_CLAIM: _TAGS},
    "with other tags": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": ["acme"], "CostCenter": ["1"]}}},
    "with a text": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": "acme"}}},
    "with a claim for each tag": {_FLAT: "acme", _FLAT_KEYS: ["TenantID"]},
    "with the source identity of the subject": {TAGS_CLAIM: _TAGS, SOURCE_IDENTITY_CLAIM: "alice"},
}


@pytest.mark.parametrize("claims", _TAGGED.values(), ids=_TAGGED)
def test_a_token_that_tags_its_session_with_the_tenant_will_do(claims: dict[str, Any]) -> None:
    _gateway(method="web_identity").check(_IDENTITY, _token(**claims))


_UNTAGGED: dict[str, dict[str, Any]] = {
    "no claim": {},
    "a claim that is no object": {TAGS_CLAIM: "TenantID=acme"},
    "no tags": {TAGS_CLAIM: {"transitive_tag_keys": ["TenantID"]}},
    "tags that are no object": {TAGS_CLAIM: {**_TAGS, "principal_tags": ["TenantID"]}},
    "another tenant": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": ["globex"]}}},
    "two tenants": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": ["acme", "globex"]}}},
    "no tenant": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": []}}},
    "null for a tenant": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": None}}},
    "the tag in other letters": {TAGS_CLAIM: {**_TAGS, "principal_tags": {"tenantid": ["acme"]}}},
    "the tag twice, which differs by case alone": {
        TAGS_CLAIM: {**_TAGS, "principal_tags": {"TenantID": ["acme"], "tenantID": ["globex"]}}
    },
    "another tenant in a claim of its own": {TAGS_CLAIM: _TAGS, _FLAT: "globex"},
    "another tenant in a claim of its own, in other letters": {
        TAGS_CLAIM: _TAGS,
        f"{TAGS_CLAIM}/principal_tags/tenantid": "globex",
    },
}


@pytest.mark.parametrize("claims", _UNTAGGED.values(), ids=_UNTAGGED)
def test_a_token_that_does_not_tag_its_session_with_the_tenant_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(
        CredentialsUnavailableError, match="the token does not tag its session with TenantID 'acme': have the"
    ):
        _gateway(method="web_identity").check(_IDENTITY, _token(**claims))


@pytest.mark.parametrize("keys", [None, [], ["tenantid"], "TenantID", {"TenantID": True}], ids=repr)
def test_a_token_whose_tag_would_be_lost_on_the_way_is_refused(keys: Any) -> None:
    claims = {TAGS_CLAIM: {**_TAGS, "transitive_tag_keys": keys}}

    with pytest.raises(CredentialsUnavailableError, match="would be lost where another role is assumed"):
        _gateway(method="web_identity").check(_IDENTITY, _token(**claims))


@pytest.mark.parametrize("other", ["bob", "", None, ["alice"]], ids=repr)
def test_a_token_that_names_another_user_to_aws_is_refused(other: Any) -> None:
    claims = {TAGS_CLAIM: _TAGS, SOURCE_IDENTITY_CLAIM: other}

    with pytest.raises(CredentialsUnavailableError, match=f"{SOURCE_IDENTITY_CLAIM} is not its subject 'alice'"):
        _gateway(method="web_identity").check(_IDENTITY, _token(**claims))


def test_the_sidecar_itself_tags_the_sessions_that_it_asks_for() -> None:
    _gateway().check(_IDENTITY, _token())


@pytest.mark.parametrize("method", ["assume_role", "web_identity"])
def test_sts_is_never_asked_for_whom_it_cannot_carry(method: str) -> None:
    gateway = _gateway(method=method, endpoint_url="http://127.0.0.1:1")
    nobody = Identity(Tenant("acme"), Principal("agent:order-bot"))

    with pytest.raises(CredentialsUnavailableError, match="subject '' cannot be"):
        gateway.assume(nobody, _token(**{TAGS_CLAIM: _TAGS}), session_name="decision", policy="{}", seconds=900)


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_partition_account_and_region_follow_from_the_settings() -> None:
    gateway = StsGateway(
        CredentialSettings(role_arn="arn:aws-cn:iam::111122223333:role/a/b:c", region="cn-north-1"), most=1
    )

    assert (gateway.partition, gateway.account, gateway.region) == ("aws-cn", "111122223333", "cn-north-1")


def test_the_region_is_that_of_the_environment_where_none_is_set() -> None:
    assert _gateway().region == "eu-west-1"


def test_without_a_region_there_is_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    with pytest.raises(StartError, match=r"credentials\.region: name the region"):
        _gateway()


def test_with_an_endpoint_that_is_none_there_is_no_start() -> None:
    with pytest.raises(StartError, match="credentials: Invalid endpoint: nowhere"):
        _gateway(endpoint_url="nowhere")


def test_with_a_tag_that_aws_keeps_for_itself_there_is_no_start() -> None:
    with pytest.raises(StartError, match=r"credentials\.tenant_tag: tag 'aws:TenantID' cannot be"):
        _gateway(tenant_tag="aws:TenantID")


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_credentials_do_not_show_what_could_be_used() -> None:
    secret = Credentials("AKIAKEY", "secret-key", "session-token", 1.0, "arn:aws:sts::1:assumed-role/r/s", "s")
    console = Console(file=io.StringIO(), width=200)
    console.print(secret)
    shown = f"{secret} {secret!r} {[secret]} {console.file.getvalue()}"  # type: ignore[attr-defined]  # a StringIO

    assert not [word for word in ("AKIAKEY", "secret-key", "session-token") if word in shown]
    assert "arn:aws:sts::1:assumed-role/r/s" in shown
