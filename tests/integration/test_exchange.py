"""Tokens for credentials: over the wire, from a sidecar with a real OPA, and an STS that remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from werkzeug.wrappers import Response

from sidecar.credentials.sts import SOURCE_IDENTITY_CLAIM, TAGS_CLAIM
from sidecar.gen.tenantgate.v1 import credential_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.credential_service_pb2_grpc import CredentialServiceStub
from tests.support import wire
from tests.support.exchanges import LONG, MEMORY, OTHER_MEMORY, READ_MEMORY, exchanging, rfc3339
from tests.support.sts import ASSUMED_ROLE, ENVIRONMENT, ROLE, caller, given, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.exchanges import Exchanging
    from tests.support.sts import StsRequest


@pytest.fixture(scope="module")
def parts() -> Iterator[Exchanging]:
    with exchanging() as made:
        yield made


@pytest.fixture
def ready(parts: Exchanging, monkeypatch: pytest.MonkeyPatch) -> Exchanging:
    """All but the sidecar: the registry allows to read memories and nothing else, and STS has been asked for nothing."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    parts.reset()
    return parts


@pytest.fixture
def world(ready: Exchanging) -> Iterator[Exchanging]:
    """A sidecar that exchanges tokens."""
    with ready.running():
        yield ready


# ── what reaches STS, and what comes of it ──────────────────────────────────────────────────────────────────────────────


def test_an_allow_asks_sts_for_what_was_promised_and_for_nothing_else(world: Exchanging) -> None:
    before = int(time.time())
    answer = world.call()
    request = world.sts.only_request
    policy = request.parameters.pop("Policy")

    assert request.signed
    assert request.parameters == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": answer.decision.decision_id,
        "SourceIdentity": "alice",
        "Tags.member.1.Key": "TenantID",
        "Tags.member.1.Value": "acme",
        "TransitiveTagKeys.member.1": "TenantID",
        "DurationSeconds": "3600",
    }
    end = answer.credentials.expiration.seconds
    assert before + 3599 <= end <= time.time() + 3600
    assert json.loads(policy)["Statement"] == [
        {
            "Effect": "Allow",
            "Action": [
                "bedrock-agentcore:GetEvent",
                "bedrock-agentcore:GetMemoryRecord",
                "bedrock-agentcore:ListActors",
                "bedrock-agentcore:ListEvents",
                "bedrock-agentcore:ListMemoryRecords",
                "bedrock-agentcore:ListSessions",
                "bedrock-agentcore:RetrieveMemoryRecords",
            ],
            "Resource": [f"arn:aws:bedrock-agentcore:eu-west-1:123456789012:memory/{MEMORY}"],
            "Condition": {
                "StringEquals": {"aws:ResourceTag/TenantID": ["acme"]},
                "DateLessThan": {"aws:CurrentTime": [rfc3339(end)]},
            },
        }
    ]


def test_the_credentials_are_those_of_a_session_that_is_named_by_the_decision(world: Exchanging) -> None:
    answer = world.call()
    credentials = answer.credentials
    client = boto3.client(
        "sts",
        endpoint_url=world.sts.url,
        region_name="eu-west-1",
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token,
    )
    try:
        arn = client.get_caller_identity()["Arn"]
    finally:
        client.close()

    assert arn == f"{ASSUMED_ROLE}/{answer.decision.decision_id}"
    assert (credentials.assumed_role_arn, credentials.session_name) == (arn, answer.decision.decision_id)
    assert decision_pb2.Effect.Name(answer.decision.effect) == "EFFECT_ALLOW"
    assert answer.decision.rule_id == "read-memory"


# ── DENY ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

_DENIED: dict[str, tuple[str, Callable[[Exchanging], pb.ExchangeTokenResponse]]] = {
    "no rule": ("NO_MATCHING_RULE", lambda world: world.call(action="write")),
    "another resource": ("NO_MATCHING_RULE", lambda world: world.call(resource_type="KNOWLEDGE_BASE")),
    "another tenant in a header": ("TENANT_MISMATCH", lambda world: world.call(metadata=(("x-tenant-id", "globex"),))),
    "an unknown tenant": ("TENANT_UNKNOWN", lambda world: world.call(world.token("initech"))),
    "no agent": ("IMPERSONATION", lambda world: world.call(world.issuer.mint("acme", "alice"))),
    "a type that has no credentials": ("NO_MATCHING_RULE", lambda world: world.call(resource_type="TOOL")),
    "a tenant that STS could not carry": (
        "NO_MATCHING_RULE",
        lambda world: world.call(world.token("x" * 257), action="write"),
    ),
}


