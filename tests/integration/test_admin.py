"""What machines that look after a sidecar get to see over HTTP: health, and metrics that count what callers see."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from sidecar.errors import SettingsError, StartError
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.server import Sidecar
from sidecar.toolchain import pinned_version
from tests.support import wire
from tests.support.bundles import NOW, SECOND, Publisher, pack, revision
from tests.support.fake_opa import ALLOW, Held, after_probes, decided, fake_opa
from tests.support.following import bundle_status, comes, following, refused_for
from tests.support.metrics import get, samples, value
from tests.support.processes import running_sidecar, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import grpc

    from tests.support.fake_opa import FakeOpa

ADMIN = "127.0.0.1:0"


@pytest.fixture
def beside(short_path: Path) -> Iterator[tuple[FakeOpa, Sidecar, grpc.Channel]]:
    """A sidecar with an admin listener beside an OPA that can be turned, with room for one call."""
    with fake_opa(short_path / "fake.sock") as opa:
        settings = sidecar_settings(
            short_path / "beside",
            None,
            opa__address=opa.address,
            opa__timeout_seconds=60,
            listen__admin=ADMIN,
            limits__in_flight=1,
        )
        with running_sidecar(settings) as (sidecar, channel):
            yield opa, sidecar, channel


def _in_the_background(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


# ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sidecar_that_serves_is_alive_and_ready(beside: tuple[FakeOpa, Sidecar, grpc.Channel]) -> None:
    _, sidecar, _ = beside

    assert get(sidecar, "/livez") == (200, "alive\n")
    assert get(sidecar, "/readyz") == (200, "ready\n")
    assert get(sidecar, "/")[0] == 404


def test_a_sidecar_that_does_not_serve_is_alive_and_says_why_it_is_not_ready(publisher: Publisher) -> None:
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        before = get(sidecar, "/livez")[0], get(sidecar, "/readyz"), value(sidecar, "tenantgate_serving")
        comes(channel, publisher.base(0))
        wait_until(lambda: wire.get_status(channel).serving)
        after = get(sidecar, "/readyz")[0], value(sidecar, "tenantgate_serving")

    assert before == (200, (503, "there is no base bundle: base.tar.gz is not published\n"), 0)
    assert after == (200, 1)


def test_a_sidecar_that_starts_is_alive_and_not_ready(publisher: Publisher) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    sidecar = Sidecar(following(publisher, f"http://127.0.0.1:{silent.getsockname()[1]}", listen__admin=ADMIN))
    starting = _in_the_background(sidecar.start)
    try:
        wait_until(lambda: sidecar.admin_url)
        found = get(sidecar, "/livez"), get(sidecar, "/readyz"), value(sidecar, "tenantgate_serving")
    finally:
        silent.close()  # ends the wait for the source
        starting.join(wire.DEADLINE)
        sidecar.stop()

    assert found == ((200, "alive\n"), (503, "starting\n"), 0)


def test_a_sidecar_that_stops_is_not_ready_while_calls_end(beside: tuple[FakeOpa, Sidecar, grpc.Channel]) -> None:
    opa, sidecar, channel = beside
    opa.answer = held = Held()
    answers: list[Any] = []
    calling = _in_the_background(lambda: answers.append(wire.authorize(channel)))
    held.asked.wait(wire.DEADLINE)
    stopping = _in_the_background(sidecar.stop)
    wait_until(lambda: get(sidecar, "/readyz") == (503, "stopping\n"))
    alive = get(sidecar, "/livez")[0]
    held.let_go()
    calling.join(wire.DEADLINE)
    stopping.join(wire.DEADLINE)

    assert alive == 200
    assert [answer.effect for answer in answers] == [1]
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(sidecar, "/livez")


# ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def counting(sample_bundle: Path, short_path: Path) -> Iterator[tuple[Sidecar, grpc.Channel]]:
    """A sidecar that serves the sample bundle and has been asked nothing."""
    with running_sidecar(sidecar_settings(short_path, sample_bundle, listen__admin=ADMIN)) as running:
        yield running


def _decisions(sidecar: Sidecar) -> dict[tuple[str, str, str], float]:
    return {
        (sample.labels["method"], sample.labels["effect"], sample.labels["code"]): sample.value
        for sample in samples(sidecar, "tenantgate_decisions_total")
    }


def _failures(sidecar: Sidecar) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["method"], sample.labels["reason"]): sample.value
        for sample in samples(sidecar, "tenantgate_errors_total")
    }


def test_decisions_are_counted_by_effect_code_and_method(counting: tuple[Sidecar, grpc.Channel]) -> None:
    sidecar, channel = counting
    stub: Any = AuthorizationServiceStub(channel)
    for _ in range(3):
        wire.authorize(channel)
    wire.authorize(channel, wire.question(identity=wire.identity("nobody")))
    stub.BatchAuthorize(wire.batch(wire.ORDER_LOOKUP, "unknown", wire.ORDER_LOOKUP), timeout=wire.DEADLINE)
    stub.FilterTools(wire.tools(wire.ORDER_LOOKUP), timeout=wire.DEADLINE)

    assert _decisions(sidecar) == {
        ("Authorize", "ALLOW", "ALLOWED"): 3,
        ("Authorize", "DENY", "TENANT_UNKNOWN"): 1,
        ("BatchAuthorize", "ALLOW", "ALLOWED"): 2,
        ("BatchAuthorize", "DENY", "NO_MATCHING_RULE"): 1,
    }
    assert _failures(sidecar) == {}


def test_errors_are_counted_by_reason_and_method(counting: tuple[Sidecar, grpc.Channel]) -> None:
    sidecar, channel = counting
    stub: Any = AuthorizationServiceStub(channel)
    wire.failure(lambda: wire.authorize(channel, wire.question("")))
    stub.BatchAuthorize(wire.batch("", wire.ORDER_LOOKUP, ""), timeout=wire.DEADLINE)
    stub.FilterTools(wire.tools("", wire.ORDER_LOOKUP), timeout=wire.DEADLINE)

    assert _failures(sidecar) == {
        ("Authorize", "REQUEST_INVALID"): 1,
        ("BatchAuthorize", "REQUEST_INVALID"): 2,
        ("FilterTools", "REQUEST_INVALID"): 1,
    }
    assert _decisions(sidecar) == {("BatchAuthorize", "ALLOW", "ALLOWED"): 1}


def test_errors_of_opa_are_counted_by_reason(beside: tuple[FakeOpa, Sidecar, grpc.Channel]) -> None:
    opa, sidecar, channel = beside
    opa.answer = after_probes(lambda _: [decided({**ALLOW, "effect": "MAYBE"})])
    wire.failure(lambda: wire.authorize(channel))

    assert _failures(sidecar) == {("Authorize", "POLICY_RESULT_MALFORMED"): 1}
    assert _decisions(sidecar) == {}


def test_calls_that_are_refused_at_their_arrival_are_counted(beside: tuple[FakeOpa, Sidecar, grpc.Channel]) -> None:
    opa, sidecar, channel = beside
    opa.answer = held = Held()
    calling = _in_the_background(lambda: wire.authorize(channel))
    held.asked.wait(wire.DEADLINE)
    wire.failure(lambda: wire.authorize(channel))
    held.let_go()
    calling.join(wire.DEADLINE)
    wait_until(lambda: _decisions(sidecar))

    assert _failures(sidecar) == {("Authorize", "OVERLOADED"): 1}


def test_the_time_that_calls_take_is_measured_by_method(counting: tuple[Sidecar, grpc.Channel]) -> None:
    sidecar, channel = counting
    began = time.perf_counter()
    for _ in range(5):
        wire.authorize(channel)
    wire.failure(lambda: wire.authorize(channel, wire.question("")))
    wire.get_status(channel)
    took = time.perf_counter() - began

    assert value(sidecar, "tenantgate_call_seconds_count", method="Authorize") == 6
    assert value(sidecar, "tenantgate_call_seconds_count", method="GetStatus") == 1
    assert 0 < value(sidecar, "tenantgate_call_seconds_sum", method="Authorize") < took
    assert value(sidecar, "tenantgate_call_seconds_bucket", method="Authorize", le="+Inf") == 6


def test_each_sidecar_counts_its_own_calls(
    counting: tuple[Sidecar, grpc.Channel], beside: tuple[FakeOpa, Sidecar, grpc.Channel]
) -> None:
    wire.authorize(counting[1])

    assert (len(_decisions(counting[0])), len(_decisions(beside[1]))) == (1, 0)


# ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_tell_the_versions_and_the_registry_in_force(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        second = publisher.base(1)
        comes(channel, second)
        wait_until(lambda: wire.get_status(channel).revision == second)
        status = wire.get_status(channel)
        (build,) = samples(sidecar, "tenantgate_build_info")
        (info,) = samples(sidecar, "tenantgate_base_info")
        as_of = value(sidecar, "tenantgate_revision_as_of_seconds")
        age = value(sidecar, "tenantgate_revision_age_seconds")

    assert (build.labels, build.value) == ({"version": status.version, "opa_version": pinned_version()}, 1)
    assert (info.labels, info.value) == ({"revision": second}, 1)
    assert as_of == NOW / SECOND + 1
    assert abs(time.time() - as_of - age) < 60


def test_metrics_tell_where_each_bundle_stands(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        comes(channel, publisher.overlay(3, since=0))
        wait_until(lambda: bundle_status(channel).active and bundle_status(channel, "overlay").active)
        fresh = _bundles(sidecar)
    publisher.folder.rename(publisher.folder.with_name("away"))
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        wait_until(lambda: bundle_status(channel).active and bundle_status(channel, "overlay").active)
        kept = _bundles(sidecar)

    as_of = {"base": NOW / SECOND, "overlay": NOW / SECOND + 3}
    assert fresh == {kind: (as_of[kind], 1, 0) for kind in as_of}
    assert kept == {kind: (as_of[kind], 1, 1) for kind in as_of}


def _bundles(sidecar: Sidecar) -> dict[str, tuple[float, float, float]]:
    return {
        kind: (
            value(sidecar, "tenantgate_bundle_as_of_seconds", bundle=kind),
            value(sidecar, "tenantgate_bundle_active", bundle=kind),
            value(sidecar, "tenantgate_bundle_persisted", bundle=kind),
        )
        for kind in ("base", "overlay")
    }


def test_metrics_tell_what_opa_refuses(publisher: Publisher) -> None:
    good = publisher.base(0)
    files = publisher.base_files(1)
    files["tenantgate/mask/mask.rego"] = b"package"
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        comes(channel, good)
        publisher.put("base", pack(publisher.signed(files)))
        assert refused_for(channel, "NOT_ACTIVATED").revision == revision(1)
        refusals = value(sidecar, "tenantgate_bundle_refusals_total", bundle="base", reason="NOT_ACTIVATED")
        active = value(sidecar, "tenantgate_bundle_active", bundle="base")

    assert (refusals, active) == (1, 0)


def test_restarts_of_opa_are_counted(counting: tuple[Sidecar, grpc.Channel]) -> None:
    sidecar, channel = counting
    before = value(sidecar, "tenantgate_opa_restarts_total")
    os.kill(wire.get_status(channel).opa.pid, signal.SIGKILL)
    wait_until(lambda: value(sidecar, "tenantgate_opa_restarts_total") == before + 1)


# ── form ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_asks_for_open_metrics_gets_them(counting: tuple[Sidecar, grpc.Channel]) -> None:
    sidecar, channel = counting
    wire.authorize(channel)
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = urllib3.request("GET", f"{sidecar.admin_url}/metrics", headers=headers, retries=False, timeout=20)
    found = open_metrics(answer.data.decode())  # type: ignore[no-untyped-call]  # it has no types

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "tenantgate_decisions" in {family.name for family in found}


def test_no_admin_listener_is_there_unless_asked_for(short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, None, opa__address="unix:none")) as (sidecar, _):
        assert sidecar.admin_url == ""


@pytest.mark.parametrize("address", ["0.0.0.0:9000", "[::]:9000", "sidecar.example:9000"])
def test_an_admin_listener_that_other_hosts_can_reach_is_refused(address: str, short_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"listen\.admin: .* can be reached from other hosts"):
        sidecar_settings(short_path, None, listen__admin=address)


def test_an_admin_port_that_is_taken_stops_the_start(short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        sidecar = Sidecar(sidecar_settings(short_path, None, opa__address="unix:none", listen__admin=address))
        with pytest.raises(StartError, match=rf"listen\.admin: cannot listen on {address}: "):
            sidecar.start()
