"""Fixtures of the integration tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc


@pytest.fixture(scope="session")
def sample(sample_bundle: Path) -> Iterator[grpc.Channel]:
    """A channel to a sidecar that serves the sample bundle. It is shared: tests only ask it questions."""
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as folder,
        running_sidecar(sidecar_settings(Path(folder), sample_bundle)) as (_, channel),
    ):
        yield channel
