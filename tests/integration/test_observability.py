"""Metrics of what stands behind the doors, and the dashboard, the rules and the page that are made of metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import grpc
import pytest
import yaml

from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from tests.support import authzen, wire
from tests.support.exchanges import exchanging
from tests.support.fake_opa import Held, after_probes, fake_opa, http
from tests.support.following import comes, following
from tests.support.metrics import families, samples, value
from tests.support.processes import REPOSITORY, running_sidecar, sidecar_settings, wait_until
from tests.support.prometheus import OBSERVABILITY, expanded, promtool, running_prometheus, why_missing
from tests.support.sts import ENVIRONMENT, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.server import Sidecar
    from tests.support.bundles import Publisher
    from tests.support.exchanges import Exchanging

ADMIN = "127.0.0.1:0"
AUTHORIZE = "tenantgate/authorize/decision"
PAGE = REPOSITORY / "docs" / "observability.md"

needs_prometheus = pytest.mark.skipif(bool(why_missing()), reason=why_missing())


# ── the engine ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _asked(sidecar: Sidecar, entrypoint: str) -> float:
    return value(sidecar, "tenantgate_opa_query_seconds_count", entrypoint=entrypoint)


def _by_reason(sidecar: Sidecar, name: str) -> dict[str, float]:
    return {sample.labels["reason"]: sample.value for sample in samples(sidecar, name) if sample.value}


def test_queries_to_opa_are_measured_by_entrypoint(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, listen__admin=ADMIN, **authzen.ASSERTED)
    with running_sidecar(settings) as (sidecar, channel):
        stub: Any = AuthorizationServiceStub(channel)
        wire.authorize(channel)
        stub.BatchAuthorize(wire.batch(wire.ADMIN_REFUND), timeout=wire.DEADLINE)
        stub.FilterTools(wire.tools(wire.ORDER_LOOKUP), timeout=wire.DEADLINE)
        counts = [_asked(sidecar, name) for name in ("tenantgate/batch/decisions", "tenantgate/tools/listing")]
        probes = _asked(sidecar, AUTHORIZE)

    assert counts == [1, 1]
    assert probes >= 2  # the call, and one probe at least


def test_queries_that_opa_does_not_answer_are_counted_by_reason(short_path: Path) -> None:
    with fake_opa(short_path / "fake.sock") as opa:
        settings = sidecar_settings(short_path / "s", None, opa__address=opa.address, listen__admin=ADMIN)
        with running_sidecar(settings) as (sidecar, channel):
            opa.answer = after_probes(lambda _: [http({}, 500)])
            wire.failure(lambda: wire.authorize(channel))
            opa.answer = after_probes(lambda _: [b"nonsense\r\n\r\n"])
            wire.failure(lambda: wire.authorize(channel))
            found = _by_reason(sidecar, "tenantgate_opa_failures_total")

    assert found == {"POLICY_EVALUATION_FAILED": 1, "POLICY_ENGINE_UNAVAILABLE": 1}


def test_what_is_worked_on_is_told_with_its_limit(short_path: Path) -> None:
    gate = Held()
    with fake_opa(short_path / "fake.sock", gate) as opa:
        settings = sidecar_settings(
            short_path / "s",
            None,
            opa__address=opa.address,
            opa__timeout_seconds=60,
            listen__admin=ADMIN,
            limits__in_flight=7,
            **authzen.ASSERTED,
        )
        with running_sidecar(settings) as (sidecar, channel):
            calling = threading.Thread(target=wire.authorize, args=(channel,))
            calling.start()
            gate.asked.wait(wire.DEADLINE)
            during = value(sidecar, "tenantgate_in_flight", kind="calls")
            gate.let_go()
            calling.join()
            wait_until(lambda: value(sidecar, "tenantgate_in_flight", kind="calls") == 0)
            limits = {sample.labels["kind"]: sample.value for sample in samples(sidecar, "tenantgate_in_flight_limit")}

    assert during == 1
    assert limits == {"calls": 7, "authzen": 7, "watchers": 8, "waiting": 8}


def test_questions_that_travel_together_are_counted(short_path: Path) -> None:
    gate = Held()
    with fake_opa(short_path / "fake.sock", gate) as opa:
        settings = sidecar_settings(
            short_path / "s", None, opa__address=opa.address, opa__timeout_seconds=60, listen__admin=ADMIN
        )
        with running_sidecar(settings) as (sidecar, channel):
            gate.let_go()
            for name in ("one", "two", "three"):
                wire.authorize(channel, wire.question(name))
            count = value(sidecar, "tenantgate_opa_questions_count")
            total = value(sidecar, "tenantgate_opa_questions_sum")
            alone = value(sidecar, "tenantgate_opa_questions_bucket", le="1")

    assert (count, total, alone) == (3, 3, 3)


# ── identity and credentials ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def parts() -> Iterator[Exchanging]:
    with exchanging() as made:
        yield made


@pytest.fixture
def world(parts: Exchanging, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanging]:
    """A sidecar that exchanges tokens, and says what it counts."""
    for name, content in ENVIRONMENT.items():
        monkeypatch.setenv(name, content)
    parts.reset()
    with parts.running(listen__admin=ADMIN):
        yield parts


def test_credentials_are_counted_by_where_they_come_from(world: Exchanging) -> None:
    token = world.token()
    for _ in range(3):
        world.call(token)

    assert value(world.sidecar, "tenantgate_sts_calls_total") == 1
    assert value(world.sidecar, "tenantgate_credentials_hits_total") == 2
    assert _by_reason(world.sidecar, "tenantgate_sts_failures_total") == {}


def test_credentials_that_sts_does_not_give_are_counted_by_reason(world: Exchanging) -> None:
    world.sts.answer = lambda _: refusal("AccessDenied", "no")
    world.failure()

    assert value(world.sidecar, "tenantgate_sts_calls_total") == 1
    assert _by_reason(world.sidecar, "tenantgate_sts_failures_total") == {"CREDENTIALS_NOT_GIVEN": 1}


def test_tokens_that_are_not_believed_are_counted_by_reason(world: Exchanging) -> None:
    good = world.token()
    world.call(good)
    for token in ("not-a-token", good[:-4] + "AAAA", good[:-8] + "AAAAAAAA"):
        world.failure(token)

    found = _by_reason(world.sidecar, "tenantgate_tokens_refused_total")
    assert sum(found.values()) == 3
    assert found["TOKEN_MALFORMED"] == 1
    assert found["TOKEN_SIGNATURE"] >= 1


def test_the_keys_of_an_issuer_are_told(world: Exchanging) -> None:
    issuer = world.issuer.settings()["issuer"]

    assert value(world.sidecar, "tenantgate_keys", issuer=issuer) == 1
    assert value(world.sidecar, "tenantgate_key_looks_total", issuer=issuer) >= 1
    assert value(world.sidecar, "tenantgate_key_failures_total", issuer=issuer) == 0


# ── how many series there are ───────────────────────────────────────────────────────────────────────────────────────────

_HOSTILE = ("", "x" * 200, 'a"b', "a{b=1}", "a,b", "\\n", "ALLOW", "büro 7", "agent:probe", "../..", "%00", "tenant_id")


def _series(sidecar: Sidecar) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))) for family in families(sidecar) for sample in family.samples
    }


def test_what_callers_make_up_makes_no_series(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, listen__admin=ADMIN, **authzen.ASSERTED)
    with running_sidecar(settings) as (sidecar, channel):
        _hostile(sidecar, channel, "warm")
        before = _series(sidecar)
        for name in _HOSTILE:
            _hostile(sidecar, channel, name)
        after = _series(sidecar)

    assert after - before == set()


def _hostile(sidecar: Sidecar, channel: grpc.Channel, name: str) -> None:
    """Put a name wherever a caller may put one, and do what leads to each kind of answer."""
    stub: Any = AuthorizationServiceStub(channel)
    header = name if name.isascii() and name.isprintable() else "x"
    for identity in (
        wire.identity(name),
        wire.identity(principal=name),
        wire.identity(subject=name),
        wire.identity(roles=[name], scopes=[name]),
        wire.identity("Tenant-A"),
        wire.identity("nobody"),
        wire.identity(subject="mallory"),
        wire.identity(principal="alice"),
        wire.identity(""),
    ):
        for request in (
            wire.question(identity=identity, arguments={name: name}),
            wire.question(name, identity=identity),
            wire.question(identity=identity, resource=wire.resource("x", name)),
            wire.question(identity=identity, action={"name": name}),
        ):
            _anyhow(lambda request=request: wire.authorize(channel, request, metadata=(("x-tenant-id", header),)))
            _anyhow(lambda request=request: wire.authorize(channel, request))
        _anyhow(lambda identity=identity: stub.BatchAuthorize(wire.batch(name, identity=identity), timeout=20))
        _anyhow(lambda identity=identity: stub.FilterTools(wire.tools(name, identity=identity), timeout=20))
    for method in (name, "Authorize", "/tenantgate.v1.AuthorizationService/" + name):
        unknown: Any = channel.unary_unary(f"/{method}" if method.isascii() else "/x")
        _anyhow(lambda unknown=unknown: unknown(b"", timeout=wire.DEADLINE))
    for path in (authzen.EVALUATION, "/" + "".join(letter for letter in name if letter.isalnum() and letter.isascii())):
        for asked in (authzen.evaluation(name, name, name), authzen.evaluation("alice", "invoke", "x"), {}):
            authzen.post(sidecar, path, asked)


def _anyhow(call: Any) -> None:
    with suppress(grpc.RpcError, UnicodeError):
        call()


def test_revisions_make_no_series(publisher: Publisher) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        comes(channel, publisher.overlay(1, since=0))
        before = _series(sidecar)
        comes(channel, publisher.overlay(2, since=0))
        after = _series(sidecar)

    assert after - before == set()


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_ROW = re.compile(r"^\| `((?:tenantgate|process)_[a-z_]+)(?:{([a-z_,]+)})?` \| (.+) \|$", re.MULTILINE)
_FAMILY = re.compile(r'(Counter|Gauge|Histogram)MetricFamily\(\s*"(tenantgate_[a-z_]+)"')


def _documented() -> dict[str, set[str]]:
    return {name: {*filter(None, labels.split(","))} for name, labels, _ in _ROW.findall(PAGE.read_text())}


def _told(sidecar: Sidecar) -> dict[str, set[str]]:
    """Give the metrics that have samples, with their labels."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in sample.labels
        }
        - {"le"}
        for family in families(sidecar)
        if family.samples
    }


