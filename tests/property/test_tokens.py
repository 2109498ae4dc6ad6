"""Whatever a token is, it is refused with a reason, or it says what its issuer has signed, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sidecar.errors import UnauthenticatedError
from sidecar.identity import tokens
from sidecar.identity.encoding import decode_base64url, read_object
from sidecar.identity.keys import _usable
from sidecar.identity.tokens import TokenVerifier
from sidecar.identity.verified import bearer_token
from tests.support.tokens import (
    base64url,
    encoded,
    good_claims,
    identity_settings,
    issuer_settings,
    signer,
    write_keys,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model import Identity

ES, RS, ED = signer("ES256"), signer("RS256"), signer("EdDSA")
FOREIGN = signer("ES256", "foreign")
NOW = 1_800_000_000
GOOD = good_claims(iat=NOW, exp=NOW + 600, roles=["r"], may_act={"sub": "agent:order-bot"})
REASONS = {line.split()[0] for line in (tokens.__doc__ or "").splitlines() if line.startswith("    TOKEN_")}


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenVerifier]:
    jwks = write_keys(tmp_path_factory.mktemp("keys") / "keys.json", ES.jwk(), RS.jwk(), ED.jwk())
    verifier = TokenVerifier(identity_settings(issuer_settings(jwks)), lambda: NOW)
    yield verifier
    verifier.close()


def verified(verifier: TokenVerifier, text: str) -> Identity | None:
    """Give who a token says is asking, twice the same; null if it is refused, for a documented reason and in plain words."""
    first, second = _outcome(verifier, text), _outcome(verifier, text)
    assert first == second
    if isinstance(first, tuple):
        reason, message = first
        assert reason in REASONS
        assert message.encode()
        return None
    return first


def _outcome(verifier: TokenVerifier, text: str) -> Identity | tuple[str, str]:
    try:
        return verifier.verify(text).identity
    except UnauthenticatedError as refused:
        return refused.reason, str(refused)


# ── strategies ──────────────────────────────────────────────────────────────────────────────────────────────────────────

words = st.sampled_from(
    ["Tenant-A", "Tenant-B", "alice", "agent:order-bot", "a b", "", "\0", "\u200b", "é", "tenantgate"]
)
texts = words | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["sub", "act", "scope"]) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
moments = st.sampled_from([NOW, NOW - 31, NOW + 31, NOW + 86400, NOW + 1e8, 0, -1, 2**63, 1e300]) | json_values
claim_names = st.sampled_from([*GOOD, "nbf", "client_id", "azp", "scp", "roles", "may_act"])
header_names = st.sampled_from(["alg", "typ", "kid", "crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "cty"])
algorithms = st.sampled_from(["none", "None", "HS256", "RS256", "PS256", "ES256", "ES384", "EdDSA", "es256"])
key_ids = st.sampled_from(["ES256", "RS256", "EdDSA", "foreign", "../../etc/passwd", "x" * 257])

TOKEN = ES.token(GOOD)


@st.composite
def edits(draw: st.DrawFn, text: str) -> str:
    """Change a text in a few places."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 3))
        put = draw(st.text(max_size=3) | st.sampled_from(["A", ".", "=", "-", "_", " ", "A" * 4]))
        text = text[:at] + put + text[at + cut :]
    return text


# ── texts and bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@given(text=st.text() | st.text(alphabet="eyJ0.=-_ ", max_size=60) | st.binary().map(lambda b: b.decode("latin-1")))
@example(text=".." * 5000)
@example(text="\ud800.\ud800.\ud800")
def test_no_text_is_a_token_by_chance(verifier: TokenVerifier, text: str) -> None:
    assert verified(verifier, text) is None


@given(text=edits(TOKEN))
def test_a_token_that_was_changed_anywhere_is_refused(verifier: TokenVerifier, text: str) -> None:
    assume(text != TOKEN)

    assert verified(verifier, text) is None


@given(header=st.binary(max_size=60), claims=st.binary(max_size=60))
@example(header=b"{}", claims=b"{}")
@example(header=b'{"alg":"ES256"}', claims=b"[" * 300)
def test_signed_bytes_are_no_token(verifier: TokenVerifier, header: bytes, claims: bytes) -> None:
    assert verified(verifier, ES.sign(base64url(header), base64url(claims))) is None


@given(body=edits(json.dumps(GOOD)))
def test_signed_claims_that_were_changed_as_text_say_what_json_says_or_are_refused(
    verifier: TokenVerifier, body: str
) -> None:
    assume(body.isascii())
    found = verified(verifier, ES.token(body.encode()))

    if found is not None:
        _check(found, json.loads(body))


@given(parts=st.lists(st.sampled_from([*TOKEN.split("."), *RS.token(GOOD).split("."), ""]), max_size=6))
def test_parts_of_tokens_put_together_anew_are_refused_or_are_one_of_them(
    verifier: TokenVerifier, parts: list[str]
) -> None:
    found = verified(verifier, ".".join(parts))

    if found is not None:
        assert parts in ([*TOKEN.split(".")], [*parts[:2], parts[2]])
        _check(found, GOOD)


