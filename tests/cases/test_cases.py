"""Every case of the corpus, by three ways that must agree: ``opa eval``, the engine, and the wire."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sidecar import translate
from sidecar.engine.decide import now_microseconds
from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.identity import Asserted
from sidecar.model import Decision
from tests.support.cases import Case, CaseFile, load_files
from tests.support.exports import write_export
from tests.support.processes import OPA, POLICIES, build_bundle, running_sidecar, sidecar_settings
from tests.support.registries import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.gen.tenantgate.v1.decision_pb2 import Decision as DecisionMessage
    from sidecar.model import Question
    from tests.support.processes import PolicyOpa

FILES = {file.name: file for file in load_files()}
CASES = [pytest.param(file, case, id=f"{file.name}: {case.name}") for file in FILES.values() for case in file.cases]


def question(file: CaseFile, case: Case) -> Question:
    """Translate a case as the native door does."""
    limits = file.settings.request_limits
    metadata = {"x-tenant-id": [case.tenant_header]} if case.tenant_header is not None else {}
    identity = Asserted(["x-tenant-id"], limits).establish(case.request.identity, metadata).identity
    return translate.authorize_question(case.request, identity, limits)


@cache
def opa_eval(name: str) -> dict[str, Any]:
    """Evaluate all cases of a file by one `opa eval`; give OPA's results by the names of the cases."""
    file = FILES[name]
    settings = translate.encode_settings(file.settings.policy)
    inputs = {}
    for case in file.cases:
        if case.expect:
            body = translate.single_query(question(file, case), "eval", now_microseconds(), settings)
            inputs[case.name] = json.loads(body)["input"]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.json"
        data.write_text(json.dumps({"registry": {"base": compiled(file.items)}}))
        query = "{n: d | some n, i in input; d := data.tenantgate.authorize.decision with input as i}"
        command: list[str | Path] = [
            OPA,
            "eval",
            "--format",
            "raw",
            "--stdin-input",
            "--strict-builtin-errors",
            "--data",
            data,
        ]
        command += ["--data", POLICIES / "tenantgate", "--ignore", "*_test.rego", query]
        done = subprocess.run(command, input=json.dumps(inputs), capture_output=True, text=True, check=True)
    results: dict[str, Any] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, AuthorizationServiceStub]]:
    """A sidecar for each file of the corpus, started when it is first asked for."""
    with _Stubs(tmp_path_factory) as running:
        yield running


class _Stubs(dict[str, AuthorizationServiceStub]):
    def __init__(self, paths: pytest.TempPathFactory) -> None:
        super().__init__()
        self._paths = paths
        self._running: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __missing__(self, name: str) -> AuthorizationServiceStub:
        file = FILES[name]
        folder = self._paths.mktemp(name)
        bundle = build_bundle(write_export(folder, file.items), folder / "bundle.tar.gz")
        state = tempfile.TemporaryDirectory(prefix="tg-")
        overrides = dict(flag.replace(".", "__").split("=") for flag in file.flags)
        settings = sidecar_settings(
            Path(state.name), bundle, **{k: int(v) if v.isdigit() else v for k, v in overrides.items()}
        )
        context = running_sidecar(settings)
        _, channel = context.__enter__()
        self._running += [state, context]
        stub = self[name] = AuthorizationServiceStub(channel)
        return stub

    def __exit__(self, *fault: object) -> None:
        for running in reversed(self._running):
            running.__exit__(None, None, None)


def check(case: Case, decision: Decision) -> None:
    """Hold a decision against what the case expects."""
    assert (decision.code, decision.policy_id, decision.rule_id) == case.expect
    assert decision.effect == ("ALLOW" if decision.code == "ALLOWED" else "DENY")
    if case.reason is not None:
        assert decision.reason == case.reason
    expected = [{"type": o["type"], **o.get("parameters", {})} for o in case.obligations]
    assert list(decision.obligations) == expected


@pytest.mark.parametrize(("file", "case"), CASES)
def test_opa_eval_decides_as_expected(file: CaseFile, case: Case) -> None:
    if case.error is not None:
        with pytest.raises(InvalidRequestError) as refused:
            question(file, case)
        assert refused.value.field == case.error
        return
    body = json.dumps({"result": opa_eval(file.name)[case.name]}).encode()
    check(case, translate.decision_answer(200, body))


@pytest.mark.parametrize(("file", "case"), [p for p in CASES if p.values[1].expect])  # type: ignore[union-attr]
def test_the_engine_decides_as_expected(file: CaseFile, case: Case, policy_opa: PolicyOpa) -> None:
    policy_opa.put("registry/base", compiled(file.items))
    decider = policy_opa.decider(file.settings)
    check(case, decider.decide(question(file, case), "case", time.monotonic() + 10))


@pytest.mark.parametrize(("file", "case"), CASES)
def test_the_wire_decides_as_expected(file: CaseFile, case: Case, stubs: dict[str, AuthorizationServiceStub]) -> None:
    metadata = [("x-tenant-id", case.tenant_header)] if case.tenant_header is not None else []
    if case.error is not None:
        with pytest.raises(grpc.RpcError) as refused:
            stubs[file.name].Authorize(case.request, metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert _bad_field(refused.value) == case.error
        return
    response = stubs[file.name].Authorize(case.request, metadata=metadata)
    check(case, _decision(response.decision))


def _decision(message: DecisionMessage) -> Decision:
    plain = MessageToDict(message, preserving_proto_field_name=True)
    return Decision(
        effect=plain["effect"].removeprefix("EFFECT_"),
        code=plain["code"].removeprefix("DECISION_CODE_"),
        reason=plain["reason"],
        policy_id=plain.get("policy_id", ""),
        rule_id=plain.get("rule_id", ""),
        obligations=tuple({"type": o["type"], **o.get("parameters", {})} for o in plain.get("obligations", ())),
        revision=plain["revision"],
        as_of=message.as_of.ToMicroseconds(),
        depends_on=(),
    )


def _bad_field(fault: grpc.RpcError) -> str:
    status = rpc_status.from_call(fault)  # type: ignore[arg-type]  # errors of stubs are calls
    assert status is not None
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            field: str = bad.field_violations[0].field
            return field
    return ""