def test_the_page_lists_every_metric_and_no_other() -> None:
    source = "\n".join(path.read_text() for path in (REPOSITORY / "sidecar").rglob("*.py"))
    made = {name + ("_total" if kind == "Counter" else "") for kind, name in _FAMILY.findall(source)}
    of_processes = {name for name in _documented() if "process_" in name}

    assert {*_documented()} - of_processes == made


def test_the_page_tells_the_labels(world: Exchanging, publisher: Publisher) -> None:
    publisher.base(0)
    world.call()
    world.failure("no-token")
    told = _told(world.sidecar)
    with running_sidecar(following(publisher, listen__admin=ADMIN)) as (sidecar, channel):
        wire.authorize(channel)
        wire.failure(lambda: wire.authorize(channel, wire.question("")))
        wait_until(lambda: "tenantgate_bundle_active" in _told(sidecar))
        told |= _told(sidecar)
    documented = _documented()

    assert told == {name: documented.get(name) for name in told}
    assert {name for name in documented if "process_" in name} == {name for name in told if "process_" in name}


def test_the_page_says_for_each_alert_what_to_do() -> None:
    documented = re.findall(r"^\| `(Tenantgate[A-Za-z]+)` \| .+ \|$", PAGE.read_text(), re.MULTILINE)

    assert documented == [rule["alert"] for rule in _rules()]


