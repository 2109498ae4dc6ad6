"""Fixtures that all tests may use."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.dynamodb import JARS, running_dynamodb, why_missing
from tests.support.processes import OPA, build_bundle, running_opa
from tests.support.registries import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.dynamodb import DynamoDb
    from tests.support.processes import PolicyOpa

# In CI a failure must be due to the change at hand; elsewhere chance may find something new.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def opa_binary() -> Path:
    """The pinned OPA."""
    return OPA


@pytest.fixture(scope="session")
def policy_opa() -> Iterator[PolicyOpa]:
    """An OPA with the policies loaded and no registry yet."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder, running_opa(Path(folder)) as opa:
        yield opa


@pytest.fixture(scope="session")
def sample_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the sample export."""
    return build_bundle(DATA / "export-full", tmp_path_factory.mktemp("bundle") / "bundle.tar.gz")


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[DynamoDb]:
    """A DynamoDB Local, with a client; tests that need it are skipped where it is not installed."""
    if missing := why_missing():
        pytest.skip(missing)
    with running_dynamodb(JARS) as running:
        yield running


@pytest.fixture
def table_name(dynamodb: DynamoDb) -> str:
    """A name that no other test gives to its table."""
    return dynamodb.fresh_name()
