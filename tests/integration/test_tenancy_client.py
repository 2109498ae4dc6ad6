"""The clients and the decorator for tools, against a real sidecar that believes tokens."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import (
    AuthorizationServiceServicer,
    add_AuthorizationServiceServicer_to_server,
)
from sidecar.identity.development import DevelopmentIssuer
from sidecar.identity.tokens import TokenVerifier
from sidecar.model import Item, Resource
from sidecar.tenancy import (
    AsyncAuthorizationClient,
    AuthorizationClient,
    NoDecisionError,
    NoTenantError,
    TenantContext,
    ToolDeniedError,
    authorized_tool,
    use,
)
from tests.support.fake_opa import ALLOW, Query, after_probes, decided, fake_opa
from tests.support.processes import running_opa, running_sidecar, sidecar_settings, wait_until
from tests.support.registries import compiled
from tests.support.tokens import identity_settings
from tests.support.wire import ADMIN_REFUND, ORDER_LOOKUP, REFUND_CREATE, SCOPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = 20.0


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentIssuer:
    return DevelopmentIssuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def address(issuer: DevelopmentIssuer, sample_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a sidecar that serves the sample bundle and believes the issuer."""
    settings = sidecar_settings(
        tmp_path_factory.mktemp("s"), sample_bundle, identity__mode="verified", identity__issuers=[issuer.settings()]
    )
    with running_sidecar(settings) as (sidecar, _):
        yield sidecar.addresses[0]


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[AuthorizationClient]:
    with AuthorizationClient(address, timeout=LONG) as made:
        yield made


@pytest.fixture
def alice(issuer: DevelopmentIssuer) -> Iterator[TenantContext]:
    """The context of a request of alice of Tenant-A, as the middleware makes it; it is in force."""
    verifier = TokenVerifier(identity_settings(issuer.settings()))
    token = issuer.mint("Tenant-A", "alice", "agent:order-bot", scopes=SCOPES)
    context = TenantContext.of(verifier.verify(token))
    verifier.close()
    with use(context):
        yield context


# ── questions and answers ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("alice")
def test_an_allow_is_a_true_value_that_says_by_which_rule(client: AuthorizationClient) -> None:
    decision = client.authorize(REFUND_CREATE, {"amount": 500})

    assert decision
    assert (decision.code, decision.policy_id, decision.rule_id) == ("ALLOWED", "POL-A-SUPPORT", "small-refunds")
    assert decision.decision_id
    assert decision.revision


@pytest.mark.usefixtures("alice")
def test_a_denial_is_a_false_value_that_says_why(client: AuthorizationClient) -> None:
    decision = client.authorize(ADMIN_REFUND)

    assert not decision
    assert (decision.code, decision.reason) == ("DENIED_BY_RULE", "Insufficient privileges")


@pytest.mark.usefixtures("alice")
def test_an_explanation_comes_when_it_is_asked_for(client: AuthorizationClient) -> None:
    unasked, explained = client.authorize(ADMIN_REFUND), client.authorize(ADMIN_REFUND, explain=True)

    assert unasked.explanation is None
    assert explained.explanation is not None
    assert explained.explanation["findings"][0]["code"] == "DECISION_CODE_DENIED_BY_RULE"


@pytest.mark.usefixtures("alice")
def test_each_item_of_a_batch_has_its_answer(client: AuthorizationClient) -> None:
    items = [
        Item(Resource("TOOL", ORDER_LOOKUP)),
        Item(Resource("TOOL", "a\nb")),
        Item(Resource("TOOL", REFUND_CREATE), arguments={"amount": 501}),
    ]
    allowed, malformed, denied = client.batch(items)

    assert [bool(result) for result in (allowed, malformed, denied)] == [True, False, False]
    assert (malformed.code, denied.code) == ("REQUEST_INVALID", "CONDITION_NOT_MET")