@pytest.mark.parametrize(("code", "call"), _DENIED.values(), ids=_DENIED)
def test_a_deny_asks_sts_for_nothing_and_gives_nothing(
    world: Exchanging, code: str, call: Callable[[Exchanging], pb.ExchangeTokenResponse]
) -> None:
    answer = call(world)

    assert decision_pb2.DecisionCode.Name(answer.decision.code) == f"DECISION_CODE_{code}"
    assert not answer.HasField("credentials")
    assert world.sts.requests == []


def test_a_deny_where_credentials_are_remembered_gives_nothing(world: Exchanging) -> None:
    world.call()
    world.rules()

    assert not world.call().HasField("credentials")
    assert len(world.sts.requests) == 1


def test_what_was_remembered_is_forgotten_with_a_deny(world: Exchanging) -> None:
    first = world.call().credentials
    world.rules()
    world.call()
    world.rules(READ_MEMORY)
    second = world.call().credentials

    assert first.session_name != second.session_name
    assert len(world.sts.requests) == 2


# ── remembered ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_credentials_are_given_out_again_under_the_decision_that_made_them(world: Exchanging) -> None:
    first, second = world.call(), world.call()

    assert first.credentials == second.credentials
    assert second.credentials.session_name == first.decision.decision_id != second.decision.decision_id
    assert len(world.sts.requests) == 1


def test_a_new_revision_that_decides_alike_does_not_ask_sts_anew(world: Exchanging) -> None:
    first = world.call()
    world.rules(READ_MEMORY)
    second = world.call()

    assert first.decision.revision != second.decision.revision
    assert first.credentials == second.credentials


_OTHERS: dict[str, Callable[[Exchanging], pb.ExchangeTokenResponse]] = {
    "another tenant": lambda world: world.call(world.token("globex")),
    "another user": lambda world: world.call(world.token(subject="bob")),
    "another agent": lambda world: world.call(
        world.issuer.mint("acme", "alice", "agent:other", scopes=("tools:read",))
    ),
    "another earlier agent": lambda world: world.call(world.token(delegation=("agent:planner",))),
    "another role": lambda world: world.call(world.token(roles=("support",))),
    "another scope": lambda world: world.call(world.issuer.mint("acme", "alice", "agent:order-bot")),
    "another resource": lambda world: world.call(resource_id=OTHER_MEMORY),
    "a shorter time": lambda world: world.call(seconds=900),
    "a token that ends sooner": lambda world: world.call(world.token(lifetime=1800)),
}


@pytest.mark.parametrize("call", _OTHERS.values(), ids=_OTHERS)
def test_nobody_gets_the_credentials_of_others(
    world: Exchanging, call: Callable[[Exchanging], pb.ExchangeTokenResponse]
) -> None:
    first = world.call().credentials
    second = call(world).credentials

    assert second.session_token not in {"", first.session_token}
    assert len(world.sts.requests) == 2


def test_another_rule_that_allows_makes_new_credentials(world: Exchanging) -> None:
    first = world.call().credentials
    world.rules({**READ_MEMORY, "ruleId": "read-it-otherwise"})

    assert world.call().credentials.session_name != first.session_name


def test_many_who_ask_at_a_time_are_answered_by_one_call_of_sts(world: Exchanging) -> None:
    token = world.token()
    world.sts.gate.clear()
    together = threading.Barrier(6)

    def ask() -> pb.ExchangeTokenResponse:
        together.wait(LONG)
        return world.call(token)

    with ThreadPoolExecutor(6) as threads:
        callers = [threads.submit(ask) for _ in range(6)]
        world.sts.wait_for_arrival()
        # One who comes later and cannot wait is told so, and does not ask STS either.
        assert world.failure(token, timeout=0.3)[0] == "DEADLINE_EXCEEDED"
        world.sts.gate.set()
        names = {caller.result(LONG).credentials.session_name for caller in callers}

    assert names == {world.sts.only_request.parameters["RoleSessionName"]}


# ── how long they last ──────────────────────────────────────────────────────────────────────────────────────────────────


def _ends(request: StsRequest) -> str:
    (statement,) = request.policy["Statement"]
    end: str = statement["Condition"]["DateLessThan"]["aws:CurrentTime"][0]
    return end


