"""Fixtures of the integration tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.support.bundles import Key, Publisher
from tests.support.processes import running_sidecar, sidecar_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from sidecar.server import Sidecar


@pytest.fixture(scope="session", autouse=True)
def _logs_to_pytest() -> None:
    """Have pytest keep the logs of sidecars within this process, so that they do not mix with what commands print."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


@pytest.fixture(scope="session")
def sample_sidecar(sample_bundle: Path) -> Iterator[tuple[Sidecar, grpc.Channel]]:
    """A sidecar that serves the sample bundle. It is shared: tests only ask it questions."""
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as folder,
        running_sidecar(sidecar_settings(Path(folder), sample_bundle)) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def sample(sample_sidecar: tuple[Sidecar, grpc.Channel]) -> grpc.Channel:
    """A channel to the sidecar that serves the sample bundle."""
    return sample_sidecar[1]


@pytest.fixture(scope="session")
def sample_address(sample_sidecar: tuple[Sidecar, grpc.Channel]) -> str:
    """The address of the sidecar that serves the sample bundle."""
    return sample_sidecar[0].addresses[0]


@pytest.fixture
def publisher(sample_bundle: Path, short_path: Path) -> Publisher:
    """Publishes in a directory, and signs."""
    return Publisher(sample_bundle, short_path / "published", Key(short_path))