# ── the dashboard and the rules ─────────────────────────────────────────────────────────────────────────────────────────


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    return read


def _expressions() -> list[str]:
    return [target["expr"] for panel in _dashboard()["panels"] for target in panel.get("targets", [])]


def _metrics_of(expression: str) -> set[str]:
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    names = set(re.findall(r"\b((?:tenantgate|process)_[a-z_]+)\b", without_strings))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_every_metric_of_the_dashboard_and_of_the_rules_exists() -> None:
    asked = [*_expressions(), *(rule["expr"] for rule in _rules())]
    names = set().union(*map(_metrics_of, asked))

    assert names <= {*_documented()}
    assert len(names) > 30


def test_the_dashboard_shows_every_metric_but_a_few() -> None:
    shown = set().union(*map(_metrics_of, _expressions()))
    hidden = {name for name in _documented() if name not in shown}

    # what is constant, or said by another
    assert hidden == {
        "tenantgate_build_info",
        "tenantgate_base_info",
        "tenantgate_revision_as_of_seconds",
        "tenantgate_key_looks_total",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
        "tenantgate_opa_process_virtual_memory_bytes",
        "tenantgate_opa_process_start_time_seconds",
    }


def test_the_panels_of_the_dashboard_have_ids_titles_and_places_of_their_own() -> None:
    panels = _dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert len(cells) == len({*cells})
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert panel["type"] in {"row", "stat", "timeseries"}
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


