"""Metrics as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import urllib3
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric
    from prometheus_client.samples import Sample

    from sidecar.server import Sidecar


def get(sidecar: Sidecar, path: str, **headers: str) -> tuple[int, str]:
    """Ask the admin listener; give the status and the body."""
    answer = urllib3.request("GET", sidecar.admin_url + path, headers=headers, retries=False, timeout=20)
    return answer.status, answer.data.decode()


def families(sidecar: Sidecar) -> Iterable[Metric]:
    """Give all metrics of a sidecar that has an admin listener."""
    status, text = get(sidecar, "/metrics")
    assert status == 200
    return text_string_to_metric_families(text)


def samples(sidecar: Sidecar, name: str, **labels: str) -> list[Sample]:
    """Give the samples of a name that have at least these labels."""
    return [
        sample
        for family in families(sidecar)
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]


def value(sidecar: Sidecar, name: str, **labels: str) -> float:
    """Give the value of the one sample that has a name and these labels; 0 if there is none."""
    found = samples(sidecar, name, **labels)
    assert len(found) <= 1, found
    return found[0].value if found else 0.0
