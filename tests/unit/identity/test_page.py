"""The page on who is calling: its settings load, its tokens mean what it says, and it knows every way a token can fail."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import UNSET

from sidecar.identity.claims import PRESETS, identity_from
from sidecar.model import Actor, Identity, Principal, Subject, Tenant
from sidecar.settings import Settings, load
from tests.support.processes import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (REPOSITORY / "docs" / "identity.md").read_text()


def blocks(language: str) -> list[str]:
    """Give the blocks of the page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def settings_of(example: str, folder: Path) -> Settings:
    """Load an example as the settings of a sidecar."""
    file = folder / "settings.yaml"
    file.write_text(example)
    return load(file, {})


def example_of(word: str) -> str:
    """Give the only example of settings that has a word in it."""
    (example,) = [block for block in blocks("yaml") if word in block]
    return example


@pytest.mark.parametrize("example", blocks("yaml"), ids=lambda example: " ".join(example.split()[2:5]))
def test_an_example_loads_as_settings(example: str, tmp_path: Path) -> None:
    assert settings_of(example, tmp_path).identity != Settings().identity


def test_the_token_of_the_delegation_means_what_its_picture_says(tmp_path: Path) -> None:
    claims = json.loads(*blocks("json"))
    (issuer,) = settings_of(blocks("yaml")[0], tmp_path).identity.issuers

    assert (claims["iss"], claims["aud"]) == (issuer.issuer, *issuer.audiences)
    assert identity_from(claims, issuer) == Identity(
        tenant=Tenant("acme"),
        principal=Principal("agent:report-bot"),
        subject=Subject("alice"),
        delegation=(Actor("agent:order-bot", ("tools:read", "tools:write")),),
        scopes=("tools:read",),
        may_act=UNSET,
    )


def test_roles_and_properties_are_taken_from_the_places_that_the_example_names(tmp_path: Path) -> None:
    (issuer,) = settings_of(example_of("realm_access"), tmp_path).identity.issuers
    claims: dict[str, Any] = {"organization": {"id": "acme"}, "sub": "alice", "roles": ["a"], "amr": ["mfa"]}
    identity = identity_from(claims | {"realm_access": {"roles": ["b"]}}, issuer)

    assert (identity.tenant.id, identity.subject.roles) == ("acme", ("a", "b"))
    assert identity.subject.properties == {"mfa": ["mfa"]}


@pytest.mark.parametrize(
    ("more", "subject"), [({"username": "alice"}, "alice"), ({}, "")], ids=["a user's", "a machine's"]
)
def test_with_the_example_for_cognito_a_machine_acts_for_nobody(
    more: dict[str, Any], subject: str, tmp_path: Path
) -> None:
    (issuer,) = settings_of(example_of("preset: cognito"), tmp_path).identity.issuers
    claims = {"token_use": "access", "client_id": "1example", "sub": "1example", "tenant_id": "acme", **more}
    identity = identity_from(claims, issuer)

    assert (identity.principal.id, identity.subject.id) == ("1example", subject)


def test_every_reason_to_refuse_a_token_is_explained_and_no_other() -> None:
    source = "".join(path.read_text() for path in (REPOSITORY / "sidecar" / "identity").glob("*.py"))
    given = set(re.findall(r'"(TOKEN_[A-Z_]+)"', source))
    explained = re.findall(r"^\| `(TOKEN_[A-Z_]+)` \|", PAGE, re.MULTILINE)

    assert sorted(given) == sorted(explained)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_shown_with_every_claim_that_it_looks_at(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}`.*$", PAGE, re.MULTILINE)
    preset = PRESETS[name]
    places = [*preset.tenant, *preset.principal, *preset.roles, *preset.scopes, *preset.audience, *preset.uses]

    assert [place for place in places if isinstance(place, str) and f"`{place}`" not in row] == []
    assert preset.subject == "sub"
