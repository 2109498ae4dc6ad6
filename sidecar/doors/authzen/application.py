"""The Authorization API as an ASGI application: admit, read, ask, answer. An error has a status of its own, and is no decision.

The loop of the server reads and writes; what may wait for OPA or for an issuer's keys is done in threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sidecar.doors.authzen import answers
from sidecar.doors.authzen.callers import Callers
from sidecar.doors.authzen.description import DESCRIPTION, ENDPOINTS, WELL_KNOWN, description, metadata
from sidecar.doors.authzen.requests import Asked, Reader, read_body
from sidecar.doors.authzen.search import fingerprint, position, turn
from sidecar.doors.grpc_calls import (
    DECISION_ID_KEY,
    ERRORS,
    REQUEST_ID_KEY,
    TRACE_KEY,
    Call,
    ErrorRow,
    decision_facts,
    error_reason,
    error_row,
    finish,
    identity_facts,
    question_facts,
    record,
    remembered,
    trace_id,
)
from sidecar.engine.decide import new_decision_id, now_microseconds
from sidecar.errors import DeadlineExceededError, InvalidRequestError, OverloadedError, UnauthenticatedError
from sidecar.model import Question, id_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sidecar.audit.decision_log import DecisionLog
    from sidecar.audit.records import Told
    from sidecar.doors.authzen.callers import Asking
    from sidecar.doors.authzen.requests import Batch, Kind
    from sidecar.doors.metrics import CallMetrics
    from sidecar.engine.decide import Decider
    from sidecar.identity import IdentitySource
    from sidecar.model import Decision, Identity, Item, Json
    from sidecar.settings import Settings

_JSON = "application/json"
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.INTERNAL: 500,
}
"""How errors are told over HTTP, by how they are told over gRPC. All others are that there is no decision now."""

_NO_DECISION_NOW = 503
_TOO_LARGE = 413


class AuthZen:
    """The door: each method answers one of the API's endpoints. ``in_flight`` calls are being worked on."""

    def __init__(
        self,
        decider: Decider,
        identities: IdentitySource,
        settings: Settings,
        metrics: CallMetrics,
        audit: DecisionLog,
    ) -> None:
        self._decider = decider
        self._settings = settings
        self._metrics = metrics
        self._audit = audit
        self._callers = Callers(identities, settings.identity, settings.authzen.principal)
        self._reader = Reader(settings.request_limits, settings.authzen.user_types)
        self._pool = ThreadPoolExecutor(settings.limits.threads, thread_name_prefix="authzen")
        self.in_flight = 0

    def application(self, url: Callable[[], str]) -> ASGIApp:
        """Give what an HTTP server runs. ``url`` gives that under which callers find it."""
        verified = self._settings.identity.mode == "verified"

        async def openapi(_request: Request) -> Response:
            return _json(description(url(), self._settings.request_limits, verified=verified))

        async def configuration(request: Request) -> Response:
            tenant = request.path_params.get("tenant")
            if tenant is not None and (fault := id_fault(tenant)):
                return PlainTextResponse(f"REQUEST_INVALID: tenant of the path: {fault}\n", 400)
            return _json(metadata(url(), tenant), **{"cache-control": "max-age=3600"})

        methods = (self.evaluation, self.evaluations, self.search_subject, self.search_resource, self.search_action)
        routes = [Route(DESCRIPTION, openapi), Route(WELL_KNOWN, configuration)]
        routes.append(Route(f"{WELL_KNOWN}{_OF_TENANT}", configuration))
        for entry, method in zip(ENDPOINTS, methods, strict=True):
            endpoint = self._endpoint(entry.method, method)
            routes += [Route(path, endpoint, methods=["POST"]) for path in (entry.path, _OF_TENANT + entry.path)]
        application = Starlette(routes=routes)
        # a redirect would have callers send the request, token and all, to whatever the Host header says
        application.router.redirect_slashes = False
        return _Identified(application)

    def evaluation(self, body: dict[str, Json], asking: Asking, call: Call) -> dict[str, Json]:
        """Decide one question."""
        asked = self._reader.evaluation(body)
        question = _question(asking.about(asked), asked)
        call.identity, (call.item,) = question.identity, question.items
        call.facts |= identity_facts(question.identity) | question_facts(question)
        held = self._decider.decide_held(question, call.decision_id, call.deadline)
        decision = held.answer
        call.facts |= decision_facts(decision)
        call.decisions = (decision,)
        call.records = self._audit.decided_call(call.identity, call.item, decision)
        call.cached = (remembered(held, call),)
        return answers.decided(decision, call.decision_id)

    def evaluations(self, body: dict[str, Json], asking: Asking, call: Call) -> dict[str, Json]:
        """Decide many questions, or the one that there is."""
        batch = self._reader.batch(body)
        if batch is None:
            return self.evaluation(body, asking, call)
        decided = self._decide_all(batch, asking, call)
        decisions: list[Decision] = []
        failures: list[str] = []
        written: list[Json] = []
        cached: list[bool] = []
        told: list[Told] = []
        for number, (outcome, known, record_of_it) in enumerate(decided):
            cached.append(known)
            told += record_of_it
            item_id = f"{call.decision_id}.{number}"
            if isinstance(outcome, InvalidRequestError):
                failures.append(error_reason(outcome))
                written.append(answers.not_decided(outcome, item_id))
            else:
                decisions.append(outcome)
                written.append(answers.decided(outcome, item_id))
            if written[-1]["decision"] is batch.stops_at:
                break
        call.decisions, call.failures = decisions, failures
        call.records, call.cached = told, cached
        allowed = sum(answer["decision"] for answer in written)
        call.facts |= {"items": len(batch.asked), "answered": len(written), "allowed": allowed}
        return {"evaluations": written}

    def search_subject(self, body: dict[str, Json], asking: Asking, call: Call) -> dict[str, Json]:
        """Say which subjects may do it."""
        return self._search("subjects", body, asking, call)

    def search_resource(self, body: dict[str, Json], asking: Asking, call: Call) -> dict[str, Json]:
        """Say to which resources the subject may do it."""
        return self._search("resources", body, asking, call)

    def search_action(self, body: dict[str, Json], asking: Asking, call: Call) -> dict[str, Json]:
        """Say what the subject may do to the resource."""
        return self._search("actions", body, asking, call)

    def _decide_all(
        self, batch: Batch, asking: Asking, call: Call
    ) -> list[tuple[Decision | InvalidRequestError, bool, tuple[Told, ...]]]:
        """Decide all evaluations: those that share who asks and what the caller carries out at once, under one revision.

        Tells of each too whether it was remembered, and gives its record.
        """
        outcomes: list[Any] = [*batch.asked]
        together: dict[bytes, tuple[Identity, list[int]]] = {}
        for number, asked in enumerate(batch.asked):
            if isinstance(asked, Asked):
                try:
                    identity = asking.about(asked)
                except InvalidRequestError as fault:
                    outcomes[number] = fault
                else:
                    key = msgspec.json.encode((identity, asked.accepts), order="deterministic")
                    together.setdefault(key, (identity, []))[1].append(number)
        for identity, numbers in together.values():
            some: list[Asked] = [outcomes[number] for number in numbers]
            question = _question(identity, *some)
            decisions = self._decider.decide_batch_held(question, call.decision_id, call.deadline)
            for number, item, held in zip(numbers, question.items, decisions, strict=True):
                told = self._audit.decided_call(identity, item, held.answer, place=f".{number}")
                outcomes[number] = held.answer, remembered(held, call), told
        if len(together) == 1:
            call.identity = identity
            call.facts |= identity_facts(identity)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, InvalidRequestError):
                told = self._audit.failed(error_reason(outcome), outcome, call.identity, None, place=f".{number}")
                outcomes[number] = outcome, False, told
        return outcomes

    def _search(self, kind: Kind, body: dict[str, Json], asking: Asking, call: Call) -> dict[str, Json]:
        sought = self._reader.search(kind, body)
        asked = sought.asked
        identity = asking.seeking(asked) if kind == "subjects" else asking.about(asked)
        question = _question(identity, asked)
        call.identity = identity
        call.facts |= identity_facts(identity)
        begin = position(sought.page, fingerprint(kind, identity.tenant.id, body), self._settings.authzen.page_size)
        ids, found, following = turn(
            begin,
            lambda search: self._decider.search(kind, question, search, call.decision_id, call.deadline),
            first=self._settings.authzen.page_size,
            most=self._settings.limits.batch_items,
            prefix=sought.prefix,
            properties=asked.subject.properties,
        )
        call.facts |= {"results": len(ids), "revision": found.revision}
        call.records = self._audit.sought(identity, asked.item, ids, found)
        if kind == "actions":
            entities = [{"name": name} for name in ids]
        else:
            kind_of = body[kind.removesuffix("s")]["type"]
            entities = [{"type": kind_of, "id": name.removeprefix(sought.prefix)} for name in ids]
        return answers.results(found, entities, following.token if following else "", call.decision_id)

    def _endpoint(self, name: str, method: Any) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            if self.in_flight >= self._settings.limits.in_flight:
                fault = OverloadedError(f"{self.in_flight} calls are in flight, as many as are taken on; try again")
                self._metrics.failed(name, error_reason(fault))
                return _refusal(fault, ERRORS[OverloadedError], new_decision_id())
            self.in_flight += 1
            try:
                return await self._answer(request, name, method)
            finally:
                self.in_flight -= 1

        return endpoint

    async def _answer(self, request: Request, name: str, method: Any) -> Response:
        began = time.perf_counter()
        call = self._call(request)
        row, limits = None, self._settings.limits
        try:
            body = await _read(request, limits.message_bytes, limits.default_deadline_seconds)
            tenant = request.path_params.get("tenant")
            loop = asyncio.get_running_loop()
            work = contextvars.copy_context().run  # for whom it is, the thread must know

            def answer() -> Any:
                content = self._work(method, body, tenant, call)
                # here, as it may wait
                record(self._audit, name, began, call, call.deadline)
                return content

            content = await loop.run_in_executor(self._pool, work, answer)
            return _json(content, **{DECISION_ID_KEY: call.decision_id})
        except _TooLargeError as fault:
            row = ERRORS[InvalidRequestError]
            return _refusal(fault, row, call.decision_id, _TOO_LARGE)
        except Exception as fault:  # noqa: BLE001 - each has its row, and the log says what it was
            row, call.fault = error_row(fault, call.decision_id), fault
            return _refusal(fault, row, call.decision_id)
        finally:
            log_it = self._settings.log.access
            finish(name, began, call, row, metrics=self._metrics, log_it=log_it, audit=self._audit)

    def _work(self, method: Any, body: bytes, tenant: str | None, call: Call) -> Any:
        asking = self._callers.establish(call.metadata, tenant)
        return method(read_body(body), asking, call)

    def _call(self, request: Request) -> Call:
        metadata: dict[str, list[str]] = {}
        for key, value in request.headers.items():
            metadata.setdefault(key, []).append(value)
        facts = {"request_id": metadata[REQUEST_ID_KEY][0]} if REQUEST_ID_KEY in metadata else {}
        facts |= trace_id(metadata.get(TRACE_KEY, [""])[0])
        deadline = time.monotonic() + self._settings.limits.default_deadline_seconds
        return Call(new_decision_id(), metadata, deadline, facts, began=now_microseconds())


