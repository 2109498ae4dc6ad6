"""Fixtures of the tests of containers. They need an engine and the images: `make test-containers` sees to both."""

from __future__ import annotations

import pytest

from tests.support.containers import DYNAMODB, OPA, SIDECAR, docker


@pytest.fixture(scope="session", autouse=True)
def _images() -> None:
    """The images must be there; that they are not is no reason to leave a test out."""
    for image in (SIDECAR, OPA, DYNAMODB):
        docker("image", "inspect", image)
