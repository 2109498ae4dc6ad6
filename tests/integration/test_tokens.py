"""What tokens prove, and what hostile ones do not: over the wire, from a sidecar that believes tokens alone."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from sidecar.errors import SettingsError, StartError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.identity import tokens
from sidecar.identity.development import DevelopmentIssuer
from sidecar.server import Sidecar
from tests.support import wire
from tests.support.processes import running_sidecar, sidecar_settings, wait_until
from tests.support.tokens import (
    ISSUER,
    base64url,
    encoded,
    good_claims,
    issuer_settings,
    shared_secret_token,
    signer,
    without,
    write_keys,
)
from tests.support.wire import DEADLINE, ORDER_LOOKUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", "tenantgate")
TENANT_B_ISSUER = "https://tenant-b.example"
SKEW = 30
LONGEST = 14_000

ES = signer("ES256")
RS = signer("RS256")
OF_TENANT_B = signer("ES256", "of-tenant-b")
FOREIGN = signer("ES256", "foreign")
WEAK = signer("RS256", "weak", 1024)
LEAKED = signer("ES256", "leaked")
SECRET = b"everyone who can read the keys of the issuer knows this"
TWICE = (signer("ES256", "twice"), signer("ES256", "twice-too"))
FOR_ENCRYPTION = signer("RS256", "for-encryption")
OTHER_CURVE = signer("ES256K", "other-curve")

KEYS = [
    ES.jwk(),
    RS.jwk(alg="RS256"),
    signer("EdDSA").jwk(),
    WEAK.jwk(),
    ECAlgorithm.to_jwk(LEAKED.key, as_dict=True) | {"kid": "leaked"},
    {"kty": "oct", "kid": "shared", "k": base64url(SECRET)},
    *(key.jwk(kid="twice") for key in TWICE),
    FOR_ENCRYPTION.jwk(use="enc"),
    OTHER_CURVE.jwk(),
    {"kty": "AKP", "kid": "of-the-future", "pub": "AAAA"},
    {"kty": "RSA", "kid": "damaged", "n": 5, "e": "AQAB"},
]


@pytest.fixture(scope="module")
def sidecar(sample_bundle: Path) -> Iterator[grpc.Channel]:
    """A sidecar that believes one issuer for all tenants, and one for Tenant-B alone."""
    with tempfile.TemporaryDirectory(prefix="tg-") as name:
        folder = Path(name)
        of_tenant_b = issuer_settings(write_keys(folder / "b.json", OF_TENANT_B.jwk()))
        issuers = [
            issuer_settings(write_keys(folder / "a.json", *KEYS)),
            {**of_tenant_b, "issuer": TENANT_B_ISSUER, "tenants": ["Tenant-B"]},
        ]
        settings = sidecar_settings(
            folder,
            sample_bundle,
            identity__mode="verified",
            identity__issuers=issuers,
            identity__max_token_bytes=LONGEST,
        )
        with running_sidecar(settings) as (_, channel):
            yield channel


def ask(
    channel: grpc.Channel, token: str, identity: decision_pb2.Identity | None = None, *headers: tuple[str, str]
) -> decision_pb2.Decision:
    """Ask about the tool that looks up orders, with a token."""
    request = pb.AuthorizeRequest(resource=wire.resource(ORDER_LOOKUP), identity=identity)
    metadata = [("authorization", f"Bearer {token}"), *headers]
    return wire.authorize(channel, request, metadata=metadata)


def code(decision: decision_pb2.Decision) -> str:
    return decision_pb2.DecisionCode.Name(decision.code).removeprefix("DECISION_CODE_")


def token_reason(error: Any) -> str:
    reason: str = wire.error_info(error).metadata["token"]
    return reason


# ── tokens that are believed ────────────────────────────────────────────────────────────────────────────────────────────

BELIEVED: dict[str, Callable[[], str]] = {
    "signed with EC": ES.token,
    "signed with RSA": RS.token,
    "signed with Ed25519": signer("EdDSA").token,
    "of a kind that is not said": lambda: ES.sign(encoded({"alg": "ES256", "kid": ES.id}), encoded(good_claims())),
    "an access token of RFC 9068": lambda: ES.token(typ="at+JWT"),
    "of a kind with its full name": lambda: ES.token(typ="application/at+jwt"),
    "for several": lambda: ES.token(good_claims(aud=["elsewhere", "tenantgate"])),
    "ended, within the skew": lambda: ES.token(good_claims(exp=time.time() - SKEW + 20)),
    "begins soon, within the skew": lambda: ES.token(good_claims(nbf=time.time() + SKEW - 20)),
    "issued soon, within the skew": lambda: ES.token(good_claims(iat=time.time() + SKEW - 20)),
    "ends between two seconds": lambda: ES.token(good_claims(exp=time.time() + 60.25)),
    "without an issue": lambda: ES.token(without("iat")),
    "without an id": lambda: ES.token(without("jti")),
    "with claims of its own": lambda: ES.token(good_claims(email="alice@tenant-a.example", level=3, groups=None)),
    "without a key's name, where one key fits": lambda: signer("EdDSA").sign(
        encoded({"alg": "EdDSA"}), encoded(good_claims())
    ),
    "scopes in a list": lambda: ES.token(without("scope") | {"scp": ["tools:read"]}),
    "an agent that is a client": lambda: ES.token(without("act") | {"client_id": "agent:order-bot"}),
    "through another agent": lambda: ES.token(
        good_claims(act={"sub": "agent:order-bot", "act": {"sub": "agent:report-bot"}}, scope="tools:read")
    ),
}


@pytest.mark.parametrize("make", BELIEVED.values(), ids=BELIEVED)
def test_a_good_token_is_believed(sidecar: grpc.Channel, make: Callable[[], str]) -> None:
    assert code(ask(sidecar, make())) == "ALLOWED"


def test_a_token_is_believed_again(sidecar: grpc.Channel) -> None:
    token = ES.token()

    assert [code(ask(sidecar, token)) for _ in range(3)] == ["ALLOWED"] * 3


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_may_be_written_in_any_case(sidecar: grpc.Channel, scheme: str) -> None:
    request = pb.AuthorizeRequest(resource=wire.resource())

    decision = wire.authorize(sidecar, request, metadata=[("authorization", scheme + ES.token())])

    assert code(decision) == "ALLOWED"


# ── tokens that are not ─────────────────────────────────────────────────────────────────────────────────────────────────


def _header(**header: Any) -> Callable[[], str]:
    return lambda: ES.token(**header)


def _claims(**claims: Any) -> Callable[[], str]:
    return lambda: ES.token(good_claims(**claims))


def _raw_claims(body: bytes) -> Callable[[], str]:
    return lambda: ES.token(body)


def _parts(change: Callable[[str, str, str], str]) -> Callable[[], str]:
    def make() -> str:
        header, claims, signature = ES.token().split(".")
        return change(header, claims, signature)

    return make


def _unsigned(algorithm: Any) -> Callable[[], str]:
    return lambda: f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(good_claims())}."


def _public_pem() -> bytes:
    pem: bytes = RS.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _der_signed() -> str:
    signed = ES.token().rpartition(".")[0]
    return f"{signed}.{base64url(ES.key.sign(signed.encode(), ec.ECDSA(SHA256())))}"


def _nested_act(depth: int, agent: str = "agent:order-bot") -> dict[str, Any]:
    act: dict[str, Any] = {"sub": agent}
    for _ in range(depth):
        act = {"sub": agent, "act": act}
    return act


def _with_a_flipped_bit(header: str, claims: str, signature: str) -> str:
    return f"{header}.{claims}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _written(claims: dict[str, Any], more: bytes = b"}") -> Callable[[], str]:
    """Sign claims with something else behind the last of them than a closing brace."""
    return lambda: ES.token(json.dumps(claims)[:-1].encode() + more)


def _next(letter: str) -> str:
    """Give the letter of base64url that stands for one more."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(letter) + 1]