_OF_TENANT = "/tenants/{tenant:path}"


class _TooLargeError(Exception):
    """Raised when a body has more bytes than are read. It is told like a malformed request, with a status of its own."""


class _Identified:
    """Answers every request with the request id that it came with (section "Request Identification")."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        ids = [value for name, value in scope.get("headers", ()) if name == REQUEST_ID_KEY.encode()]

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start" and ids:
                message["headers"] = [*message["headers"], (REQUEST_ID_KEY.encode(), ids[0])]
            await send(message)

        await self._application(scope, receive, identified)


def _question(identity: Identity, *asked: Asked) -> Question:
    items: tuple[Item, ...] = tuple(one.item for one in asked)
    return Question(identity=identity, items=items, accepts=asked[0].accepts)


async def _read(request: Request, most: int, seconds: float) -> bytes:
    """Read a body. Raises ``InvalidRequestError``, or ``DeadlineExceededError`` if it does not come in time."""
    field = "Content-Type"
    if request.headers.get(field, "").partition(";")[0].strip().lower() != _JSON:
        raise InvalidRequestError(field, f"must be {_JSON}")
    field, body = "body", bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    msg = f"{field}: must have at most {most} bytes"
                    raise _TooLargeError(msg)
    except TimeoutError as fault:
        msg = "the body did not come in time"
        raise DeadlineExceededError(msg) from fault
    except ClientDisconnect as fault:
        raise InvalidRequestError(field, "ends before it is whole") from fault
    return bytes(body)


def _json(content: Json, **headers: str) -> Response:
    return Response(msgspec.json.encode(content), media_type=_JSON, headers=headers)


def _refusal(fault: Exception, row: ErrorRow, decision_id: str, status: int = 0) -> Response:
    """Write an error as a text: its reason in capitals, and a sentence (section "Error Responses")."""
    headers = {DECISION_ID_KEY: decision_id}
    reason = row.reason
    if isinstance(fault, UnauthenticatedError):
        reason = fault.reason
        # https://www.rfc-editor.org/rfc/rfc6750#section-3.1: no error where there was no token
        error = "" if reason == "TOKEN_MISSING" else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer realm="tenantgate"{error}'
    text = f"{reason}: {row.sentence or fault}\n"
    return PlainTextResponse(text, status or _STATUS.get(row.code, _NO_DECISION_NOW), headers)