@pytest.mark.usefixtures("alice")
def test_a_list_of_tools_says_of_each_whether_it_may_be_called(client: AuthorizationClient) -> None:
    states = {tool.id: tool.state for tool in client.filter_tools([ORDER_LOOKUP, ADMIN_REFUND, REFUND_CREATE])}

    assert states == {ORDER_LOOKUP: "ALLOWED", ADMIN_REFUND: "DENIED", REFUND_CREATE: "CONDITIONAL"}


def test_other_resources_than_tools_are_asked_about(client: AuthorizationClient, issuer: DevelopmentIssuer) -> None:
    of_b = TenantContext("Tenant-B", token=issuer.mint("Tenant-B", "bob", "agent:order-bot", scopes=["tools:read"]))
    with use(of_b):
        assert client.authorize("kb:tenant-b-orders", type="KNOWLEDGE_BASE", action="read")
        allowed, denied = client.filter_tools(["kb:tenant-b-orders", "kb:tenant-a-orders"], type="KNOWLEDGE_BASE")

    assert (allowed.state, allowed.code) == ("ALLOWED", "ALLOWED")
    assert (denied.state, denied.code) == ("DENIED", "NO_MATCHING_RULE")


def test_a_context_that_claims_another_tenant_than_its_token_is_denied(
    client: AuthorizationClient, alice: TenantContext
) -> None:
    with use(TenantContext("Tenant-B", token=alice.token)):
        decision = client.authorize(ORDER_LOOKUP)

    assert (decision.allowed, decision.code) == (False, "TENANT_MISMATCH")


def test_nobody_asks_outside_of_a_context(client: AuthorizationClient) -> None:
    with pytest.raises(NoTenantError):
        client.authorize(ORDER_LOOKUP)


def test_a_tenant_whose_id_no_header_can_carry_is_asked_about_all_the_same(
    issuer: DevelopmentIssuer, client: AuthorizationClient
) -> None:
    with use(TenantContext("büro 7 ", token=issuer.mint("büro 7 ", "alice", "agent:order-bot"))):
        assert client.authorize(ORDER_LOOKUP).code == "TENANT_UNKNOWN"


def test_where_identities_are_asserted_the_context_is_who_asks(sample_address: str) -> None:
    alice = TenantContext("Tenant-A", subject_id="alice", principal_id="agent:order-bot", scopes=SCOPES)
    nobody = TenantContext("Tenant-A", subject_id="mallory", principal_id="agent:order-bot", scopes=SCOPES)
    with AuthorizationClient(sample_address, timeout=LONG) as client:
        with use(alice):
            assert client.authorize(ORDER_LOOKUP)
        with use(nobody):
            assert client.authorize(ORDER_LOOKUP).code == "SUBJECT_NOT_MEMBER"


# ── no decision ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_token_there_is_no_decision(client: AuthorizationClient) -> None:
    with use(TenantContext("Tenant-A", subject_id="alice")), pytest.raises(NoDecisionError) as none:
        client.authorize(ORDER_LOOKUP)

    assert none.value.reason == "CALLER_UNAUTHENTICATED"
    assert none.value.decision_id


def test_with_a_token_that_has_ended_there_is_no_decision_and_the_error_does_not_show_it(
    client: AuthorizationClient, issuer: DevelopmentIssuer
) -> None:
    token = issuer.mint("Tenant-A", "alice", "agent:order-bot", iat=1, nbf=1, exp=2)
    with use(TenantContext("Tenant-A", token=token)), pytest.raises(NoDecisionError) as none:
        client.authorize(ORDER_LOOKUP)

    assert none.value.reason == "CALLER_UNAUTHENTICATED"
    assert not any(part in str(none.value) for part in token.split("."))


@pytest.mark.usefixtures("alice")
def test_a_question_that_the_sidecar_refuses_has_no_decision(client: AuthorizationClient) -> None:
    with pytest.raises(NoDecisionError, match=r"resource\.id: must not be empty \(REQUEST_INVALID\)"):
        client.authorize("")


