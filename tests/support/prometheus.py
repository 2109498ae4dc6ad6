"""Prometheus and promtool, as ``tests/prometheus/install`` puts them into the clone."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from tests.support.processes import REPOSITORY, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = REPOSITORY / ".tools" / "prometheus"
OBSERVABILITY = REPOSITORY / "deploy" / "observability"


def why_missing() -> str:
    """Say why it is not there; empty if it is."""
    return "" if FOLDER.is_dir() else "no Prometheus in .tools/prometheus: run tests/prometheus/install, which says why"


def expanded(expression: str, rate: str) -> str:
    """Give a query of the dashboard without the variables of Grafana; ``rate`` is over how long rates are taken."""
    for name, content in (("$job", "tenantgate"), ("$instance", ".*"), ("$__rate_interval", rate)):
        expression = expression.replace(name, content)
    return expression


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool among the files of ``deploy/observability``."""
    command = [FOLDER / "promtool", *arguments]
    return subprocess.run(command, cwd=OBSERVABILITY, capture_output=True, text=True, timeout=60, check=False)


class Prometheus:
    """A Prometheus that runs, at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/); give the data of the answer."""
        url = f"{self.url}/api/v1/{path}?{urlencode(parameters)}"
        answer = json.loads(urllib3.request("GET", url, retries=False, timeout=20).data)
        assert answer["status"] == "success", answer
        return answer["data"]

    def range(self, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """Evaluate an expression over a time, in seconds since 1970; give its series."""
        given = {"start": str(begin), "end": str(end), "step": str(step)}
        series: list[dict[str, Any]] = self.ask("query_range", query=expression, **given)["result"]
        return series


@contextmanager
def running_prometheus(folder: Path, *addresses: str, seconds: float = 1.0) -> Iterator[Prometheus]:
    """Run a Prometheus for a while that scrapes addresses, as the job ``tenantgate``, every so many seconds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": f"{seconds * 1000:.0f}ms", "evaluation_interval": f"{seconds * 1000:.0f}ms"},
        "rule_files": [str(OBSERVABILITY / "alerts.yaml")],
        "scrape_configs": [{"job_name": "tenantgate", "static_configs": [{"targets": [*addresses]}]}],
    }
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    command: list[str | Path] = [
        FOLDER / "prometheus",
        "--config.file",
        folder / "prometheus.yaml",
        "--log.level",
        "error",
    ]
    command += ["--storage.tsdb.path", folder / "prometheus", "--web.listen-address", address]
    process = subprocess.Popen(command)
    prometheus = Prometheus(f"http://{address}")
    try:
        wait_until(lambda: _ready(prometheus), timeout=30.0)
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)


def _ready(prometheus: Prometheus) -> bool:
    try:
        return urllib3.request("GET", f"{prometheus.url}/-/ready", retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False