# ── what is signed ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _check(identity: Identity, claims: dict[str, Any]) -> None:
    """Hold an identity against the claims, word by word."""
    assert (claims["iss"], identity.tenant.named) == (GOOD["iss"], ())
    assert identity.tenant.id == claims["tenant_id"]
    assert identity.subject.id == claims.get("sub", "")
    assert list(identity.subject.roles) == list(dict.fromkeys(claims.get("roles", [])))
    chain, act = [], claims.get("act")
    while act is not None:
        chain.append(act["sub"])
        act = act.get("act")
    if chain:
        assert [identity.principal.id, *(actor.id for actor in identity.delegation)] == chain
    else:
        assert identity.principal.id == claims.get("client_id", claims.get("azp", ""))
        assert identity.delegation == ()
    scopes = claims.get("scope", claims.get("scp", []))
    assert {*identity.scopes} <= {*(scopes.split(" ") if isinstance(scopes, str) else scopes)}
    assert "tenantgate" in claims["aud"]
    assert claims["exp"] > NOW - 30


@given(
    changes=st.dictionaries(claim_names, json_values | moments, max_size=4), left_out=st.sets(claim_names, max_size=3)
)
@example(changes={}, left_out={"act"})
@example(changes={"act": {"sub": "a", "act": {"sub": "b", "scope": ""}}}, left_out=set())
@example(changes={"exp": True}, left_out=set())
@example(changes={"tenant_id": "\ud800"}, left_out=set())
def test_signed_claims_are_refused_or_say_who_asks(
    verifier: TokenVerifier, changes: dict[str, Any], left_out: set[str]
) -> None:
    claims = {name: value for name, value in (GOOD | changes).items() if name not in left_out}
    found = verified(verifier, ES.token(claims))

    if found is not None:
        _check(found, claims)


@given(
    changes=st.dictionaries(header_names, json_values | algorithms | key_ids, max_size=3),
    by=st.sampled_from([ES, RS, ED, FOREIGN]),
)
@example(changes={"kid": "ES256"}, by=FOREIGN)
@example(changes={"alg": "PS256"}, by=RS)
def test_no_header_makes_a_token_good_that_is_signed_otherwise(
    verifier: TokenVerifier, changes: dict[str, Any], by: Any
) -> None:
    header = {"alg": by.algorithm, "kid": by.id} | changes
    found = verified(verifier, by.sign(encoded(header), encoded(GOOD)))

    if found is not None:
        assert by is not FOREIGN
        assert (header["alg"], header["kid"]) == (by.algorithm, by.id)
        assert not header.keys() & {"crit", "b64", "zip", "jwk", "jku", "x5u"}
        _check(found, GOOD)


@given(claims=st.dictionaries(claim_names, json_values), header=st.dictionaries(header_names, json_values))
def test_what_nobody_has_signed_is_never_believed(
    verifier: TokenVerifier, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    signed = f"{encoded({'alg': 'none'} | header)}.{encoded(GOOD | claims)}"

    assert verified(verifier, f"{signed}.") is None
    assert verified(verifier, f"{signed}.{TOKEN.rpartition('.')[2]}") is None


# ── the parts that it is made of ────────────────────────────────────────────────────────────────────────────────────────


@given(body=st.binary(max_size=40))
def test_base64url_is_read_back_and_in_no_other_way(body: bytes) -> None:
    assert decode_base64url(base64url(body)) == body


@given(text=st.text(alphabet="AZaz09-_+/= .\n", max_size=12))
def test_what_is_read_as_base64url_is_the_one_way_to_write_it(text: str) -> None:
    try:
        body = decode_base64url(text)
    except ValueError:
        return
    assert base64url(body) == text


@given(body=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_that_json_agrees_on_or_are_refused(body: bytes) -> None:
    try:
        value = read_object(body)
    except ValueError:
        return
    assert value == json.loads(body)


jwk_names = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "use", "key_ops", "alg", "x5c"])
jwk_values = json_values | st.sampled_from(
    ["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "Ed448", "sig", "AQAB", "AAAA"]
)
jwks = st.builds(
    lambda base, changes: {**base, **changes},
    st.sampled_from([{}, ES.jwk(), RS.jwk(), ED.jwk()]),
    st.dictionaries(jwk_names, jwk_values, max_size=3),
)


@given(listed=st.lists(jwks | json_values, max_size=3))
def test_no_key_hinders_another_and_none_is_used_that_is_not_for_its_algorithms(listed: list[Any]) -> None:
    good = signer("ES256", "good one")
    found = _usable("https://issuer.example", json.dumps({"keys": [*listed, good.jwk()]}).encode())

    assert "good one" in {key.id for key in found}
    for key in found:
        assert key.algorithms
        assert key.algorithms <= {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA"}


@given(values=st.lists(st.text(max_size=10) | st.just(f"Bearer {TOKEN}"), max_size=3))
def test_metadata_hold_one_token_or_none(values: list[str]) -> None:
    try:
        text = bearer_token({"authorization": values})
    except UnauthenticatedError:
        assert len(values) > 1
        return
    assert text == "" or values[0].endswith(text)
