"""The bench of throughput runs, and writes the numbers that it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sidecar.bundles.bundle import read_manifest
from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest
from tests.bench.loads import GHZ, LOAD, Server, over_grpc
from tests.bench.questions import write_requests
from tests.bench.report import TITLES, as_markdown
from tests.bench.throughput import Bench, Plan
from tests.support.processes import EXTENSIONS, REPOSITORY

KINDS = ("echo", "hit", "miss", "miss_extended", "zipf", "batch50_hit", "batch50_miss", "filter200", "opa_rest")
NUMBERS = ("per_second", "p50_us", "p99_us", "cpu_us")

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (GHZ.exists() and LOAD.exists()),
        reason="what makes the load is not built: `make .tools/ghz .tools/load`, with Go",
    ),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the quick bench writes."""
    out: Path = tmp_path_factory.mktemp("b") / "bench.json"
    command = [sys.executable, "-m", "tests.bench.throughput", "--quick", "--out", str(out)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(out.read_text())


def test_every_kind_of_call_has_its_numbers(measured: Any) -> None:
    assert [(kind, number) for kind in KINDS for number in NUMBERS if not measured[kind][number] > 0] == []
    assert all(measured[kind]["one"][number] > 0 for kind in KINDS for number in NUMBERS)


def test_a_batch_is_counted_by_its_decisions(measured: Any) -> None:
    for kind, items in (("batch50_hit", 50), ("batch50_miss", 50), ("filter200", 200), ("hit", 1)):
        row = measured[kind]
        assert row["decisions_per_second"] == pytest.approx(row["per_second"] * items, rel=0.1)


def test_the_page_shows_every_kind_of_call(measured: Any) -> None:
    page = as_markdown(measured)
    assert [kind for kind in KINDS if f"| {measured[kind]['per_second']:,.0f} |" not in page] == []


def test_the_picture_leaves_out_the_call_with_an_extension(measured: Any) -> None:
    title, picture = TITLES["miss_extended"], as_markdown(measured).split("```")[1]
    assert TITLES["miss"] in picture
    assert title not in picture


def test_a_bundle_has_an_extension_only_if_that_is_what_is_measured(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bench = Bench(Plan(), tmp_path, stack)
        bundles = bench.build(20), bench.build(20, EXTENSIONS)
    plain, extended = (read_manifest(bundle).metadata for bundle in bundles)
    assert (plain.extensions, extended.extensions) == ((), ("change_freeze",))
    assert plain.counts == extended.counts


def test_calls_that_fail_are_not_counted_as_fast(sample_address: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "requests", [AuthorizeRequest()])
    (tmp_path / "metadata").write_text("{}")
    server = Server(Path(sample_address.removeprefix("unix:")), [os.getpid()])
    method = "tenantgate.v1.AuthorizationService/Authorize"
    workload = over_grpc(server, method, tmp_path / "requests", tmp_path / "metadata")
    with pytest.raises(SystemExit, match=r"not every call succeeded.*InvalidArgument"):
        workload.run(1, 0.1)
