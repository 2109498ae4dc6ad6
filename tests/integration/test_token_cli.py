"""``tenantgate token``: what it prints, and which exit status it ends with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def _run(*words: object, token: str | None = None) -> Result:
    return CliRunner().invoke(main, ["token", *map(str, words)], input=token, env={"COLUMNS": "160"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an issuer, with its settings beside."""
    folder = tmp_path / "issuer"
    (tmp_path / "settings.yaml").write_text(_run("issuer", folder).stdout)
    return folder


@pytest.fixture
def settings(folder: Path) -> Path:
    return folder.parent / "settings.yaml"


def _mint(folder: Path, *words: object) -> str:
    minted = _run("mint", "--issuer-dir", folder, *words)
    assert minted.exit_code == 0, minted.output
    return minted.stdout.strip()


WHOLE = [
    "--tenant",
    "acme",
    "--subject",
    "alice",
    "--principal",
    "agent:a",
    "--scope",
    "x",
    "--scope",
    "y",
    "--role",
    "r",
]


# ── issuer ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_issuer_prints_settings_that_can_be_pasted_and_nothing_else(tmp_path: Path) -> None:
    made = _run("issuer", tmp_path / "issuer")

    assert made.exit_code == 0
    assert yaml.safe_load(made.stdout) == {
        "identity": {
            "mode": "verified",
            "issuers": [
                {
                    "issuer": "https://issuer.tenantgate.invalid",
                    "audiences": ["tenantgate"],
                    "jwks": str(tmp_path / "issuer" / "jwks.json"),
                    "algorithms": ["ES256"],
                }
            ],
        }
    }
    assert "for development only" in made.stderr


def test_issuer_makes_no_second_key(folder: Path) -> None:
    before = (folder / "issuer.key").read_bytes()

    _run("issuer", folder)

    assert (folder / "issuer.key").read_bytes() == before


# ── mint ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mint_prints_a_token_that_says_what_the_options_say(folder: Path) -> None:
    token = _mint(folder, *WHOLE, "--via", "agent:b=s,t", "--via", "agent:c", "--lifetime", 60, "--audience", "other")
    claims = jwt.decode(token, options={"verify_signature": False})

    assert claims["exp"] - claims["iat"] == 60
    assert {name: claims[name] for name in ("tenant_id", "sub", "act", "scope", "roles", "aud")} == {
        "tenant_id": "acme",
        "sub": "alice",
        "act": {"sub": "agent:a", "act": {"sub": "agent:b", "scope": "s t", "act": {"sub": "agent:c"}}},
        "scope": "x y",
        "roles": ["r"],
        "aud": "other",
    }


def test_mint_without_an_issuer_says_how_to_make_one(tmp_path: Path) -> None:
    ended = _run("mint", "--issuer-dir", tmp_path / "nobody", "--tenant", "acme")

    assert ended.exit_code == 2
    assert f"`tenantgate token issuer {tmp_path}/nobody` makes one" in ended.stderr
    assert not (tmp_path / "nobody").exists()


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_shows_who_a_token_says_is_asking_and_until_when(folder: Path, settings: Path) -> None:
    token = _mint(folder, *WHOLE, "--via", "agent:b=s", "--lifetime", 3600 * 5)
    shown = _run("check", "--config", settings, token=token)

    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("believed\n")
    lines = dict(line.strip().split(maxsplit=1) for line in shown.stdout.splitlines()[1:])
    assert lines["until"].endswith("Z, 5 h from now")
    assert {
        name: lines[name].strip()
        for name in ("tenant", "principal", "subject", "delegation", "scopes", "roles", "issuer")
    } == {
        "tenant": "acme",
        "principal": "agent:a",
        "subject": "alice",
        "delegation": "agent:b (s)",
        "scopes": "x, y",
        "roles": "r",
        "issuer": "https://issuer.tenantgate.invalid",
    }


def test_check_reads_a_file_and_prints_json(folder: Path, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "alice.jwt").write_text(_mint(folder, *WHOLE) + "\n")
    shown = _run("check", tmp_path / "alice.jwt", "--json", "--config", settings)
    said: dict[str, Any] = json.loads(shown.stdout)

    assert shown.exit_code == 0
    assert said.pop("expires_at").endswith("Z")
    assert said.pop("id")
    assert said == {
        "issuer": "https://issuer.tenantgate.invalid",
        "tenant": {"id": "acme"},
        "principal": {"id": "agent:a"},
        "subject": {"id": "alice", "roles": ["r"], "properties": {}},
        "delegation": [],
        "scopes": ["x", "y"],
    }


def test_check_warns_of_a_token_with_which_no_agent_acts(folder: Path, settings: Path) -> None:
    shown = _run("check", "--config", settings, token=_mint(folder, "--tenant", "acme", "--subject", "alice"))

    assert "none, so that every call is IMPERSONATION" in shown.stdout


def test_check_ends_with_1_and_the_reason_when_a_token_is_refused(folder: Path, settings: Path) -> None:
    refused = _run("check", "--config", settings, token=_mint(folder, "--tenant", "acme", "--lifetime", -60))

    assert refused.exit_code == 1
    assert refused.stdout.startswith("refused TOKEN_EXPIRED\nexp: the token ended 6")


def test_check_gives_the_reason_as_json(folder: Path, settings: Path) -> None:
    token = _mint(folder, "--tenant", "acme", "--audience", "[red]elsewhere")
    refused = _run("check", "-", "--json", "--config", settings, token=token)

    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["reason"] == "TOKEN_AUDIENCE"


def test_check_shows_nothing_of_a_token_that_it_refuses(folder: Path, settings: Path) -> None:
    token = _mint(folder, *WHOLE)[:-8]
    refused = _run("check", "--config", settings, token=token)

    assert refused.exit_code == 1
    assert [part for part in [*token.split("."), "alice", "acme"] if part in refused.output] == []


def test_check_takes_settings_from_flags(folder: Path) -> None:
    issuers = json.dumps(yaml.safe_load((folder.parent / "settings.yaml").read_text())["identity"]["issuers"])
    shown = _run("check", "--set", f"identity.issuers={issuers}", token=_mint(folder, *WHOLE))

    assert shown.exit_code == 0


def test_check_without_issuers_ends_with_2() -> None:
    ended = _run("check", token="a.b.c")

    assert ended.exit_code == 2
    assert "identity.issuers: there is none" in ended.stderr