@needs_prometheus
def test_prometheus_takes_the_example_and_the_rules() -> None:
    for done in (promtool("check", "config", "prometheus.yaml"), promtool("check", "rules", "alerts.yaml")):
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_each_alert_fires_when_it_should_and_none_when_all_is_well() -> None:
    done = promtool("test", "rules", "alerts.test.yaml")
    tested = (OBSERVABILITY / "alerts.test.yaml").read_text()

    assert done.returncode == 0, done.stdout + done.stderr
    for rule in _rules():
        assert tested.count(f"alertname: {rule['alert']}") == 2, rule["alert"]


@needs_prometheus
def test_prometheus_evaluates_every_panel_and_rule_over_a_real_sidecar(publisher: Publisher, short_path: Path) -> None:
    publisher.base(0)
    with running_sidecar(following(publisher, listen__admin=ADMIN, **authzen.ASSERTED)) as (sidecar, channel):
        address = sidecar.admin_url.removeprefix("http://")
        with running_prometheus(short_path, address, seconds=0.2) as prometheus:
            wait_until(lambda: prometheus.ask("query", query="tenantgate_serving")["result"])
            wire.authorize(channel)
            wait_until(lambda: prometheus.ask("query", query="rate(tenantgate_decisions_total[1m])")["result"])
            for expression in _expressions():
                prometheus.ask("query", query=expanded(expression, "1m"))
            rules = prometheus.ask("rules")["groups"][0]["rules"]

    assert [rule["health"] for rule in rules] == ["ok"] * len(_rules())


@needs_prometheus
def test_the_picture_of_the_dashboard_is_made_of_a_real_run(tmp_path: Path) -> None:
    out = tmp_path / "dashboard.svg"
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.dashboard", "--seconds", "20", "--out", out]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    for picture in (out, REPOSITORY / "docs" / "dashboard.svg"):
        texts = [element.text for element in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
        assert {panel["title"] for panel in _dashboard()["panels"]} <= {*texts}
        assert texts.count("No data") <= 4  # no TLS, one process, and a fault that nobody noticed in so short a time
