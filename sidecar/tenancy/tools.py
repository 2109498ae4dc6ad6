"""Tools that ask before they run: the decorator for the functions that an agent's model may call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

from sidecar.tenancy.errors import ToolDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model import Json
    from sidecar.tenancy.calls import Decision

Obligations: TypeAlias = Mapping[str, Callable[[dict[str, Any], dict[str, Any]], Any]]
"""What carries out obligations, by type. It is given the obligation and the arguments, and answers ``True`` when it is done."""

_Tool = TypeVar("_Tool", bound=Callable[..., Any])


class Client(Protocol):
    """``AuthorizationClient`` or ``AsyncAuthorizationClient``."""

    @property
    def authorize(self) -> Callable[..., Any]:
        """Ask whether a resource may be used."""


def authorized_tool(
    resource_id: str,
    *,
    client: Client,
    arguments: Callable[[dict[str, Any]], Any] | None = None,
    exclude: Collection[str] = (),
    type: str = "TOOL",  # noqa: A002 - the word that the wire has for it
    action: str = "invoke",
    obligations: Obligations | None = None,
) -> Callable[[_Tool], _Tool]:
    """Have a function ask, for the tenant of the context in force, before each call whether it may run.

    The question carries the arguments of the call by name, defaults included, without those of ``exclude``, such as ``self`` or
    what a framework injects. ``arguments`` converts them where JSON has no word for one: ``msgspec.to_builtins`` for dataclasses,
    ``pydantic_core.to_jsonable_python`` for models. The types of ``obligations`` are those that the caller carries out; each is
    carried out before the function runs.

    The call raises ``ToolDeniedError`` for a DENY and for an obligation that is not carried out, ``NoDecisionError`` when there
    is no decision, and ``NoTenantError`` outside of a context; the function has not run then. An async function needs an
    ``AsyncAuthorizationClient``. Name, documentation and parameters stay those of the function, so that a framework's own
    decorator goes on top.
    """

    def decorate(function: _Tool) -> _Tool:
        tool = _Asking(function, resource_id, arguments, exclude, obligations or {})
        terms = {"type": type, "action": action, "accepts": [*tool.obligations]}
        if inspect.isasyncgenfunction(function):
            msg = f"{function.__qualname__}: an async generator cannot be an authorized tool; return its last value"
            raise TypeError(msg)
        asynchronous = inspect.iscoroutinefunction(function)
        if asynchronous != inspect.iscoroutinefunction(client.authorize):
            needed = "AsyncAuthorizationClient" if asynchronous else "AuthorizationClient"
            msg = f"{function.__qualname__}: needs an {needed}"
            raise TypeError(msg)
        for kind, handler in tool.obligations.items():
            if inspect.iscoroutinefunction(handler) and not asynchronous:
                msg = f"{function.__qualname__}: what carries out {kind} is async, and the tool is not"
                raise TypeError(msg)

        @functools.wraps(function)
        def run(*given: Any, **named: Any) -> Any:
            call = tool.bind(given, named)
            asked = tool.asked(call)
            decision = tool.allowed(client.authorize(resource_id, asked, **terms))
            for kind, done in tool.carry_out(decision, asked):
                tool.settled(kind, decision, done=done)
            return function(*call.args, **call.kwargs)

        @functools.wraps(function)
        async def run_async(*given: Any, **named: Any) -> Any:
            call = tool.bind(given, named)
            asked = tool.asked(call)
            decision = tool.allowed(await client.authorize(resource_id, asked, **terms))
            for kind, done in tool.carry_out(decision, asked):
                tool.settled(kind, decision, done=await done if inspect.isawaitable(done) else done)
            return await function(*call.args, **call.kwargs)

        return cast("_Tool", run_async if asynchronous else run)

    return decorate


class _Asking:
    """What asking has in common for functions of both kinds."""

    def __init__(
        self,
        function: Callable[..., Any],
        resource_id: str,
        arguments: Callable[[dict[str, Any]], Any] | None,
        exclude: Collection[str],
        obligations: Obligations,
    ) -> None:
        self._signature = inspect.signature(function)
        self._resource_id = resource_id
        self._arguments = arguments
        self._exclude = frozenset(exclude)
        self.obligations = obligations
        parameters = self._signature.parameters
        for name in self._exclude - parameters.keys():
            msg = f"{function.__qualname__}: exclude names {name!r}, which is none of its parameters"
            raise TypeError(msg)
        for parameter in parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                msg = f"{function.__qualname__}: {parameter} has no names that rules could look at; name each parameter"
                raise TypeError(msg)

    def bind(self, given: tuple[Any, ...], named: dict[str, Any]) -> inspect.BoundArguments:
        """Give the arguments their names, so that what is asked about is what the function then gets."""
        call = self._signature.bind(*given, **named)
        call.apply_defaults()
        return call

    def asked(self, call: inspect.BoundArguments) -> dict[str, Json]:
        """Give the arguments that the question carries."""
        arguments = {name: value for name, value in call.arguments.items() if name not in self._exclude}
        return arguments if self._arguments is None else self._arguments(arguments)

    def allowed(self, decision: Decision) -> Decision:
        """Let an ALLOW pass. Raises ``ToolDeniedError``."""
        if decision.allowed is not True:
            raise ToolDeniedError(self._resource_id, decision.code, decision.reason, decision.decision_id)
        return decision

    def carry_out(self, decision: Decision, asked: dict[str, Json]) -> Iterable[tuple[str, Any]]:
        """Carry out one obligation after the other."""
        for obligation in decision.obligations:
            kind = obligation["type"]
            handler = self.obligations.get(kind)
            yield kind, handler(obligation, asked) if handler else False

    def settled(self, kind: str, decision: Decision, *, done: Any) -> None:
        """Go on if an obligation is carried out. Raises ``ToolDeniedError``."""
        if done is not True:
            reason = f"the obligation {kind} was not carried out"
            raise ToolDeniedError(self._resource_id, "OBLIGATION_UNSUPPORTED", reason, decision.decision_id)