def test_credentials_end_with_the_token(world: Exchanging) -> None:
    end = int(time.time()) + 1200
    answer = world.call(world.token(exp=end))

    assert answer.credentials.expiration.seconds == end
    assert _ends(world.sts.only_request) == rfc3339(end)
    assert 1190 <= int(world.sts.only_request.parameters["DurationSeconds"]) <= 1200


def test_credentials_end_with_the_decision(world: Exchanging) -> None:
    end = int(time.time()) + 1500
    world.rules({**READ_MEMORY, "notAfter": rfc3339(end)})

    assert world.call().credentials.expiration.seconds == end
    assert _ends(world.sts.only_request) == rfc3339(end)


def test_credentials_that_end_sooner_than_sts_lets_sessions_end_are_ended_by_their_policy(world: Exchanging) -> None:
    end = int(time.time()) + 120
    answer = world.call(world.token(exp=end))

    assert answer.credentials.expiration.seconds == end
    assert _ends(world.sts.only_request) == rfc3339(end)
    assert world.sts.only_request.parameters["DurationSeconds"] == "900"


def test_credentials_last_as_long_as_is_wanted(world: Exchanging) -> None:
    before = time.time()
    end = world.call(seconds=600).credentials.expiration.seconds

    assert before + 599 <= end <= time.time() + 600
    assert _ends(world.sts.only_request) == rfc3339(end)


def test_credentials_last_no_longer_than_the_setting_says(world: Exchanging) -> None:
    world.call(world.token(lifetime=9000), seconds=7200)

    assert world.sts.only_request.parameters["DurationSeconds"] == "3600"


def test_a_token_that_is_about_to_end_gives_no_credentials(world: Exchanging) -> None:
    status, reason, message = world.failure(world.token(exp=int(time.time()) + 59))

    assert (status, reason) == ("FAILED_PRECONDITION", "CREDENTIALS_UNAVAILABLE")
    assert message.startswith("the token ends in 5")
    assert message.endswith(" s, and credentials are given for at least 60 s")
    assert world.sts.requests == []


def test_a_decision_that_is_about_to_end_gives_no_credentials(world: Exchanging) -> None:
    world.rules({**READ_MEMORY, "notAfter": rfc3339(time.time() + 50)})

    assert "the decision ends in " in world.failure()[2]
    assert world.sts.requests == []


@pytest.mark.parametrize("seconds", [0, 59, -1])
def test_less_than_a_minute_cannot_be_asked_for(world: Exchanging, seconds: int) -> None:
    assert world.failure(seconds=seconds) == (
        "INVALID_ARGUMENT",
        "REQUEST_INVALID",
        f"duration: must be at least 60 s, is {seconds} s",
    )


@pytest.fixture
def long_lasting(ready: Exchanging) -> Iterator[Exchanging]:
    """A sidecar that gives credentials for two hours."""
    with ready.running(credentials__duration_seconds=7200):
        yield ready


def test_a_sidecar_that_is_a_user_can_give_more_than_an_hour(long_lasting: Exchanging) -> None:
    long_lasting.call(long_lasting.token(lifetime=9000))

    who, assume = long_lasting.sts.requests
    assert who.action == "GetCallerIdentity"
    assert assume.parameters["DurationSeconds"] == "7200"


def test_a_sidecar_that_is_a_role_gives_an_hour_and_finds_out_once(long_lasting: Exchanging) -> None:
    me = "arn:aws:sts::123456789012:assumed-role/sidecar/i-0123"
    long_lasting.sts.answer = lambda request: caller(me) if request.action == "GetCallerIdentity" else None
    token = long_lasting.token(lifetime=9000)
    end = long_lasting.call(token).credentials.expiration.seconds
    long_lasting.call(token, resource_id=OTHER_MEMORY)

    assert [request.action for request in long_lasting.sts.requests] == [
        "GetCallerIdentity",
        "AssumeRole",
        "AssumeRole",
    ]
    assume = long_lasting.sts.requests[1]
    assert assume.parameters["DurationSeconds"] == "3600"
    assert end <= time.time() + 3600
    assert _ends(assume) == rfc3339(end)


# ── what cannot be carried ──────────────────────────────────────────────────────────────────────────────────────────────