@pytest.mark.usefixtures("alice")
def test_where_no_sidecar_is_there_is_no_decision_and_the_error_says_so(short_path: Path) -> None:
    with (
        AuthorizationClient(f"unix:{short_path}/nowhere.sock", timeout=LONG) as client,
        pytest.raises(NoDecisionError, match=r"nowhere\.sock.* is the sidecar running there\? \(UNAVAILABLE\)") as none,
    ):
        client.authorize(ORDER_LOOKUP)

    assert none.value.reason == "UNAVAILABLE"


@pytest.mark.usefixtures("alice")
def test_credentials_of_a_sidecar_that_gives_none_are_no_decision(client: AuthorizationClient) -> None:
    with pytest.raises(NoDecisionError, match="UNIMPLEMENTED"):
        client.exchange("mem-0123456789", type="MEMORY", action="read")


@pytest.mark.usefixtures("alice")
def test_a_client_that_was_closed_does_not_ask(address: str) -> None:
    client = AuthorizationClient(address, timeout=LONG)
    with client:
        assert client.authorize(ORDER_LOOKUP)
    with pytest.raises(ValueError, match="closed channel"):
        client.authorize(ORDER_LOOKUP)


def test_a_client_outlives_the_sidecar_and_asks_the_next_one(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle)
    alice = TenantContext("Tenant-A", subject_id="alice", principal_id="agent:order-bot", scopes=SCOPES)
    with AuthorizationClient(f"unix:{settings.socket_path}", timeout=LONG) as client, use(alice):

        def answered() -> bool:
            try:
                return client.authorize(ORDER_LOOKUP).allowed
            except NoDecisionError:
                return False

        with running_sidecar(settings):
            assert answered()
        assert not answered()
        with running_sidecar(settings):
            wait_until(answered)


def test_an_answer_that_does_not_come_in_time_is_no_decision(short_path: Path) -> None:
    def never(query: Query) -> Iterator[bytes]:
        query.stopped.wait(60)
        yield decided(ALLOW)

    with fake_opa(short_path / "fake.sock", after_probes(never)) as opa:
        settings = sidecar_settings(short_path, None, opa__address=opa.address, opa__timeout_seconds=60)
        with (
            running_sidecar(settings) as (sidecar, _),
            AuthorizationClient(sidecar.addresses[0], timeout=0.3) as client,
            use(TenantContext("T")),
            pytest.raises(NoDecisionError) as none,
        ):
            client.authorize(ORDER_LOOKUP)

    assert none.value.reason == "DEADLINE_EXCEEDED"


# ── asyncio ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("alice")
def test_the_client_for_asyncio_gives_the_same_answers(address: str, client: AuthorizationClient) -> None:
    async def main() -> None:
        async with AsyncAuthorizationClient(address, timeout=LONG) as asynchronous:
            assert (await asynchronous.authorize(ORDER_LOOKUP)).allowed
            assert (await asynchronous.authorize(ADMIN_REFUND)).code == "DENIED_BY_RULE"
            assert await asynchronous.filter_tools([ORDER_LOOKUP]) == client.filter_tools([ORDER_LOOKUP])
            (first,) = await asynchronous.batch([Item(Resource("TOOL", ORDER_LOOKUP))])
            assert first
            with pytest.raises(NoDecisionError, match="REQUEST_INVALID"):
                await asynchronous.authorize("")

    asyncio.run(main())


def test_one_client_for_asyncio_serves_one_loop_after_the_other_and_several_at_a_time(
    address: str, alice: TenantContext
) -> None:
    client = AsyncAuthorizationClient(address, timeout=LONG)

    async def ask() -> bool:
        return (await client.authorize(ORDER_LOOKUP)).allowed

    async def ask_often() -> list[bool]:
        with use(alice):
            return await asyncio.gather(*[ask() for _ in range(10)])

    assert [asyncio.run(ask()) for _ in range(3)] == [True] * 3
    with ThreadPoolExecutor(4) as threads:
        loops = [threads.submit(lambda: asyncio.run(ask_often())) for _ in range(4)]
        assert [loop.result() for loop in loops] == [[True] * 10] * 4
    asyncio.run(client.close())


