"""Which keys of an issuer are used, and for how long, against a real HTTP server and with a clock that the tests turn."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs

from sidecar.errors import SettingsError, UnauthenticatedError
from sidecar.identity.keys import Keys
from tests.support.clock import Clock
from tests.support.key_server import DISCOVERY, KEYS, KeyServer, key_server
from tests.support.processes import wait_until
from tests.support.tokens import base64url, identity_settings, issuer_settings, signer, write_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


ES = signer("ES256")
OTHER = signer("ES256", "other")
RS = signer("RS256")


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as server:
        server.list_keys(ES.jwk())
        yield server


@pytest.fixture
def follow(clock: Clock) -> Iterator[Callable[..., Keys]]:
    """Follow the keys of an issuer, until the end of the test."""
    following: list[Keys] = []

    def start(jwks: Path | str | None, issuer: dict[str, Any] | None = None, **settings: Any) -> Keys:
        # what is due by itself is due long after the test, unless it says otherwise
        patient = {"keys_timeout_seconds": 30.0, "keys_refresh_seconds": 1e6, "keys_lifetime_seconds": 1e6}
        identity = identity_settings(issuer_settings(jwks, **(issuer or {})), **(patient | settings))
        following.append(Keys(identity.issuers[0], identity, clock))
        return following[-1]

    yield start
    for keys in following:
        keys.close()


def reason(keys: Keys, key_id: str | None = "nobody's", algorithm: str = "ES256") -> str:
    """Give the reason for which a key is not found; empty if it is."""
    try:
        keys.find(key_id, algorithm)
    except UnauthenticatedError as fault:
        return fault.reason
    return ""


# ── when an issuer is asked ─────────────────────────────────────────────────────────────────────────────────────────────


def test_known_keys_are_found_without_asking_again(server: KeyServer, follow: Callable[..., Keys]) -> None:
    keys = follow(server.keys_url)

    assert [keys.find("ES256", "ES256")[0].id for _ in range(100)] == ["ES256"] * 100
    assert server.asked == [KEYS]


def test_an_unknown_key_has_the_issuer_asked_and_is_found_if_it_is_new(
    server: KeyServer, follow: Callable[..., Keys]
) -> None:
    keys = follow(server.keys_url)
    keys.find("ES256", "ES256")
    server.list_keys(ES.jwk(), OTHER.jwk())

    key, _ = keys.find("other", "ES256")

    assert key.public == OTHER.key.public_key()
    assert server.asked == [KEYS] * 2


def test_unknown_keys_have_the_issuer_asked_once_within_the_pause(
    server: KeyServer, follow: Callable[..., Keys], clock: Clock
) -> None:
    keys = follow(server.keys_url, unknown_key_pause_seconds=10)
    keys.find("ES256", "ES256")

    assert {reason(keys, f"nobody's {n}") for n in range(50)} == {"TOKEN_KEY_UNKNOWN"}
    assert server.asked == [KEYS] * 2
    clock.now += 9.9
    assert reason(keys) == "TOKEN_KEY_UNKNOWN"
    assert server.asked == [KEYS] * 2
    clock.now += 0.1
    assert reason(keys) == "TOKEN_KEY_UNKNOWN"
    assert server.asked == [KEYS] * 3


def test_unknown_keys_at_the_same_time_have_the_issuer_asked_once(
    server: KeyServer, follow: Callable[..., Keys]
) -> None:
    keys = follow(server.keys_url)
    keys.find("ES256", "ES256")
    server.list_keys(OTHER.jwk())
    server.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(reason, keys, "other") for _ in range(8)]
        wait_until(lambda: keys._waiting == 8)
        server.gate.set()

        assert [future.result() for future in waiting] == [""] * 8
    assert server.asked == [KEYS] * 2


def test_while_an_issuer_is_slow_known_keys_are_found_and_only_so_many_wait_for_unknown_ones(
    server: KeyServer, follow: Callable[..., Keys]
) -> None:
    keys = follow(server.keys_url, keys_timeout_seconds=5)
    keys.find("ES256", "ES256")
    server.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(reason, keys) for _ in range(8)]
        wait_until(lambda: keys._waiting == 8)

        assert reason(keys, "ES256") == ""
        assert reason(keys) == "TOKEN_KEY_UNKNOWN"
        assert keys._waiting == 8
        server.gate.set()
        assert {future.result() for future in waiting} == {"TOKEN_KEY_UNKNOWN"}


def test_nobody_waits_longer_for_an_issuer_than_the_settings_say(
    server: KeyServer, follow: Callable[..., Keys]
) -> None:
    server.gate.clear()
    keys = follow(server.keys_url, keys_timeout_seconds=0.05)

    assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"


def test_the_first_call_waits_for_the_first_look(server: KeyServer, follow: Callable[..., Keys]) -> None:
    server.gate.clear()
    keys = follow(server.keys_url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reason, keys, "ES256")
        wait_until(lambda: keys._waiting == 1)
        server.gate.set()

        assert waiting.result() == ""


def test_keys_are_looked_at_again_and_again(server: KeyServer, follow: Callable[..., Keys]) -> None:
    follow(server.keys_url, keys_refresh_seconds=0.01)

    wait_until(lambda: len(server.asked) > 5)


def test_an_issuer_that_cannot_be_asked_is_asked_again_after_the_pause_for_unknown_keys(
    server: KeyServer, follow: Callable[..., Keys]
) -> None:
    server.answers[KEYS] = 500, b""
    follow(server.keys_url, unknown_key_pause_seconds=0.01)

    wait_until(lambda: len(server.asked) > 5)


def test_who_waits_is_let_go_when_the_keys_are_closed(server: KeyServer, follow: Callable[..., Keys]) -> None:
    server.gate.clear()
    keys = follow(server.keys_url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reason, keys, "ES256")
        wait_until(lambda: keys._waiting == 1)
        keys.close()

        assert waiting.result() == "TOKEN_KEYS_UNAVAILABLE"


def test_nothing_is_asked_any_more_after_the_end(server: KeyServer, follow: Callable[..., Keys]) -> None:
    keys = follow(server.keys_url, keys_refresh_seconds=0.01)
    keys.find("ES256", "ES256")

    keys.close()

    assert not keys._thread.is_alive()


# ── how long keys are believed ──────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_believed_for_their_lifetime_while_the_issuer_is_gone(
    server: KeyServer, follow: Callable[..., Keys], clock: Clock
) -> None:
    keys = follow(server.keys_url, keys_lifetime_seconds=3600, keys_refresh_seconds=3600)
    keys.find("ES256", "ES256")
    server.answers[KEYS] = 503, b""
    reason(keys)

    clock.now += 3599
    assert reason(keys, "ES256") == ""
    clock.now += 1
    assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"
    assert keys.in_force is None


def test_keys_are_believed_again_when_the_issuer_is_back(
    server: KeyServer, follow: Callable[..., Keys], clock: Clock
) -> None:
    keys = follow(server.keys_url, keys_lifetime_seconds=3600, keys_refresh_seconds=3600)
    keys.find("ES256", "ES256")
    clock.now += 4000

    assert reason(keys, "ES256") == ""
    assert server.asked == [KEYS] * 2


def test_a_look_that_finds_the_same_leaves_the_same_set_in_force(
    server: KeyServer, follow: Callable[..., Keys], clock: Clock
) -> None:
    keys = follow(server.keys_url, keys_lifetime_seconds=100, keys_refresh_seconds=100)
    _, before = keys.find("ES256", "ES256")
    clock.now += 60
    reason(keys)
    clock.now += 60

    assert keys.in_force is before


def test_a_key_that_is_gone_is_gone_at_the_next_look(server: KeyServer, follow: Callable[..., Keys]) -> None:
    keys = follow(server.keys_url)
    _, before = keys.find("ES256", "ES256")
    server.list_keys(OTHER.jwk())
    keys.find("other", "ES256")

    assert reason(keys, "ES256") == "TOKEN_KEY_UNKNOWN"
    assert keys.in_force is not before


def test_an_issuer_that_lists_no_key_any_more_has_none(server: KeyServer, follow: Callable[..., Keys]) -> None:
    keys = follow(server.keys_url)
    keys.find("ES256", "ES256")
    server.list_keys()
    reason(keys)

    assert reason(keys, "ES256") == "TOKEN_KEY_UNKNOWN"


# ── what is no answer ───────────────────────────────────────────────────────────────────────────────────────────────────

_NO_ANSWERS: dict[str, tuple[int, bytes]] = {
    "a redirection": (302, b""),
    "an error": (500, b'{"keys": []}'),
    "another success": (203, b'{"keys": []}'),
    "nothing": (200, b""),
    "no JSON": (200, b"<html>"),
    "a list": (200, b"[]"),
    "no list of keys": (200, b'{"keys": {}}'),
    "a list of keys twice": (200, b'{"keys": [], "keys": []}'),
    "too much": (200, b'{"keys": []}' + b" " * (1 << 20)),
    "a bomb": (200, b'{"keys": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("answer", _NO_ANSWERS.values(), ids=_NO_ANSWERS)
def test_what_is_no_jwk_set_gives_no_keys(
    server: KeyServer, follow: Callable[..., Keys], answer: tuple[int, bytes]
) -> None:
    server.location = server.url + "/elsewhere"
    server.answers |= {KEYS: answer, "/elsewhere": server.answers[KEYS]}
    with capture_logs() as logs:
        keys = follow(server.keys_url)
        assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"

    assert "/elsewhere" not in server.asked
    assert {(line["event"], line["issuer"]) for line in logs} == {("keys_unavailable", "https://issuer.example")}


@pytest.mark.parametrize("answer", _NO_ANSWERS.values(), ids=_NO_ANSWERS)
def test_what_is_no_jwk_set_takes_no_keys_away(
    server: KeyServer, follow: Callable[..., Keys], answer: tuple[int, bytes]
) -> None:
    keys = follow(server.keys_url)
    keys.find("ES256", "ES256")
    server.answers[KEYS] = answer
    reason(keys)

    assert keys._problem
    assert reason(keys, "ES256") == ""


def test_an_answer_that_never_ends_is_given_up(server: KeyServer, follow: Callable[..., Keys]) -> None:
    server.endless = b" ", 0.01
    keys = follow(server.keys_url, keys_timeout_seconds=0.2)

    wait_until(lambda: keys._problem)
    assert "too slow" in keys._problem


def test_no_more_is_read_than_a_jwk_set_may_have(server: KeyServer, follow: Callable[..., Keys]) -> None:
    server.endless = b" " * 65536, 0.0
    keys = follow(server.keys_url)

    wait_until(lambda: keys._problem)
    assert "more than 1048576 bytes" in keys._problem


def test_neither_a_proxy_nor_a_password_file_is_used(
    server: KeyServer, follow: Callable[..., Keys], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    keys = follow(server.keys_url)

    assert reason(keys, "ES256") == ""
    assert "authorization" not in server.headers


def test_a_server_whose_certificate_nobody_vouches_for_is_not_believed(
    follow: Callable[..., Keys], tmp_path: Path
) -> None:
    with key_server(_self_signed(tmp_path)) as server:
        server.list_keys(ES.jwk())
        keys = follow(server.keys_url)

        assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"
        assert "CERTIFICATE_VERIFY_FAILED" in keys._problem
        assert server.asked == []


def test_a_server_is_believed_for_which_the_named_authority_vouches(
    follow: Callable[..., Keys], tmp_path: Path
) -> None:
    with key_server(_self_signed(tmp_path)) as server:
        server.list_keys(ES.jwk())
        keys = follow(server.keys_url, {"ca_file": str(tmp_path / "tls.pem")})

        assert reason(keys, "ES256") == ""


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signs = {"digital_signature": True, "key_cert_sign": True}
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    usage = x509.KeyUsage(**signs, **dict.fromkeys((*others, "encipher_only", "decipher_only"), False))
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    for extension, critical in (
        (x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (usage, True),
    ):
        builder = builder.add_extension(extension, critical)
    certificate = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, SHA256())
    pem = certificate.public_bytes(Encoding.PEM)
    (folder / "tls.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    return context


# ── discovery ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_where_the_issuer_says(server: KeyServer, follow: Callable[..., Keys]) -> None:
    server.describe()
    keys = follow(None, {"issuer": server.url})

    assert reason(keys, "ES256") == ""
    assert server.asked == [DISCOVERY, KEYS]


def test_the_address_of_an_issuer_with_a_slash_at_its_end_has_one(
    server: KeyServer, follow: Callable[..., Keys]
) -> None:
    server.describe(issuer=server.url + "/")
    keys = follow(None, {"issuer": server.url + "/"})

    assert reason(keys, "ES256") == ""


_NOT_ABOUT_IT = "is not about this issuer, or does not say where its keys are"
_UNSAFE = "keys are fetched over https:// alone"


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        ({"issuer": "https://attacker.example"}, _NOT_ABOUT_IT),
        ({"issuer": None}, _NOT_ABOUT_IT),
        ({"jwks_uri": None}, _NOT_ABOUT_IT),
        ({"jwks_uri": ["https://issuer.example/keys.json"]}, _NOT_ABOUT_IT),
        ({"jwks_uri": "http://issuer.example/keys.json"}, _UNSAFE),
        ({"jwks_uri": "http://127.0.0.1@issuer.example/keys.json"}, _UNSAFE),
        ({"jwks_uri": "file:///etc/passwd"}, _UNSAFE),
        ({"jwks_uri": "https:///keys.json"}, _UNSAFE),
        ({"jwks_uri": "/keys.json"}, _UNSAFE),
    ],
    ids=str,
)
def test_what_an_issuer_says_of_another_or_of_an_unsafe_place_is_not_followed(
    server: KeyServer, follow: Callable[..., Keys], about: dict[str, Any], problem: str
) -> None:
    server.describe(**about)
    keys = follow(None, {"issuer": server.url})

    assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"
    assert problem in keys._problem
    assert {*server.asked} == {DISCOVERY}


@pytest.fixture
def vouched(tmp_path: Path) -> Iterator[KeyServer]:
    """An issuer at an https:// address, whose certificate ``tls.pem`` vouches for."""
    with key_server(_self_signed(tmp_path)) as server:
        server.list_keys(ES.jwk())
        yield server