_NOT_CARRIED: dict[str, tuple[dict[str, str], str]] = {
    "a tenant with a bar": (
        {"tenant": "auth0|org"},
        "tenant 'auth0|org' cannot be an STS session tag: it has the character '|'",
    ),
    "a tenant with a space at its end": (
        {"tenant": "acme "},
        "tenant 'acme ' cannot be an STS session tag: it begins or ends",
    ),
    "a tenant that is too long": ({"tenant": "x" * 257}, "it has 257 characters, and at most 256 fit"),
    "a subject with a bar": (
        {"subject": "auth0|5f7c"},
        "subject 'auth0|5f7c' cannot be an STS SourceIdentity: it has the",
    ),
    "a subject with a space": ({"subject": "Alice Doe"}, "it has the character ' ' at position 6"),
    "a subject beyond ASCII": ({"subject": "zoë"}, r"it has the character '\xeb' at position 3"),
    "a subject that is too long": ({"subject": "a" * 65}, "it has 65 characters, and at most 64 fit"),
    "a subject that is too short": ({"subject": "a"}, "it has 1 characters, and at least 2 are needed"),
    "a subject of AWS": ({"subject": "aws:alice"}, "it has the character ':' at position 4"),
    "no subject": ({"subject": ""}, "it is empty: credentials are for an agent that acts for a user"),
}


@pytest.mark.parametrize(("said", "told"), _NOT_CARRIED.values(), ids=_NOT_CARRIED)
def test_who_asks_and_cannot_be_carried_by_sts_is_told_before_it_is_asked(
    world: Exchanging, said: dict[str, str], told: str
) -> None:
    status, reason, message = world.failure(world.token(**said))

    assert (status, reason) == ("FAILED_PRECONDITION", "CREDENTIALS_UNAVAILABLE")
    assert told in message
    assert world.sts.requests == []


def test_a_tenant_beyond_ascii_is_carried(world: Exchanging) -> None:
    world.call(world.token("büro 7"))

    assert world.sts.only_request.parameters["Tags.member.1.Value"] == "büro 7"


def test_a_resource_that_cannot_be_put_into_a_policy_is_refused_before_sts_is_asked(world: Exchanging) -> None:
    status, reason, message = world.failure(resource_id="acme-012345678?")

    assert (status, reason) == ("FAILED_PRECONDITION", "CREDENTIALS_UNAVAILABLE")
    assert "resource 'acme-012345678?' cannot be what credentials of type MEMORY are good for" in message
    assert world.sts.requests == []


def test_an_allow_for_which_there_are_no_statements_names_those_that_there_are(world: Exchanging) -> None:
    world.rules({"effect": "ALLOW", "resourceType": "MEMORY", "resources": ["*"]})

    assert world.failure(action="delete") == (
        "INVALID_ARGUMENT",
        "REQUEST_INVALID",
        "action.name: no credentials for 'delete' of MEMORY; there are some for read, write",
    )