class _Unanswering(AuthorizationServiceServicer):
    """Answers nothing until the call is taken back."""

    def __init__(self) -> None:
        self.asked, self.taken_back = threading.Event(), threading.Event()

    def Authorize(self, _: pb.AuthorizeRequest, context: grpc.ServicerContext) -> pb.AuthorizeResponse:  # noqa: N802
        context.add_callback(self.taken_back.set)
        self.asked.set()
        self.taken_back.wait(LONG)
        return pb.AuthorizeResponse()


def test_a_question_that_nobody_waits_for_any_more_is_taken_back(short_path: Path) -> None:
    servicer = _Unanswering()

    async def main() -> None:
        async with AsyncAuthorizationClient(f"unix:{short_path}/s.sock", timeout=10 * LONG) as client:
            with use(TenantContext("T")):
                asking = asyncio.create_task(client.authorize(ORDER_LOOKUP))
            await asyncio.to_thread(servicer.asked.wait, LONG)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await asyncio.to_thread(servicer.taken_back.wait, LONG)

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        add_AuthorizationServiceServicer_to_server(servicer, server)
        server.add_insecure_port(f"unix:{short_path}/s.sock")
        server.start()
        asyncio.run(main())
        server.stop(0).wait()


def test_concurrent_questions_of_many_tenants_are_each_answered_about_their_own(
    issuer: DevelopmentIssuer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"Tenant-{number}" for number in range(20)]
    registry: list[dict[str, Any]] = []
    for name in names:
        registry.append({"pk": f"TENANT#{name}", "sk": "TENANT", "status": "ACTIVE", "membership": "OPTIONAL"})
        rule = {"ruleId": name, "effect": "ALLOW", "resourceType": "TOOL", "resources": [f"tool:of-{name}"]}
        registry.append({"pk": f"TENANT#{name}", "sk": "POLICY#p", "rules": [rule]})
    contexts = [TenantContext(name, token=issuer.mint(name, "alice", "agent:order-bot")) for name in names]

    async def main(address: str) -> None:
        async with AsyncAuthorizationClient(address, timeout=LONG) as client:

            async def ask(context: TenantContext) -> None:
                with use(context):
                    for name in names:
                        decision = await client.authorize(f"tool:of-{name}")
                        expected = name if name == context.tenant_id else ""
                        assert (decision.allowed, decision.rule_id) == (bool(expected), expected)

            await asyncio.gather(*map(ask, contexts))

    with running_opa(tmp_path_factory.mktemp("opa")) as opa:
        opa.put("registry/base", compiled(registry))
        settings = sidecar_settings(
            tmp_path_factory.mktemp("s"),
            None,
            opa__address=f"unix:{opa.socket}",
            identity__mode="verified",
            identity__issuers=[issuer.settings()],
        )
        with running_sidecar(settings) as (sidecar, _):
            asyncio.run(main(sidecar.addresses[0]))


# ── tools ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("alice")
def test_a_tool_runs_when_its_arguments_are_allowed_and_does_not_when_they_are_not(client: AuthorizationClient) -> None:
    ran: list[float] = []

    @authorized_tool(REFUND_CREATE, client=client)
    def refund(order_id: str, amount: float = 1000) -> str:
        ran.append(amount)
        return f"refunded {amount} for {order_id}"

    assert refund("o-1", 500) == "refunded 500 for o-1"
    with pytest.raises(ToolDeniedError, match="CONDITION_NOT_MET"):
        refund("o-1", 500.01)
    with pytest.raises(ToolDeniedError, match="CONDITION_NOT_MET"):  # by the default
        refund("o-1")
    assert ran == [500]


@pytest.mark.usefixtures("alice")
def test_a_denied_tool_names_the_decision_that_the_sidecar_logs(client: AuthorizationClient) -> None:
    @authorized_tool(ADMIN_REFUND, client=client)
    def admin_refund() -> None: ...

    with pytest.raises(ToolDeniedError) as denied:
        admin_refund()

    assert (denied.value.code, denied.value.reason) == ("DENIED_BY_RULE", "Insufficient privileges")
    assert len(denied.value.decision_id) == 36  # a UUID
    assert denied.value.decision_id in str(denied.value)


