"""Tokens that are believed, remembered and forgotten, with a clock that the tests turn.

Hostile ones are in ``integration/test_tokens.py``.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from sidecar.errors import UnauthenticatedError
from sidecar.identity.tokens import TokenVerifier
from sidecar.model import Actor, Identity, Principal, Subject, Tenant
from tests.support.clock import Clock
from tests.support.key_server import KEYS, KeyServer, key_server
from tests.support.processes import wait_until
from tests.support.tokens import (
    ISSUER,
    good_claims,
    identity_settings,
    issuer_settings,
    signer,
    without,
    write_keys,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ES = signer("ES256")
RS = signer("RS256")
NOW = 1_800_000_000
SKEW = 30


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def verifying(clock: Clock, tmp_path: Path) -> Iterator[Callable[..., TokenVerifier]]:
    """Check tokens of the issuer of good ones, until the end of the test."""
    running: list[TokenVerifier] = []
    path = write_keys(tmp_path / "keys.json", ES.jwk(), RS.jwk())

    def start(jwks: Any = path, issuer: dict[str, Any] | None = None, **settings: Any) -> TokenVerifier:
        settings = {"clock_skew_seconds": SKEW, **settings}
        running.append(TokenVerifier(identity_settings(issuer_settings(jwks, **(issuer or {})), **settings), clock))
        return running[-1]

    yield start
    for verifier in running:
        verifier.close()


def claims(**others: Any) -> dict[str, Any]:
    return good_claims(iat=NOW, exp=NOW + 3600) | others


def reason(verifier: TokenVerifier, token: str) -> str:
    """Give the reason for which a token is refused; empty if it is believed."""
    try:
        verifier.verify(token)
    except UnauthenticatedError as fault:
        return fault.reason
    return ""


# ── what is read out of a token ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_says_who_asks_and_until_when(verifying: Callable[..., TokenVerifier]) -> None:
    said = claims(act={"sub": "agent:a", "act": {"sub": "agent:b", "scope": "x"}}, roles=["r"], exp=NOW + 60.5)
    text = ES.token(said)

    token = verifying().verify(text)

    assert (token.text, token.issuer, token.id, token.expires_at) == (text, ISSUER, "token-1", NOW + 60.5)
    assert token.claims == said
    assert token.identity == Identity(
        tenant=Tenant("Tenant-A"),
        principal=Principal("agent:a"),
        subject=Subject("alice", ("r",)),
        delegation=(Actor("agent:b", ("x",)),),
        scopes=("tools:read", "tools:write"),
    )


def test_a_token_without_an_id_has_an_empty_one(verifying: Callable[..., TokenVerifier]) -> None:
    assert verifying().verify(ES.token(without("jti") | {"iat": NOW, "exp": NOW + 60})).id == ""


def test_a_token_shows_nothing_that_is_secret(verifying: Callable[..., TokenVerifier]) -> None:
    token = verifying().verify(ES.token(claims()))
    screen = io.StringIO()
    Console(file=screen, width=1000).print(token, {"token": token})

    for shown in (repr(token), str(token), f"{token}", screen.getvalue()):
        assert "token-1" in shown
        assert ISSUER in shown
        assert [part for part in [*token.text.split("."), "alice", "Tenant-A", "scope"] if part in shown] == []


@pytest.mark.parametrize("text", ["\ud800", "é.é.é", "a.b.\x80", "\0", "\n", "😀" * 3000])
def test_a_text_that_no_token_is_written_in_is_malformed(verifying: Callable[..., TokenVerifier], text: str) -> None:
    assert reason(verifying(), text) == "TOKEN_MALFORMED"


@pytest.mark.parametrize("change", [" {}", "{} ", "\t{}", "{}\n", "{}\r\n", "\x0b{}", "{}\0"])
def test_a_token_with_something_around_it_is_malformed(verifying: Callable[..., TokenVerifier], change: str) -> None:
    assert reason(verifying(), change.format(ES.token(claims()))) == "TOKEN_MALFORMED"


def test_a_token_may_have_as_many_bytes_as_the_settings_say(verifying: Callable[..., TokenVerifier]) -> None:
    token = ES.token(claims())

    assert reason(verifying(max_token_bytes=len(token)), token) == ""
    assert reason(verifying(max_token_bytes=len(token) - 1), token) == "TOKEN_TOO_LARGE"


# ── when it is valid ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"exp": NOW + 0.001 - SKEW}, ""),
        ({"exp": NOW - SKEW}, "TOKEN_EXPIRED"),
        ({"nbf": NOW + SKEW}, ""),
        ({"nbf": NOW + SKEW + 0.001}, "TOKEN_NOT_YET_VALID"),
        ({"iat": NOW + SKEW}, ""),
        ({"iat": NOW + SKEW + 0.001}, "TOKEN_NOT_YET_VALID"),
        ({"iat": NOW - 100, "exp": NOW + 900}, ""),
        ({"iat": NOW - 100.001, "exp": NOW + 900}, "TOKEN_LIFETIME"),
        ({"iat": NOW, "exp": NOW + 1000}, ""),
        ({"iat": NOW, "exp": NOW + 1000.001}, "TOKEN_LIFETIME"),
    ],
    ids=str,
)
def test_the_bounds_of_time_are_exact(
    verifying: Callable[..., TokenVerifier], others: dict[str, Any], expected: str
) -> None:
    verifier = verifying(max_lifetime_seconds=1000.0)

    assert reason(verifier, ES.token(claims(exp=NOW + 60) | others)) == expected


@pytest.mark.parametrize(("exp", "expected"), [(NOW + 1000, ""), (NOW + 1001, "TOKEN_LIFETIME")])
def test_a_token_that_does_not_say_when_it_was_issued_ends_soon_enough_from_now(
    verifying: Callable[..., TokenVerifier], exp: int, expected: str
) -> None:
    assert reason(verifying(max_lifetime_seconds=1000.0), ES.token(without("iat") | {"exp": exp})) == expected


def test_without_skew_the_end_is_the_end(verifying: Callable[..., TokenVerifier], clock: Clock) -> None:
    verifier, token = verifying(clock_skew_seconds=0), ES.token(claims(exp=NOW + 60))

    clock.now = NOW + 59.999
    assert reason(verifier, token) == ""
    clock.now = NOW + 60
    assert reason(verifier, token) == "TOKEN_EXPIRED"


# ── what is remembered ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_was_believed_is_not_checked_again(verifying: Callable[..., TokenVerifier]) -> None:
    verifier, token = verifying(), ES.token(claims())

    assert verifier.verify(token) is verifier.verify(token)


def test_without_a_memory_every_token_is_checked(verifying: Callable[..., TokenVerifier]) -> None:
    verifier, token = verifying(token_cache_entries=0), ES.token(claims())
    first, second = verifier.verify(token), verifier.verify(token)

    assert first is not second
    assert first == second


def test_a_remembered_token_ends_when_it_ends(verifying: Callable[..., TokenVerifier], clock: Clock) -> None:
    verifier, token = verifying(), ES.token(claims(exp=NOW + 60))
    first = verifier.verify(token)

    clock.now = NOW + 60 + SKEW - 0.001
    assert verifier.verify(token) is first
    clock.now = NOW + 60 + SKEW
    assert reason(verifier, token) == "TOKEN_EXPIRED"


def test_the_token_that_was_not_seen_for_longest_is_forgotten(verifying: Callable[..., TokenVerifier]) -> None:
    verifier = verifying(token_cache_entries=2)
    tokens = [ES.token(claims(jti=str(n))) for n in range(3)]
    seen = [verifier.verify(token) for token in tokens[:2]]
    assert verifier.verify(tokens[0]) is seen[0]

    verifier.verify(tokens[2])

    assert verifier.verify(tokens[0]) is seen[0]
    assert verifier.verify(tokens[1]) is not seen[1]


def test_a_token_that_is_refused_is_not_remembered(verifying: Callable[..., TokenVerifier], clock: Clock) -> None:
    verifier, token = verifying(), ES.token(claims(nbf=NOW + 100))

    assert reason(verifier, token) == "TOKEN_NOT_YET_VALID"
    clock.now = NOW + 100
    assert reason(verifier, token) == ""


def test_many_threads_may_check_tokens(verifying: Callable[..., TokenVerifier]) -> None:
    verifier = verifying(token_cache_entries=3)
    tokens = [ES.token(claims(jti=str(n))) for n in range(6)]
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda n: verifier.verify(tokens[n % 6]).id, range(600))]

    assert found == [str(n % 6) for n in range(600)]


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as server:
        server.list_keys(ES.jwk())
        yield server


def test_a_remembered_token_goes_with_its_key(server: KeyServer, verifying: Callable[..., TokenVerifier]) -> None:
    verifier = verifying(server.keys_url)
    token = ES.token(claims())
    first = verifier.verify(token)
    server.list_keys(RS.jwk())
    verifier.verify(RS.token(claims()))

    assert verifier.verify(RS.token(claims())).identity == first.identity
    assert reason(verifier, token) == "TOKEN_KEY_UNKNOWN"


def test_a_remembered_token_is_checked_again_when_other_keys_are_listed_beside_its_own(
    server: KeyServer, verifying: Callable[..., TokenVerifier]
) -> None:
    verifier = verifying(server.keys_url)
    token = ES.token(claims())
    first = verifier.verify(token)
    server.list_keys(RS.jwk(), ES.jwk())
    verifier.verify(RS.token(claims()))
    second = verifier.verify(token)

    assert second is not first
    assert second == first
    assert verifier.verify(token) is second


def test_a_remembered_token_goes_when_the_keys_of_its_issuer_are_too_old(
    server: KeyServer, verifying: Callable[..., TokenVerifier]
) -> None:
    verifier = verifying(
        server.keys_url, keys_lifetime_seconds=0.2, keys_refresh_seconds=0.2, unknown_key_pause_seconds=0.2
    )
    token = ES.token(claims())
    verifier.verify(token)
    server.answers[KEYS] = 500, b""

    wait_until(lambda: reason(verifier, token) == "TOKEN_KEYS_UNAVAILABLE")


def test_the_same_key_is_a_key_of_the_issuer_that_lists_it_alone(clock: Clock, tmp_path: Path) -> None:
    other = "https://other.example"
    a = issuer_settings(write_keys(tmp_path / "a.json", ES.jwk()))
    b = issuer_settings(write_keys(tmp_path / "b.json", RS.jwk())) | {"issuer": other}
    verifier = TokenVerifier(identity_settings(a, b), clock)
    try:
        assert reason(verifier, ES.token(claims())) == ""
        assert reason(verifier, ES.token(claims(iss=other))) == "TOKEN_KEY_UNKNOWN"
        assert reason(verifier, RS.token(claims(iss=other))) == ""
        assert reason(verifier, RS.token(claims())) == "TOKEN_KEY_UNKNOWN"
    finally:
        verifier.close()


@pytest.mark.parametrize(
    ("tenants", "expected"),
    [
        (None, ""),
        (["Tenant-A"], ""),
        (["Tenant-B", "Tenant-A"], ""),
        (["Tenant-B"], "TOKEN_TENANT"),
        ([], "TOKEN_TENANT"),
    ],
)
def test_an_issuer_speaks_for_the_tenants_that_the_settings_say(
    verifying: Callable[..., TokenVerifier], tenants: list[str] | None, expected: str
) -> None:
    assert reason(verifying(issuer={"tenants": tenants}), ES.token(claims())) == expected