def test_an_action_must_be_named(world: Exchanging) -> None:
    status, reason, message = world.failure(action="")

    assert (status, reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert message == "action.name: must not be empty: it says what the credentials are for, such as read"


def test_without_a_token_there_are_no_credentials(world: Exchanging) -> None:
    request = pb.ExchangeTokenRequest(
        identity=wire.identity("acme"),
        resource=wire.resource(MEMORY, "MEMORY"),
        action=decision_pb2.Action(name="read"),
    )
    error: Any = wire.failure(lambda: CredentialServiceStub(world.channel).ExchangeToken(request, timeout=LONG))

    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert world.sts.requests == []


# ── when STS fails ──────────────────────────────────────────────────────────────────────────────────────────────────────

_NOT_GIVEN = ("UNAVAILABLE", "CREDENTIALS_NOT_GIVEN", "STS cannot be reached, or refuses; no credentials were given")
_KEYS = {
    "AccessKeyId": "AKIAGIVEN",
    "SecretAccessKey": "given-secret",
    "SessionToken": "given-token",
    "Expiration": "2099-01-01T00:00:00Z",
}
_HTML = "<html><body>502 Bad Gateway</body></html>"
_FAULTS: dict[str, tuple[str, Callable[[], Response]]] = {
    "no access": (
        "STS refuses: AccessDenied: not yours; the role's trust",
        lambda: refusal("AccessDenied", "not yours", 403),
    ),
    "too long a session": (
        "STS refuses: ValidationError: ",
        lambda: refusal("ValidationError", "exceeds the MaxSessionDuration"),
    ),
    "an end of its own credentials": ("STS refuses: ExpiredToken: over", lambda: refusal("ExpiredToken", "over", 403)),
    "throttling": ("STS refuses: Throttling: slow down", lambda: refusal("Throttling", "slow down")),
    "a failure": ("STS refuses: InternalFailure: oh", lambda: refusal("InternalFailure", "oh", 500)),
    "a page of HTML": ("STS ", lambda: Response(_HTML, 502)),
    "a page of HTML with status 200": ("STS answered ", lambda: Response(_HTML)),
    "nothing": ("STS answered what is no answer of STS", lambda: Response("")),
    "JSON": ("STS answered what is no answer of STS", lambda: Response('{"AssumeRoleResponse": {}}')),
    "half of an answer": (
        "STS answered what is no answer of STS",
        lambda: Response(given(**_KEYS).get_data()[:-40], content_type="text/xml"),
    ),
    "an answer to another question": ("STS answered ", lambda: given("GetSessionToken", **_KEYS)),
    "no session token": (
        "STS answered without credentials: Object missing required field `SessionToken`",
        lambda: given(**{name: value for name, value in _KEYS.items() if name != "SessionToken"}),
    ),
    "an empty secret": (
        "STS answered without credentials: Expected",
        lambda: given(**{**_KEYS, "SecretAccessKey": ""}),
    ),
    "an end that is no time": ("STS answered ", lambda: given(**{**_KEYS, "Expiration": "soon"})),
    "an end that is past": (
        "is the clock of this machine right?",
        lambda: given(**{**_KEYS, "Expiration": "2020-01-01T00:00:00Z"}),
    ),
}


@pytest.mark.parametrize(("cause", "response"), _FAULTS.values(), ids=_FAULTS)
def test_an_sts_that_refuses_or_talks_nonsense_gives_no_credentials(
    world: Exchanging, caplog: pytest.LogCaptureFixture, cause: str, response: Callable[[], Response]
) -> None:
    world.sts.answer = lambda _request: response()

    assert world.failure() == _NOT_GIVEN
    assert cause in caplog.text
    assert not [secret for secret in ("given-secret", "given-token", "AKIAGIVEN") if secret in caplog.text]


def test_a_failure_is_not_remembered(world: Exchanging) -> None:
    world.sts.answer = lambda _request: refusal("AccessDenied", "not yours", 403)
    world.failure()
    world.sts.answer = lambda _request: None

    assert world.call().HasField("credentials")


def test_an_sts_that_fails_is_asked_twice_at_the_most(world: Exchanging) -> None:
    world.sts.answer = lambda _request: refusal("InternalFailure", "oh", 500)
    world.failure()

    assert len(world.sts.requests) == 2


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("PackedPolicyTooLarge", "shorten the resource's id, or the statements in credentials.templates"),
        ("MalformedPolicyDocument", "mend the statements in credentials.templates"),
    ],
)
def test_a_session_policy_that_sts_cannot_use_is_told_with_the_remedy(
    world: Exchanging, code: str, remedy: str
) -> None:
    world.sts.answer = lambda _request: refusal(code, "112 percent")

    assert world.failure() == (
        "FAILED_PRECONDITION",
        "CREDENTIALS_UNAVAILABLE",
        f"STS cannot use the session policy: {code}: 112 percent; {remedy}",
    )


def test_no_more_than_the_first_line_of_what_sts_says_is_logged(
    world: Exchanging, caplog: pytest.LogCaptureFixture
) -> None:
    message = "The signature does not match.\n\nx-amz-security-token:session-token-of-the-sidecar"
    world.sts.answer = lambda _request: refusal("SignatureDoesNotMatch", message, 403)

    assert world.failure() == _NOT_GIVEN
    assert "SignatureDoesNotMatch: The signature does not match." in caplog.text
    assert "session-token-of-the-sidecar" not in caplog.text


@pytest.fixture
def impatient(ready: Exchanging) -> Iterator[Exchanging]:
    """A sidecar that does not wait for STS."""
    with ready.running(credentials__timeout_seconds=0.2):
        yield ready


def test_an_sts_that_is_slow_gives_no_credentials(impatient: Exchanging, caplog: pytest.LogCaptureFixture) -> None:
    impatient.sts.gate.clear()

    assert impatient.failure() == _NOT_GIVEN
    assert "STS did not answer within 0.2 s" in caplog.text


