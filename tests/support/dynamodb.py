"""A real DynamoDB Local, started by the tests."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import boto3

from tests.support.processes import REPOSITORY, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JARS = REPOSITORY / ".tools" / "dynamodb-local"

CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "none",
    "AWS_SHARED_CREDENTIALS_FILE": "none",
    "AWS_MAX_ATTEMPTS": "1",
}
"""What a command needs besides the endpoint, and what keeps it from what the developer's machine has."""


class DynamoDb:
    """A DynamoDB that answers at ``url``; ``client`` is boto3's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = boto3.client("dynamodb", endpoint_url=url, **CREDENTIALS)  # type: ignore[call-overload]
        self._numbers = count(1)

    def fresh_name(self) -> str:
        """Give a name that no table has."""
        return f"registry-{next(self._numbers)}"


def why_missing() -> str | None:
    """Say why there is no DynamoDB Local, if there is none."""
    if not JARS.is_dir():
        return "DynamoDB Local is not installed: `make .tools/dynamodb-local`, which needs Java and Maven"
    return None if shutil.which("java") else "DynamoDB Local needs Java"


@contextmanager
def running_dynamodb(jars: Path) -> Iterator[DynamoDb]:
    """Run a DynamoDB Local for a while, in memory."""
    port = free_port()
    command: list[str | Path] = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
    command += [f"-Djava.library.path={jars}", "-cp", f"{jars}/*"]
    command += ["software.amazon.dynamodb.services.local.main.ServerRunner"]
    command += ["-inMemory", "-sharedDb", "-port", str(port), "-disableTelemetry"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or _answers(port), 60)
            assert process.poll() is None, f"DynamoDB Local ended with {process.returncode}"
            running = DynamoDb(f"http://127.0.0.1:{port}")
            with closing(running.client):
                yield running
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    """Tell whether it answers HTTP: without credentials, that it does not let the caller in."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.HTTPStatus.BAD_REQUEST
        except (OSError, http.client.HTTPException):
            return False
