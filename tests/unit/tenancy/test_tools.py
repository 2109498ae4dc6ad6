"""The decorator for tools: what is asked, when the function runs, and that frameworks still see the function."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import msgspec
import pytest

from sidecar.tenancy import Decision, NoDecisionError, ToolDeniedError, authorized_tool

TOOL = "agent:tool:order-lookup"


def _decision(*obligations: dict[str, Any], allowed: bool = True) -> Decision:
    code, reason = ("ALLOWED", "a rule allows it") if allowed else ("DENIED_BY_RULE", "Insufficient privileges")
    return Decision(allowed, code, reason, "d-1", "rev", obligations=obligations)


class _Client:
    """Answers with one decision, and keeps what it was asked."""

    def __init__(self, *obligations: dict[str, Any], allowed: bool = True) -> None:
        self.decision = _decision(*obligations, allowed=allowed)
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    def authorize(self, resource_id: str, arguments: Any, **terms: Any) -> Decision:
        self.asked.append((resource_id, arguments, terms))
        return self.decision


class _AsyncClient(_Client):
    async def authorize(self, resource_id: str, arguments: Any, **terms: Any) -> Decision:  # type: ignore[override]
        return super().authorize(resource_id, arguments, **terms)


def test_the_question_carries_the_arguments_by_name_with_the_defaults() -> None:
    client = _Client()

    @authorized_tool(TOOL, client=client)
    def look_up(order_id: str, limit: int = 10, *, verbose: bool = False) -> str:
        return f"{order_id} {limit} {verbose}"

    assert look_up("o-1", verbose=True) == "o-1 10 True"
    assert client.asked == [
        (TOOL, {"order_id": "o-1", "limit": 10, "verbose": True}, {"type": "TOOL", "action": "invoke", "accepts": []})
    ]


def test_parameters_that_a_framework_injects_are_not_asked_about() -> None:
    client = _Client()

    class Orders:
        @authorized_tool(TOOL, client=client, exclude=["self", "ctx"])
        def look_up(self, order_id: str, ctx: object = None) -> str:
            return f"{order_id} {ctx is not None}"

    assert Orders().look_up("o-1", ctx=object()) == "o-1 True"
    assert client.asked[0][1] == {"order_id": "o-1"}


@dataclass
class _Order:
    id: str
    amount: int


def test_arguments_are_converted_where_json_has_no_word_for_them() -> None:
    client = _Client()

    @authorized_tool(TOOL, client=client, arguments=msgspec.to_builtins)
    def look_up(order: _Order) -> str:
        return order.id

    assert look_up(_Order("o-1", 5)) == "o-1"
    assert client.asked[0][1] == {"order": {"id": "o-1", "amount": 5}}


def test_type_and_action_can_be_others() -> None:
    client = _Client()

    @authorized_tool("mem:1", client=client, type="MEMORY", action="read")
    def read() -> None: ...

    read()
    assert client.asked[0][2] == {"type": "MEMORY", "action": "read", "accepts": []}


def test_a_denied_tool_does_not_run_and_the_model_can_read_why() -> None:
    ran: list[str] = []

    @authorized_tool(TOOL, client=_Client(allowed=False))
    def look_up(order_id: str) -> None:
        ran.append(order_id)

    with pytest.raises(ToolDeniedError) as denied:
        look_up("o-1")

    assert str(denied.value) == (
        f"{TOOL} was not called. Access denied: Insufficient privileges (DENIED_BY_RULE, decision d-1)"
    )
    assert (denied.value.code, denied.value.reason, denied.value.decision_id) == (
        "DENIED_BY_RULE",
        "Insufficient privileges",
        "d-1",
    )
    assert ran == []


def test_a_tool_without_a_decision_does_not_run() -> None:
    class Unreachable(_Client):
        def authorize(self, *_: Any, **__: Any) -> Decision:
            msg = "nobody there"
            raise NoDecisionError(msg, "UNAVAILABLE")

    ran: list[str] = []

    @authorized_tool(TOOL, client=Unreachable())
    def look_up(order_id: str) -> None:
        ran.append(order_id)

    with pytest.raises(NoDecisionError):
        look_up("o-1")
    with ThreadPoolExecutor(1) as threads, pytest.raises(NoDecisionError):  # to which an error that is false is none
        threads.submit(look_up, "o-1").result()
    assert ran == []


def test_an_answer_that_is_only_something_like_true_does_not_let_a_tool_run() -> None:
    client = _Client()
    client.decision = Decision("yes", "ALLOWED", "", "d", "rev")  # type: ignore[arg-type]

    @authorized_tool(TOOL, client=client)
    def look_up() -> None: ...

    with pytest.raises(ToolDeniedError):
        look_up()


def test_a_call_that_python_refuses_is_not_asked_about() -> None:
    client = _Client()

    @authorized_tool(TOOL, client=client)
    def look_up(order_id: str) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'order_id'"):
        look_up()  # type: ignore[call-arg]
    assert client.asked == []


# ── obligations ─────────────────────────────────────────────────────────────────────────────────────────────────────────

APPROVAL = {"type": "REQUIRE_APPROVAL", "by": "team-lead"}


def test_obligations_are_carried_out_before_the_tool_runs_and_are_said_to_be_accepted() -> None:
    client, done = _Client(APPROVAL), []

    def approve(obligation: dict[str, Any], arguments: dict[str, Any]) -> bool:
        done.append((obligation, arguments))
        return True

    @authorized_tool(TOOL, client=client, obligations={"REQUIRE_APPROVAL": approve})
    def refund(amount: int) -> str:
        return f"{amount} after {len(done)} approval"

    assert refund(5) == "5 after 1 approval"
    assert done == [(APPROVAL, {"amount": 5})]
    assert client.asked[0][2]["accepts"] == ["REQUIRE_APPROVAL"]


@pytest.mark.parametrize("answer", [None, False, 1, "approved"], ids=repr)
def test_an_obligation_that_is_not_carried_out_keeps_the_tool_from_running(answer: object) -> None:
    ran: list[int] = []

    @authorized_tool(TOOL, client=_Client(APPROVAL), obligations={"REQUIRE_APPROVAL": lambda *_: answer})
    def refund(amount: int) -> None:
        ran.append(amount)

    with pytest.raises(ToolDeniedError, match="the obligation REQUIRE_APPROVAL was not carried out") as denied:
        refund(5)
    assert (denied.value.code, ran) == ("OBLIGATION_UNSUPPORTED", [])


def test_an_obligation_that_nobody_carries_out_keeps_the_tool_from_running() -> None:
    @authorized_tool(TOOL, client=_Client({"type": "UNHEARD_OF"}))
    def refund() -> None: ...

    with pytest.raises(ToolDeniedError, match="UNHEARD_OF"):
        refund()


def test_an_obligation_that_fails_keeps_the_next_from_being_carried_out() -> None:
    carried_out: list[str] = []

    def note(obligation: dict[str, Any], _: dict[str, Any]) -> bool:
        carried_out.append(obligation["type"])
        return bool(obligation["type"] == "FIRST")

    kinds = ("FIRST", "SECOND", "THIRD")
    client = _Client(*({"type": kind} for kind in kinds))

    @authorized_tool(TOOL, client=client, obligations=dict.fromkeys(kinds, note))
    def refund() -> None: ...

    with pytest.raises(ToolDeniedError):
        refund()
    assert carried_out == ["FIRST", "SECOND"]


def test_a_coroutine_is_not_taken_for_an_obligation_that_a_plain_tool_has_carried_out() -> None:
    async def approve(*_: Any) -> bool:
        return True

    with pytest.raises(TypeError, match="refund: what carries out REQUIRE_APPROVAL is async"):

        @authorized_tool(TOOL, client=_Client(APPROVAL), obligations={"REQUIRE_APPROVAL": approve})
        def refund() -> None: ...


# ── coroutines ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_async_tool_asks_and_carries_out_obligations_without_blocking() -> None:
    client, done = _AsyncClient(APPROVAL, {"type": "LOG"}), []

    async def approve(obligation: dict[str, Any], arguments: dict[str, Any]) -> bool:
        await asyncio.sleep(0)
        done.append((obligation["by"], arguments["amount"]))
        return True

    @authorized_tool(TOOL, client=client, obligations={"REQUIRE_APPROVAL": approve, "LOG": lambda *_: True})
    async def refund(amount: int) -> str:
        return f"{amount} after {done}"

    assert inspect.iscoroutinefunction(refund)
    assert asyncio.run(refund(5)) == "5 after [('team-lead', 5)]"


def test_a_denied_async_tool_does_not_run() -> None:
    ran: list[str] = []

    @authorized_tool(TOOL, client=_AsyncClient(allowed=False))
    async def look_up(order_id: str) -> None:
        ran.append(order_id)

    with pytest.raises(ToolDeniedError):
        asyncio.run(look_up("o-1"))
    assert ran == []


# ── what cannot be a tool ───────────────────────────────────────────────────────────────────────────────────────────────


async def _async_tool() -> None: ...


async def _streaming_tool() -> Any:
    yield 1


def _nameless(*orders: str) -> None: ...


def _anything(**orders: str) -> None: ...


_NO_TOOLS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "a plain function with an async client": (
        "needs an AuthorizationClient",
        print_ := (lambda: None),
        {"client": _AsyncClient()},
    ),
    "an async function with a plain client": ("needs an AsyncAuthorizationClient", _async_tool, {}),
    "an async generator": ("an async generator cannot be", _streaming_tool, {"client": _AsyncClient()}),
    "arguments without names": (r"\*orders: 'str' has no names", _nameless, {}),
    "arguments of any name": (r"\*\*orders: 'str' has no names", _anything, {}),
    "an excluded parameter that is none": ("exclude names 'ctx', which is none", print_, {"exclude": ["ctx"]}),
}


@pytest.mark.parametrize(("fault", "function", "given"), _NO_TOOLS.values(), ids=_NO_TOOLS)
def test_what_cannot_be_asked_about_is_refused_when_it_is_decorated(
    fault: str, function: Any, given: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=fault):
        authorized_tool(TOOL, **({"client": _Client()} | given))(function)


# ── what frameworks see ─────────────────────────────────────────────────────────────────────────────────────────────────


def _plain(order_id: Annotated[str, "The order"], limit: int = 10) -> dict[str, str]:
    """Look up an order.

    Args:
        order_id: Which one.
        limit: How many lines.
    """
    return {order_id: str(limit)}


def test_a_framework_sees_name_documentation_parameters_and_types_of_the_function() -> None:
    tool = authorized_tool(TOOL, client=_Client())(_plain)

    assert (tool.__name__, tool.__qualname__, tool.__module__, tool.__doc__) == (
        "_plain",
        "_plain",
        __name__,
        _plain.__doc__,
    )
    assert inspect.signature(tool) == inspect.signature(_plain)
    assert get_type_hints(tool, include_extras=True) == get_type_hints(_plain, include_extras=True)


def test_pydantic_which_frameworks_make_schemas_with_reads_the_tool_as_it_reads_the_function() -> None:
    pydantic = pytest.importorskip("pydantic")
    tool = authorized_tool(TOOL, client=_Client())(_plain)

    assert pydantic.TypeAdapter(tool).json_schema() == pydantic.TypeAdapter(_plain).json_schema()
    assert pydantic.validate_call(tool)("o-1", "7") == {"o-1": "7"}