def test_an_sts_that_is_gone_gives_no_credentials(ready: Exchanging, caplog: pytest.LogCaptureFixture) -> None:
    with ready.running(credentials__endpoint_url="http://127.0.0.1:1"):
        assert ready.failure() == _NOT_GIVEN
    assert 'STS was not reached: Could not connect to the endpoint URL: "http://127.0.0.1:1/"' in caplog.text


def test_a_sidecar_without_credentials_of_its_own_gives_none(
    ready: Exchanging, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with ready.running():
        assert ready.failure() == _NOT_GIVEN
    assert "STS was not reached: Unable to locate credentials" in caplog.text


# ── with the token itself ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def federated(ready: Exchanging, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanging]:
    """A sidecar that hands the token to STS, and has no AWS credentials of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with ready.running(credentials__method="web_identity"):
        yield ready


def _tagged(world: Exchanging, **claims: Any) -> str:
    tags = {"principal_tags": {"TenantID": ["acme"]}, "transitive_tag_keys": ["TenantID"]}
    return world.token(**({TAGS_CLAIM: tags} | claims))


def test_a_token_that_tags_its_session_is_handed_to_sts_unsigned(federated: Exchanging) -> None:
    token = _tagged(federated)
    answer = federated.call(token)
    request = federated.sts.only_request
    policy = json.loads(request.parameters.pop("Policy"))

    assert not request.signed
    assert request.parameters == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": answer.decision.decision_id,
        "WebIdentityToken": token,
        "DurationSeconds": "3600",
    }
    assert policy["Statement"][0]["Condition"]["StringEquals"] == {"aws:ResourceTag/TenantID": ["acme"]}
    assert answer.credentials.assumed_role_arn == f"{ASSUMED_ROLE}/{answer.decision.decision_id}"


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({TAGS_CLAIM: None}, "the token does not tag its session with TenantID 'acme'"),
        (
            {TAGS_CLAIM: {"principal_tags": {"TenantID": ["globex"]}, "transitive_tag_keys": ["TenantID"]}},
            "the token does not tag its session with TenantID 'acme'",
        ),
        ({SOURCE_IDENTITY_CLAIM: "bob"}, "is not its subject 'alice'"),
    ],
    ids=["no tags", "another tenant", "another user"],
)
def test_a_token_that_does_not_is_refused_before_sts_is_asked(
    federated: Exchanging, claims: dict[str, Any], told: str
) -> None:
    status, reason, message = federated.failure(_tagged(federated, **claims))

    assert (status, reason) == ("FAILED_PRECONDITION", "CREDENTIALS_UNAVAILABLE")
    assert told in message
    assert federated.sts.requests == []


def test_a_token_that_does_not_is_refused_where_credentials_are_remembered_too(federated: Exchanging) -> None:
    federated.call(_tagged(federated))

    assert federated.failure(federated.token())[1] == "CREDENTIALS_UNAVAILABLE"


def test_a_token_that_sts_repeats_is_not_logged(federated: Exchanging, caplog: pytest.LogCaptureFixture) -> None:
    token = _tagged(federated)
    federated.sts.answer = lambda request: refusal(
        "InvalidIdentityToken", f"not valid: {request.parameters['WebIdentityToken']} is", 400
    )

    assert federated.failure(token) == _NOT_GIVEN
    assert "InvalidIdentityToken: not valid: … is" in caplog.text
    assert token not in caplog.text


# ── the service ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_role_there_is_no_service(ready: Exchanging) -> None:
    with ready.running(credentials__role_arn=None):
        error: Any = wire.failure(ready.call)

    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_reflection_lists_the_service(world: Exchanging) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=LONG)

    assert "tenantgate.v1.CredentialService" in [service.name for service in answer.list_services_response.service]


def test_a_call_is_one_line_in_the_log_that_names_the_session(
    world: Exchanging, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "access"):
        answer = world.call()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "access"]

    for part in (
        "method='ExchangeToken'",
        "status='OK'",
        "tenant_id='acme'",
        "subject_id='alice'",
        "principal_id='agent:order-bot'",
        "resource_type='MEMORY'",
        f"resource_id='{MEMORY}'",
        "action='read'",
        "effect='ALLOW'",
        "rule_id='read-memory'",
        f"session_name='{answer.credentials.session_name}'",
        f"expiration='{datetime.fromtimestamp(answer.credentials.expiration.seconds, UTC).isoformat()}'",
    ):
        assert part in line