@pytest.mark.usefixtures("alice")
def test_an_async_tool_asks_with_what_its_model_says(address: str) -> None:
    class Order(msgspec.Struct):
        amount: float

    async def main() -> list[str]:
        async with AsyncAuthorizationClient(address, timeout=LONG) as client:

            @authorized_tool(REFUND_CREATE, client=client, arguments=lambda given: {"amount": given["order"].amount})
            async def refund(order: Order) -> str:
                return f"refunded {order.amount}"

            said = []
            for amount in (5, 5000):
                try:
                    said.append(await refund(Order(amount)))
                except ToolDeniedError as denied:
                    said.append(denied.code)
            return said

    assert asyncio.run(main()) == ["refunded 5", "CONDITION_NOT_MET"]


@pytest.mark.usefixtures("alice")
def test_a_tool_does_not_run_when_the_sidecar_is_gone(short_path: Path) -> None:
    ran: list[str] = []

    @authorized_tool(ORDER_LOOKUP, client=AuthorizationClient(f"unix:{short_path}/nowhere.sock"))
    def look_up(order_id: str) -> None:
        ran.append(order_id)

    with pytest.raises(NoDecisionError):
        look_up("o-1")
    assert ran == []


@pytest.mark.usefixtures("alice")
def test_a_tool_does_not_run_when_an_argument_cannot_be_asked_about(client: AuthorizationClient) -> None:
    ran: list[object] = []

    @authorized_tool(ORDER_LOOKUP, client=client)
    def look_up(order: object) -> None:
        ran.append(order)

    with pytest.raises(NoDecisionError, match=r"arguments\.order: is of the type object"):
        look_up(object())
    assert ran == []


def test_obligations_of_the_registry_are_carried_out_or_the_tool_does_not_run(
    issuer: DevelopmentIssuer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rule = {
        "effect": "ALLOW",
        "resourceType": "TOOL",
        "resources": ["agent:tool:order-cancel"],
        "obligations": [{"type": "REQUIRE_APPROVAL", "level": 2}],
    }
    registry: list[dict[str, Any]] = [
        {"pk": "TENANT#T", "sk": "TENANT", "status": "ACTIVE", "membership": "OPTIONAL"},
        {"pk": "TENANT#T", "sk": "POLICY#p", "rules": [rule]},
    ]
    approved: list[tuple[Any, Any]] = []

    def approve(obligation: dict[str, Any], arguments: dict[str, Any]) -> bool:
        approved.append((obligation, arguments))
        return bool(arguments["order_id"] == "o-1")

    def cancel(order_id: str) -> str:
        return f"cancelled {order_id}"

    with running_opa(tmp_path_factory.mktemp("opa")) as opa:
        opa.put("registry/base", compiled(registry))
        settings = sidecar_settings(
            tmp_path_factory.mktemp("s"),
            None,
            opa__address=f"unix:{opa.socket}",
            identity__mode="verified",
            identity__issuers=[issuer.settings()],
        )
        with (
            running_sidecar(settings) as (sidecar, _),
            AuthorizationClient(sidecar.addresses[0], timeout=LONG) as client,
            use(TenantContext("T", token=issuer.mint("T", "alice", "agent:order-bot"))),
        ):
            tool, careless = (
                authorized_tool("agent:tool:order-cancel", client=client, obligations=obligations)(cancel)
                for obligations in ({"REQUIRE_APPROVAL": approve}, None)
            )

            assert tool("o-1") == "cancelled o-1"
            with pytest.raises(ToolDeniedError, match="the obligation REQUIRE_APPROVAL was not carried out"):
                tool("o-2")
            with pytest.raises(ToolDeniedError, match="OBLIGATION_UNSUPPORTED"):
                careless("o-1")
    assert approved == [({"type": "REQUIRE_APPROVAL", "level": 2}, {"order_id": f"o-{number}"}) for number in (1, 2)]