def test_an_issuer_on_another_host_may_say_that_its_keys_are_there(
    vouched: KeyServer, follow: Callable[..., Keys], tmp_path: Path
) -> None:
    vouched.describe()

    assert reason(follow(None, {"issuer": vouched.url, "ca_file": str(tmp_path / "tls.pem")}), "ES256") == ""


def test_an_issuer_on_another_host_cannot_say_that_its_keys_are_on_this_one(
    vouched: KeyServer, server: KeyServer, follow: Callable[..., Keys], tmp_path: Path
) -> None:
    vouched.describe(jwks_uri=server.keys_url)
    keys = follow(None, {"issuer": vouched.url, "ca_file": str(tmp_path / "tls.pem")})

    assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"
    assert "its jwks_uri is not https://" in keys._problem
    assert server.asked == []


@pytest.mark.parametrize(
    ("jwks", "issuer"),
    [
        ("http://issuer.example/keys", "https://issuer.example"),
        ("file:///etc/keys.json", "https://issuer.example"),
        ("https://", "https://issuer.example"),
        ("http://[::1/keys", "https://issuer.example"),
        (None, "http://issuer.example"),
        (None, "issuer.example"),
    ],
)
def test_an_issuer_at_an_unsafe_place_is_a_wrong_setting(
    follow: Callable[..., Keys], jwks: str | None, issuer: str
) -> None:
    with pytest.raises(SettingsError, match=r"^identity\.issuers: .*; set jwks to where the keys of"):
        follow(jwks, {"issuer": issuer})


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_another_is_read_again(follow: Callable[..., Keys], tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.json", ES.jwk())
    keys = follow(path)
    before = reason(keys, "ES256")
    write_keys(path, OTHER.jwk())

    assert (before, reason(keys, "other"), reason(keys, "ES256")) == ("", "", "TOKEN_KEY_UNKNOWN")


def test_a_file_is_read_again_without_being_asked_for(follow: Callable[..., Keys], tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.json", ES.jwk())
    keys = follow(path)
    before = keys.in_force
    write_keys(path, OTHER.jwk())

    wait_until(lambda: keys.in_force is not before)


def test_keys_of_a_file_that_is_gone_are_believed_for_their_lifetime(
    follow: Callable[..., Keys], tmp_path: Path, clock: Clock
) -> None:
    path = write_keys(tmp_path / "keys.json", ES.jwk())
    keys = follow(path, keys_lifetime_seconds=3600, keys_refresh_seconds=60)
    path.unlink()
    reason(keys)

    assert reason(keys, "ES256") == ""
    clock.now += 3600
    assert reason(keys, "ES256") == "TOKEN_KEYS_UNAVAILABLE"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"keys": 1}'])
def test_a_file_that_holds_no_keys_at_the_start_is_a_wrong_setting(
    follow: Callable[..., Keys], tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(SettingsError, match=r"^identity\.issuers: the keys of https://issuer.example: "):
        follow(path)


def test_a_directory_is_no_file_of_keys(follow: Callable[..., Keys], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        follow(tmp_path)


# ── which keys are used ─────────────────────────────────────────────────────────────────────────────────────────────────

_RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

USED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "RSA": (RS.jwk(), _RSA),
    "RSA for one algorithm": (RS.jwk(alg="PS256"), {"PS256"}),
    "P-256": (ES.jwk(), {"ES256"}),
    "P-384": (signer("ES384").jwk(), {"ES384"}),
    "P-521": (signer("ES512").jwk(), {"ES512"}),
    "Ed25519": (signer("EdDSA").jwk(), {"EdDSA"}),
    "without a use": ({k: v for k, v in ES.jwk().items() if k != "use"}, {"ES256"}),
    "to verify": (ES.jwk(key_ops=["verify"]), {"ES256"}),
    "with a certificate": (ES.jwk(x5c=["MIIB"], x5t="abc"), {"ES256"}),
}


@pytest.mark.parametrize(("jwk", "algorithms"), USED.values(), ids=USED)
def test_a_good_key_is_used_for_the_algorithms_that_it_is_for(
    follow: Callable[..., Keys], tmp_path: Path, jwk: dict[str, Any], algorithms: set[str]
) -> None:
    key, _ = follow(write_keys(tmp_path / "keys.json", jwk)).find(jwk["kid"], "ES256")

    assert key.algorithms == algorithms


def _ed448() -> dict[str, Any]:
    jwk: dict[str, Any] = OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)
    return jwk | {"kid": "Ed448"}


NOT_USED: dict[str, tuple[str, str, Any]] = {
    "a shared secret": ("error", "must be secret", {"kty": "oct", "kid": "x", "k": base64url(b"secret" * 9)}),
    "a private EC key": ("error", "must be secret", ECAlgorithm.to_jwk(ES.key, as_dict=True) | {"kid": "x"}),
    "a private RSA key": ("error", "must be secret", RSAAlgorithm.to_jwk(RS.key, as_dict=True) | {"kid": "x"}),
    "a private Ed25519 key": (
        "error",
        "must be secret",
        OKPAlgorithm.to_jwk(signer("EdDSA").key, as_dict=True) | {"kid": "x"},
    ),
    "RSA of 1024 bits": ("warning", "at least 2048 bits", signer("RS256", "weak", 1024).jwk()),
    "the curve of Bitcoin": ("warning", "EC on P-256", signer("ES256K").jwk()),
    "Ed448": ("warning", "Ed25519", _ed448()),
    "for encryption": ("warning", "not for signatures", ES.jwk(use="enc")),
    "a use that is null": ("warning", "not for signatures", ES.jwk(use=None)),
    "to sign alone": ("warning", "not for signatures", ES.jwk(key_ops=["sign"])),
    "to verify, in a text": ("warning", "not for signatures", ES.jwk(key_ops="verify")),
    "an algorithm of another kind": ("warning", "alg does not fit", ES.jwk(alg="RS256")),
    "an algorithm of another curve": ("warning", "alg does not fit", ES.jwk(alg="ES384")),
    "an algorithm for encryption": ("warning", "alg does not fit", RS.jwk(alg="RSA-OAEP")),
    "a shared-secret algorithm": ("warning", "alg does not fit", RS.jwk(alg="HS256")),
    "an unknown kind": ("warning", "kty", {"kty": "AKP", "kid": "x", "pub": "AAAA"}),
    "no kind": ("warning", "kty", {"kid": "x"}),
    "an id that is a number": ("warning", "kid must be a text", ES.jwk(kid=1)),
    "a point that is not on the curve": ("warning", "", ES.jwk(x=ES.jwk()["y"], y=ES.jwk()["x"])),
    "no point": ("warning", "", {"kty": "EC", "crv": "P-256", "kid": "x"}),
    "a number for a text": ("warning", "", {"kty": "RSA", "kid": "x", "n": 5, "e": "AQAB"}),
    "an exponent of one": ("warning", "", RS.jwk(e="AQ")),
    "no object": ("warning", "not an object", ["kty"]),
    "null": ("warning", "not an object", None),
}


@pytest.mark.parametrize(("level", "why", "jwk"), NOT_USED.values(), ids=NOT_USED)
def test_a_bad_key_is_not_used_and_the_log_says_why_and_the_others_are(
    follow: Callable[..., Keys], tmp_path: Path, level: str, why: str, jwk: Any
) -> None:
    with capture_logs() as logs:
        keys = follow(write_keys(tmp_path / "keys.json", jwk, OTHER.jwk()))
    in_force = keys.in_force

    assert in_force is not None
    assert [key.id for key in in_force.keys] == ["other"]
    assert [(line["event"], line["log_level"]) for line in logs[:-1]] == [("key_not_used", level)]
    assert why in logs[0]["reason"]
    assert (logs[-1]["event"], logs[-1]["kids"]) == ("keys_taken", ["other"])


def test_of_keys_with_the_same_id_none_is_used(follow: Callable[..., Keys], tmp_path: Path) -> None:
    with capture_logs() as logs:
        keys = follow(write_keys(tmp_path / "keys.json", ES.jwk(kid="x"), RS.jwk(kid="x"), OTHER.jwk()))

    assert reason(keys, "x", "ES256") == "TOKEN_KEY_UNKNOWN"
    assert reason(keys, "x", "RS256") == "TOKEN_KEY_UNKNOWN"
    assert reason(keys, "other") == ""
    assert [(line["kid"], line["reason"]) for line in logs[:-1]] == [("x", "another key has the same kid")]


def test_without_an_id_the_one_key_that_fits_is_found(follow: Callable[..., Keys], tmp_path: Path) -> None:
    keys = follow(write_keys(tmp_path / "keys.json", ES.jwk(), RS.jwk()))

    assert keys.find(None, "ES256")[0].id == "ES256"
    assert keys.find(None, "PS512")[0].id == "RS256"


def test_without_an_id_and_with_two_keys_that_fit_none_is_found(follow: Callable[..., Keys], tmp_path: Path) -> None:
    keys = follow(write_keys(tmp_path / "keys.json", ES.jwk(), OTHER.jwk()))

    assert reason(keys, None) == "TOKEN_KEY_UNKNOWN"


def test_a_key_without_an_id_is_found_without_one_alone(follow: Callable[..., Keys], tmp_path: Path) -> None:
    jwk = {name: value for name, value in ES.jwk().items() if name != "kid"}
    keys = follow(write_keys(tmp_path / "keys.json", jwk))

    assert keys.find(None, "ES256")[0].id is None
    assert reason(keys, "ES256") == "TOKEN_KEY_UNKNOWN"


def test_the_log_tells_of_a_bad_key_once(server: KeyServer, follow: Callable[..., Keys], clock: Clock) -> None:
    server.list_keys(ES.jwk(), ES.jwk(kid="bad", use="enc"))
    with capture_logs() as logs:
        keys = follow(server.keys_url)
        keys.find("ES256", "ES256")
        clock.now += 100
        reason(keys)

    assert server.asked == [KEYS] * 2
    assert [line["event"] for line in logs] == ["key_not_used", "keys_taken"]


def test_threads_end(server: KeyServer, follow: Callable[..., Keys]) -> None:
    keys = follow(server.keys_url)
    keys.close()

    assert keys._thread not in threading.enumerate()