HOSTILE: dict[str, tuple[str, Callable[[], str]]] = {
    # what is no token
    "nothing": ("TOKEN_MISSING", lambda: ""),
    "a word": ("TOKEN_MALFORMED", lambda: "token"),
    "dots": ("TOKEN_MALFORMED", lambda: ".."),
    "two parts": ("TOKEN_MALFORMED", lambda: ES.token().rpartition(".")[0]),
    "four parts": ("TOKEN_MALFORMED", lambda: ES.token() + "."),
    "encrypted, in five parts": ("TOKEN_MALFORMED", lambda: ES.token() + ".AAAA.AAAA"),
    "twice, with a comma": ("TOKEN_MALFORMED", lambda: f"{ES.token()},{ES.token()}"),
    "too large": ("TOKEN_TOO_LARGE", _claims(filler="x" * (LONGEST * 3 // 4))),
    "padded": ("TOKEN_MALFORMED", _parts(lambda h, c, s: f"{h}.{c}.{s}==")),
    "a padded header": ("TOKEN_MALFORMED", _parts(lambda h, c, s: f"{h}=.{c}.{s}")),
    "a space within": ("TOKEN_MALFORMED", _parts(lambda h, c, s: f"{h}.{c}. {s}")),
    "signs that the decoder would pass over": ("TOKEN_MALFORMED", _parts(lambda h, c, s: f"{h}.{c}.{s}!!!!")),
    "the other alphabet of base64": ("TOKEN_MALFORMED", _parts(lambda h, c, s: f"{h}.{c}.{s[:-4]}+/+/")),
    "spare bits that are set": ("TOKEN_MALFORMED", _parts(lambda h, c, s: f"{h}.{c}.{s[:-1]}{_next(s[-1])}")),
    "claims that are no JSON": ("TOKEN_MALFORMED", _raw_claims(b"{")),
    "claims that are a list": ("TOKEN_MALFORMED", _raw_claims(b"[]")),
    "claims that are null": ("TOKEN_MALFORMED", _raw_claims(b"null")),
    "claims in UTF-16": ("TOKEN_MALFORMED", _raw_claims("{}".encode("utf-16"))),
    "claims with a byte order mark": ("TOKEN_MALFORMED", _raw_claims(b"\xef\xbb\xbf{}")),
    "claims that are not UTF-8": ("TOKEN_MALFORMED", _raw_claims(b'{"iss": "\xff"}')),
    "claims with half a surrogate pair": ("TOKEN_MALFORMED", _written(good_claims(), b', "x": "\\ud800"}')),
    "claims and more": ("TOKEN_MALFORMED", _written(good_claims(), b"} {}")),
    "claims nested 10,000 deep": ("TOKEN_MALFORMED", _raw_claims(b'{"x":' + b"[" * 10_000)),
    "a header nested 2,000 deep": ("TOKEN_MALFORMED", lambda: ES.sign(encoded(b"[" * 2000), encoded(good_claims()))),
    "a number of 5,000 digits": ("TOKEN_MALFORMED", _written(good_claims(), b', "n": ' + b"9" * 5000 + b"}")),
    "not a number": ("TOKEN_MALFORMED", _written(good_claims(), b', "n": NaN}')),
    "a claim twice": ("TOKEN_MALFORMED", _written(good_claims(), b', "tenant_id": "Tenant-B"}')),
    "a claim twice, once in escapes": (
        "TOKEN_MALFORMED",
        _written(good_claims(), rb', "\u0074enant_id": "Tenant-B"}'),
    ),
    "a claim twice, further in": (
        "TOKEN_MALFORMED",
        _written(without("act"), b', "act": {"sub": "agent:order-bot", "sub": "agent:report-bot"}}'),
    ),
    "an algorithm twice": (
        "TOKEN_MALFORMED",
        lambda: ES.sign(encoded(b'{"alg": "none", "alg": "ES256", "kid": "ES256"}'), encoded(good_claims())),
    ),
    # what the header asks for
    "unknown extensions": ("TOKEN_HEADER", _header(crit=["exp"])),
    "a known extension": ("TOKEN_HEADER", _header(crit=["b64"], b64=False)),
    "no extensions": ("TOKEN_HEADER", _header(crit=[])),
    "claims that are not encoded": ("TOKEN_HEADER", _header(b64=True)),
    "compressed": ("TOKEN_HEADER", _header(zip="DEF")),
    "its own key": ("TOKEN_HEADER", lambda: FOREIGN.token(jwk=FOREIGN.jwk())),
    "its own key under a known name": ("TOKEN_HEADER", lambda: FOREIGN.token(kid=ES.id, jwk=FOREIGN.jwk())),
    "an address of keys": ("TOKEN_HEADER", lambda: FOREIGN.token(jku="https://attacker.example/keys")),
    "an address of certificates": ("TOKEN_HEADER", lambda: FOREIGN.token(x5u="https://attacker.example/chain")),
    "a logout token": ("TOKEN_HEADER", _header(typ="logout+jwt")),
    "a proof of possession": ("TOKEN_HEADER", _header(typ="dpop+jwt")),
    "a type that is no text": ("TOKEN_HEADER", _header(typ=["JWT"])),
    "a key's name that is no text": ("TOKEN_HEADER", _header(kid=["ES256"])),
    "a key's name that is null": ("TOKEN_HEADER", _header(kid=None)),
    "a key's name with a zero byte": ("TOKEN_HEADER", _header(kid="ES256\0")),
    "a key's name that is long": ("TOKEN_HEADER", _header(kid="x" * 257)),
    # how it is signed
    "no algorithm": ("TOKEN_ALGORITHM", lambda: ES.sign(encoded({"kid": ES.id}), encoded(good_claims()))),
    "an algorithm in a list": ("TOKEN_ALGORITHM", _header(alg=["ES256"])),
    **{
        f"not signed, {spelling!r}": ("TOKEN_ALGORITHM", _unsigned(spelling))
        for spelling in ("none", "None", "NONE", "nOnE", "", None, "none ")
    },
    "not signed, and a signature": ("TOKEN_ALGORITHM", _header(alg="none")),
    "signed with the public key's PEM": ("TOKEN_ALGORITHM", lambda: shared_secret_token(_public_pem(), kid="RS256")),
    "signed with the public key's JWK": (
        "TOKEN_ALGORITHM",
        lambda: shared_secret_token(encoded(RS.jwk()).encode(), kid="RS256"),
    ),
    "signed with a secret that is listed": ("TOKEN_ALGORITHM", lambda: shared_secret_token(SECRET, kid="shared")),
    "another algorithm in its name": ("TOKEN_ALGORITHM", _header(alg="RS256")),
    "the algorithm in small letters": ("TOKEN_ALGORITHM", _header(alg="es256")),
    "an algorithm that the key is not for": ("TOKEN_ALGORITHM", lambda: RS.token(alg="PS256")),
    "an algorithm that is not listed": ("TOKEN_ALGORITHM", lambda: RS.token(alg="RS512")),
    # with which key
    "a key on the disk": ("TOKEN_KEY_UNKNOWN", _header(kid="../../../../dev/null")),
    "a key in a database": ("TOKEN_KEY_UNKNOWN", _header(kid="x' UNION SELECT 'AA'--")),
    "a key in a command": ("TOKEN_KEY_UNKNOWN", _header(kid="|/bin/true")),
    "a key's name in other letters": ("TOKEN_KEY_UNKNOWN", _header(kid="es256")),
    "a key's name that is empty": ("TOKEN_KEY_UNKNOWN", _header(kid="")),
    "no key's name, where several keys fit": (
        "TOKEN_KEY_UNKNOWN",
        lambda: RS.sign(encoded({"alg": "PS256"}), encoded(good_claims())),
    ),
    "a key that is weak": ("TOKEN_KEY_UNKNOWN", WEAK.token),
    "a key whose private part is listed": ("TOKEN_KEY_UNKNOWN", LEAKED.token),
    "a key for encryption": ("TOKEN_KEY_UNKNOWN", FOR_ENCRYPTION.token),
    "a key on another curve": ("TOKEN_KEY_UNKNOWN", lambda: OTHER_CURVE.token(alg="ES256")),
    "the first of two keys with one name": ("TOKEN_KEY_UNKNOWN", lambda: TWICE[0].token(kid="twice")),
    "the second of two keys with one name": ("TOKEN_KEY_UNKNOWN", lambda: TWICE[1].token(kid="twice")),
    "a shared secret's name": ("TOKEN_KEY_UNKNOWN", _header(kid="shared")),
    "another issuer's key": ("TOKEN_KEY_UNKNOWN", OF_TENANT_B.token),
    "a foreign key under a known name": ("TOKEN_SIGNATURE", lambda: FOREIGN.token(kid=ES.id)),
    "another issuer's key under a known name": ("TOKEN_SIGNATURE", lambda: OF_TENANT_B.token(kid=ES.id)),
    # the signature
    "no signature": ("TOKEN_SIGNATURE", _parts(lambda h, c, _: f"{h}.{c}.")),
    "a signature of zeros": ("TOKEN_SIGNATURE", _parts(lambda h, c, _: f"{h}.{c}.{base64url(bytes(64))}")),
    "a signature in DER": ("TOKEN_SIGNATURE", _der_signed),
    "a signature of zeros in DER": (
        "TOKEN_SIGNATURE",
        _parts(lambda h, c, _: f"{h}.{c}.{base64url(encode_dss_signature(0, 0))}"),
    ),
    "half a signature": ("TOKEN_SIGNATURE", _parts(lambda h, c, s: f"{h}.{c}.{s[:40]}")),
    "a longer signature": ("TOKEN_SIGNATURE", _parts(lambda h, c, s: f"{h}.{c}.{s[:84]}AAAA{s[84:]}")),
    "another signature": ("TOKEN_SIGNATURE", _parts(_with_a_flipped_bit)),
    "other claims than were signed": (
        "TOKEN_SIGNATURE",
        _parts(lambda h, _, s: f"{h}.{encoded(good_claims(tenant_id='Tenant-B'))}.{s}"),
    ),
    "another header than was signed": (
        "TOKEN_SIGNATURE",
        _parts(lambda _, c, s: f"{encoded({'alg': 'ES256', 'kid': ES.id})}.{c}.{s}"),
    ),
    "a short RSA signature": ("TOKEN_SIGNATURE", lambda: RS.token().rpartition(".")[0] + ".AQ"),
    # whom it is from and for
    "another issuer": ("TOKEN_ISSUER", _claims(iss="https://attacker.example")),
    "no issuer": ("TOKEN_ISSUER", lambda: ES.token(without("iss"))),
    "the issuer and a slash": ("TOKEN_ISSUER", _claims(iss=ISSUER + "/")),
    "the issuer in other letters": ("TOKEN_ISSUER", _claims(iss=ISSUER.upper())),
    "the issuer in a list": ("TOKEN_ISSUER", _claims(iss=[ISSUER])),
    "the issuer in an object": ("TOKEN_ISSUER", _claims(iss={ISSUER: ISSUER})),
    "another audience": ("TOKEN_AUDIENCE", _claims(aud="elsewhere")),
    "no audience": ("TOKEN_AUDIENCE", lambda: ES.token(without("aud"))),
    "an empty list of audiences": ("TOKEN_AUDIENCE", _claims(aud=[])),
    "a part of the audience": ("TOKEN_AUDIENCE", _claims(aud="tenantgat")),
    "the audience with more behind": ("TOKEN_AUDIENCE", _claims(aud="tenantgate.attacker.example")),
    "an audience that is an object": ("TOKEN_CLAIMS", _claims(aud={"tenantgate": True})),
    "an audience that is null": ("TOKEN_CLAIMS", _claims(aud=None)),
    "audiences that are no texts": ("TOKEN_CLAIMS", _claims(aud=["tenantgate", 1])),
    "audiences in a list in a list": ("TOKEN_CLAIMS", _claims(aud=[["tenantgate"]])),
    "a thousand audiences": ("TOKEN_CLAIMS", _claims(aud=["tenantgate", *map(str, range(1000))])),
    # when
    "ended": ("TOKEN_EXPIRED", lambda: ES.token(good_claims(exp=time.time() - SKEW - 1))),
    "ended in 1970": ("TOKEN_EXPIRED", _claims(exp=0)),
    "no end": ("TOKEN_CLAIMS", lambda: ES.token(without("exp"))),
    "an end that is null": ("TOKEN_CLAIMS", _claims(exp=None)),
    "an end in a text": ("TOKEN_CLAIMS", lambda: ES.token(good_claims(exp=str(int(time.time()) + 60)))),
    "an end that is true": ("TOKEN_CLAIMS", _claims(exp=True)),
    "an end in a list": ("TOKEN_CLAIMS", lambda: ES.token(good_claims(exp=[time.time() + 60]))),
    "an end before time began": ("TOKEN_CLAIMS", _claims(exp=-1)),
    "an end after all time": ("TOKEN_CLAIMS", _claims(exp=10**4000)),
    "an end that is infinite": ("TOKEN_MALFORMED", _written(without("exp"), b', "exp": 1e999}')),
    "an end that is Infinity": ("TOKEN_MALFORMED", _written(without("exp"), b', "exp": Infinity}')),
    "begins in an hour": ("TOKEN_NOT_YET_VALID", lambda: ES.token(good_claims(nbf=time.time() + 3600))),
    "issued in an hour": ("TOKEN_NOT_YET_VALID", lambda: ES.token(good_claims(iat=time.time() + 3600))),
    "begins just after the skew": ("TOKEN_NOT_YET_VALID", lambda: ES.token(good_claims(nbf=time.time() + SKEW + 20))),
    "a beginning in a text": ("TOKEN_CLAIMS", _claims(nbf="0")),
    "an issue that is true": ("TOKEN_CLAIMS", _claims(iat=True)),
    "lasts for years": ("TOKEN_LIFETIME", lambda: ES.token(good_claims(exp=time.time() + 1e8))),
    "lasts for years, from nobody knows when": (
        "TOKEN_LIFETIME",
        lambda: ES.token(without("iat") | {"exp": time.time() + 1e8}),
    ),
    "issued years ago": ("TOKEN_LIFETIME", _claims(iat=1)),
    # which tenant
    "no tenant": ("TOKEN_CLAIMS", lambda: ES.token(without("tenant_id"))),
    "a tenant that is null": ("TOKEN_CLAIMS", _claims(tenant_id=None)),
    "a tenant that is empty": ("TOKEN_CLAIMS", _claims(tenant_id="")),
    "tenants in a list": ("TOKEN_CLAIMS", _claims(tenant_id=["Tenant-A", "Tenant-B"])),
    "a tenant in a list": ("TOKEN_CLAIMS", _claims(tenant_id=["Tenant-A"])),
    "a tenant that is a number": ("TOKEN_CLAIMS", _claims(tenant_id=1)),
    "a tenant that is true": ("TOKEN_CLAIMS", _claims(tenant_id=True)),
    "a tenant in an object": ("TOKEN_CLAIMS", _claims(tenant_id={"id": "Tenant-A"})),
    "a tenant with a space of no width": ("TOKEN_CLAIMS", _claims(tenant_id="Tenant\u200b-A")),
    "a tenant written from the right": ("TOKEN_CLAIMS", _claims(tenant_id="\u202eA-tnaneT")),
    "a tenant with a zero byte": ("TOKEN_CLAIMS", _claims(tenant_id="Tenant-A\0")),
    "a tenant with a line break": ("TOKEN_CLAIMS", _claims(tenant_id="Tenant-A\nTenant-B")),
    "a tenant that is long": ("TOKEN_CLAIMS", _claims(tenant_id="x" * 513)),
    "a tenant that looks alike": ("DENY TENANT_UNKNOWN", _claims(tenant_id="\u0422enant-A")),
    "a tenant in wide letters": ("DENY TENANT_UNKNOWN", _claims(tenant_id="Tenant\uff0dA")),
    "a tenant with an accent beside": ("DENY TENANT_UNKNOWN", _claims(tenant_id="Tenant-A\u0301")),
    "a tenant in other letters": ("DENY TENANT_UNKNOWN", _claims(tenant_id="tenant-a")),
    "a tenant and a space": ("DENY TENANT_UNKNOWN", _claims(tenant_id="Tenant-A ")),
    "all tenants": ("DENY TENANT_UNKNOWN", _claims(tenant_id="*")),
    "a suspended tenant": ("DENY TENANT_SUSPENDED", _claims(tenant_id="Tenant-C")),
    "an issuer that does not speak for the tenant": (
        "TOKEN_TENANT",
        lambda: OF_TENANT_B.token(good_claims(iss=TENANT_B_ISSUER)),
    ),
    # who acts for whom
    "a user that is a number": ("TOKEN_CLAIMS", _claims(sub=1)),
    "a user that is empty": ("TOKEN_CLAIMS", _claims(sub="")),
    "a user with a space of no width": ("TOKEN_CLAIMS", _claims(sub="alice\u200b")),
    "a user that is not a member": ("DENY SUBJECT_NOT_MEMBER", _claims(sub="mallory")),
    "no user": ("DENY SUBJECT_NOT_MEMBER", lambda: ES.token(without("sub"))),
    "nobody acts": ("DENY IMPERSONATION", lambda: ES.token(without("act"))),
    "the user acts as itself": ("DENY IMPERSONATION", _claims(act={"sub": "alice"})),
    "the user is its own client": ("DENY IMPERSONATION", lambda: ES.token(without("act") | {"client_id": "alice"})),
    "the agent is the user": ("DENY IMPERSONATION", _claims(sub="agent:order-bot")),
    "an actor that is null": ("TOKEN_CLAIMS", _claims(act=None)),
    "an actor in a text": ("TOKEN_CLAIMS", _claims(act="agent:order-bot")),
    "actors in a list": ("TOKEN_CLAIMS", _claims(act=[{"sub": "agent:order-bot"}])),
    "an actor without a name": ("TOKEN_CLAIMS", _claims(act={})),
    "an actor whose name is empty": ("TOKEN_CLAIMS", _claims(act={"sub": ""})),
    "an actor whose name is a list": ("TOKEN_CLAIMS", _claims(act={"sub": ["agent:order-bot"]})),
    "an earlier actor without a name": ("TOKEN_CLAIMS", _claims(act={"sub": "agent:order-bot", "act": {}})),
    "an earlier actor that is null": ("TOKEN_CLAIMS", _claims(act={"sub": "agent:order-bot", "act": None})),
    "an actor that is no agent of the tenant": ("DENY DELEGATION_INVALID", _claims(act={"sub": "agent:evil-bot"})),
    "an earlier actor that is none": (
        "DENY DELEGATION_INVALID",
        _claims(act={"sub": "agent:order-bot", "act": {"sub": "agent:evil-bot"}}),
    ),
    "a suspended actor": ("DENY DELEGATION_INVALID", _claims(act={"sub": "agent:old-bot"})),
    "50 earlier actors": ("DENY DELEGATION_INVALID", _claims(act=_nested_act(50))),
    "300 earlier actors": ("TOKEN_CLAIMS", _claims(act=_nested_act(300, "a"))),
    # what for
    "scopes that are a number": ("TOKEN_CLAIMS", _claims(scope=1)),
    "scopes that are no texts": ("TOKEN_CLAIMS", _claims(scope=["tools:read", {}])),
    "a thousand scopes": ("TOKEN_CLAIMS", _claims(scope=" ".join(map(str, range(1000))))),
    "no scopes": ("DENY SCOPE_INSUFFICIENT", lambda: ES.token(without("scope"))),
    "the actor was given fewer scopes": (
        "DENY SCOPE_INSUFFICIENT",
        _claims(act={"sub": "agent:order-bot", "scope": "profile"}),
    ),
    "roles in a text": ("TOKEN_CLAIMS", _claims(roles="support")),
    "roles that are no texts": ("TOKEN_CLAIMS", _claims(roles=[["support"]])),
    "who may act in a text": ("TOKEN_CLAIMS", _claims(may_act="agent:order-bot")),
    "who may act without a name": ("TOKEN_CLAIMS", _claims(may_act={})),
    "an id that is a number": ("TOKEN_CLAIMS", _claims(jti=1)),
    "an id with a line break": ("TOKEN_CLAIMS", _claims(jti="a\nb")),
}


@pytest.mark.parametrize(("expected", "make"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_token_is_refused_or_denied(sidecar: grpc.Channel, expected: str, make: Callable[[], str]) -> None:
    token = make()
    if expected.startswith("DENY"):
        decision = ask(sidecar, token)
        assert decision.effect == decision_pb2.EFFECT_DENY
        assert code(decision) == expected.removeprefix("DENY ")
    else:
        error = wire.failure(lambda: ask(sidecar, token))
        assert wire.outcome(error) == UNAUTHENTICATED
        assert token_reason(error) == expected


def test_every_reason_is_told_of_some_hostile_token() -> None:
    documented = {line.split()[0] for line in (tokens.__doc__ or "").splitlines() if line.startswith("    TOKEN_")}

    told = {expected for expected, _ in HOSTILE.values() if expected.startswith("TOKEN_")}

    assert told | {"TOKEN_KEYS_UNAVAILABLE"} == documented


REFUSED = {name: make for name, (expected, make) in HOSTILE.items() if expected.startswith("TOKEN")}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_neither_the_answer_nor_the_log_holds_anything_of_the_token(
    sidecar: grpc.Channel, make: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    token = make()

    with caplog.at_level("DEBUG"):
        error = wire.failure(lambda: ask(sidecar, token))

    assert error.details()
    assert [part for part in token.split(".") if len(part) > 8 and part in f"{error.details()} {caplog.text}"] == []


def test_a_token_that_was_believed_is_not_in_the_log(sidecar: grpc.Channel, caplog: pytest.LogCaptureFixture) -> None:
    token = ES.token()

    with caplog.at_level("DEBUG"):
        ask(sidecar, token)

    assert "ALLOWED" in caplog.text
    assert [part for part in token.split(".") if part in caplog.text] == []


_METADATA: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "nothing": ("TOKEN_MISSING", []),
    "an empty value": ("TOKEN_MISSING", [("authorization", "")]),
    "a scheme alone": ("TOKEN_MISSING", [("authorization", "Bearer")]),
    "a password": ("TOKEN_MISSING", [("authorization", "Basic YWxpY2U6c2VjcmV0")]),
    "a token without a scheme": ("TOKEN_MISSING", [("authorization", ES.token())]),
    "a token under another name": ("TOKEN_MISSING", [("x-authorization", f"Bearer {ES.token()}")]),
    "a token that proves possession": ("TOKEN_MISSING", [("authorization", f"DPoP {ES.token()}")]),
    "two tokens": ("TOKEN_MALFORMED", [("authorization", f"Bearer {ES.token()}")] * 2),
    "two schemes": ("TOKEN_MALFORMED", [("authorization", f"Bearer Bearer {ES.token()}")]),
    "a token and a password": (
        "TOKEN_MALFORMED",
        [("authorization", f"Bearer {ES.token()}"), ("authorization", "Basic YWxpY2U6c2VjcmV0")],
    ),
}


@pytest.mark.parametrize(("expected", "metadata"), _METADATA.values(), ids=_METADATA)
def test_metadata_without_just_one_token_are_no_proof(
    sidecar: grpc.Channel, expected: str, metadata: list[tuple[str, str]]
) -> None:
    error = wire.failure(lambda: wire.authorize(sidecar, metadata=metadata))

    assert (wire.outcome(error), token_reason(error)) == (UNAUTHENTICATED, expected)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Authorize", wire.question()),
        ("BatchAuthorize", wire.batch(ORDER_LOOKUP)),
        ("FilterTools", wire.tools(ORDER_LOOKUP)),
    ],
)
def test_no_method_answers_without_a_token(sidecar: grpc.Channel, method: str, request_: Any) -> None:
    error = wire.failure(lambda: getattr(AuthorizationServiceStub(sidecar), method)(request_, timeout=DEADLINE))

    assert (wire.outcome(error), token_reason(error)) == (UNAUTHENTICATED, "TOKEN_MISSING")


# ── what the request states besides ─────────────────────────────────────────────────────────────────────────────────────


def _stated(**fields: Any) -> decision_pb2.Identity:
    return decision_pb2.Identity(**fields)


AGREES: dict[str, decision_pb2.Identity] = {
    "nothing": _stated(),
    "the tenant": _stated(tenant_id="Tenant-A"),
    "everything": wire.identity(),
    "scopes in another order": _stated(scopes=["tools:write", "tools:read", "tools:read"]),
    "properties of its own": _stated(subject=decision_pb2.Subject(properties={"channel": "chat"})),
}


@pytest.mark.parametrize("identity", AGREES.values(), ids=AGREES)
def test_a_request_may_repeat_what_the_token_says(sidecar: grpc.Channel, identity: decision_pb2.Identity) -> None:
    assert code(ask(sidecar, ES.token(), identity)) == "ALLOWED"


DIFFERS: dict[str, decision_pb2.Identity] = {
    "identity.principal.id": _stated(principal=decision_pb2.Principal(id="agent:report-bot")),
    "identity.subject.id": _stated(subject=decision_pb2.Subject(id="bob")),
    "identity.subject.roles": _stated(subject=decision_pb2.Subject(roles=["admin"])),
    "identity.scopes": _stated(scopes=["tools:read", "tools:write", "admin"]),
    "identity.delegation": _stated(delegation=[decision_pb2.Actor(id="agent:report-bot")]),
}


@pytest.mark.parametrize(("field", "identity"), DIFFERS.items(), ids=DIFFERS)
def test_a_request_that_states_something_else_than_the_token_is_invalid(
    sidecar: grpc.Channel, field: str, identity: decision_pb2.Identity
) -> None:
    error = wire.failure(lambda: ask(sidecar, ES.token(), identity))

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert wire.wrong_fields(error) == [field]


def test_fewer_scopes_than_the_token_has_are_not_what_it_says(sidecar: grpc.Channel) -> None:
    error = wire.failure(lambda: ask(sidecar, ES.token(), _stated(scopes=["tools:read"])))

    assert wire.wrong_fields(error) == ["identity.scopes"]


@pytest.mark.parametrize("tenant", ["Tenant-B", "Tenant-Z", "tenant-a", "Tenant-A "])
def test_another_tenant_in_the_request_denies(sidecar: grpc.Channel, tenant: str) -> None:
    assert code(ask(sidecar, ES.token(), _stated(tenant_id=tenant))) == "TENANT_MISMATCH"


@pytest.mark.parametrize("header", ["x-tenant-id", "x-amzn-bedrock-agentcore-runtime-custom-tenantid"])
def test_another_tenant_in_a_header_denies(sidecar: grpc.Channel, header: str) -> None:
    assert code(ask(sidecar, ES.token(), None, (header, "Tenant-B"))) == "TENANT_MISMATCH"
    assert code(ask(sidecar, ES.token(), None, (header, "Tenant-A"))) == "ALLOWED"


@pytest.mark.parametrize("tenant", ["Tenant-A\u200b", "Tenant-A\0", "x" * 513])
def test_an_ill_formed_tenant_in_the_request_is_invalid(sidecar: grpc.Channel, tenant: str) -> None:
    error = wire.failure(lambda: ask(sidecar, ES.token(), _stated(tenant_id=tenant)))

    assert wire.wrong_fields(error) == ["identity.tenant_id"]


def test_an_issuer_of_one_tenant_speaks_for_that_tenant(sidecar: grpc.Channel) -> None:
    claims = good_claims(iss=TENANT_B_ISSUER, tenant_id="Tenant-B")

    # Tenant-B has no rule for this tool; what counts is that it was asked
    assert code(ask(sidecar, OF_TENANT_B.token(claims))) in {"ALLOWED", "NO_MATCHING_RULE"}


# ── the keys of issuers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_that_is_taken_away_proves_nothing_any_more(sample_bundle: Path, short_path: Path) -> None:
    keys = write_keys(short_path / "keys.json", ES.jwk())
    settings = sidecar_settings(
        short_path, sample_bundle, identity__mode="verified", identity__issuers=[issuer_settings(keys)]
    )
    token = ES.token()
    with running_sidecar(settings) as (_, channel):
        before = code(ask(channel, token))
        write_keys(keys, RS.jwk())
        wait_until(lambda: refused(channel, token))
        error = wire.failure(lambda: ask(channel, token))
        other = code(ask(channel, RS.token()))

    assert (before, token_reason(error), other) == ("ALLOWED", "TOKEN_KEY_UNKNOWN", "ALLOWED")


def refused(channel: grpc.Channel, token: str) -> bool:
    """Tell whether a token is refused."""
    try:
        ask(channel, token)
    except grpc.RpcError:
        return True
    return False


def test_a_sidecar_without_issuers_does_not_start(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, identity__mode="verified")

    with pytest.raises(StartError, match=r"identity\.issuers: name whose tokens are to be believed"):
        Sidecar(settings).start()


@pytest.mark.parametrize(
    ("jwks", "fault"),
    [
        ("nowhere.json", r"nowhere\.json: no such file"),
        ("http://issuer.example/keys", "https:// alone"),
        ("ftp://issuer.example/keys", "https:// alone"),
    ],
)
def test_a_sidecar_whose_issuers_cannot_be_asked_does_not_start(
    sample_bundle: Path, short_path: Path, jwks: str, fault: str
) -> None:
    issuers = [issuer_settings(jwks)]
    settings = sidecar_settings(short_path, sample_bundle, identity__mode="verified", identity__issuers=issuers)

    with pytest.raises(SettingsError, match=rf"identity\.issuers: .*{fault}"):
        Sidecar(settings).start()


def test_a_token_of_the_development_issuer_is_believed(sample_bundle: Path, short_path: Path) -> None:
    issuer = DevelopmentIssuer(short_path / "issuer")
    settings = sidecar_settings(
        short_path, sample_bundle, identity__mode="verified", identity__issuers=[issuer.settings()]
    )
    with running_sidecar(settings) as (_, channel):
        decision = ask(channel, issuer.mint("Tenant-A", "alice", "agent:order-bot", scopes=["tools:read"]))

    assert code(decision) == "ALLOWED"
