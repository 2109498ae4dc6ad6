"""The commands of docs/publishing.md, read from the page, do what it says: with a table, buckets, and a stand-in for a KMS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from sidecar import seal
from sidecar.bundles.bundle import read_manifest, read_sizes
from sidecar.registry.attribute_values import typed
from sidecar.registry.edits import Change
from sidecar.registry.exports import Export
from sidecar.registry.table import RegistryTable
from tests.support.dynamodb import CREDENTIALS, ENVIRONMENT, JARS, running_dynamodb, why_missing
from tests.support.pages import like_a_clone, run
from tests.support.processes import REPOSITORY, wait_until
from tests.support.registries import in_force, layers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = (REPOSITORY / "docs" / "publishing.md").read_text()
BLOCKS = re.findall(r"^```(sh|console)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SAMPLE = REPOSITORY / "examples" / "quickstart" / "export"
TABLE = "tenantgate-registry"

# Signs as AWS KMS does, what the model of its API admits, with a key in a file: `aws kms sign` for the words that the page uses.
AWS = f"""#!{sys.executable}
import argparse, base64, pathlib, sys
import botocore.session
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_private_key

request = botocore.session.get_session().get_service_model("kms").operation_model("Sign").input_shape.members
words = argparse.ArgumentParser(allow_abbrev=False)
words.add_argument("operation", nargs=2, choices=["kms", "sign"])
words.add_argument("--key-id", required=True, choices=["alias/release"])
words.add_argument("--message", required=True)
words.add_argument("--message-type", default="RAW", choices=request["MessageType"].enum)
words.add_argument("--signing-algorithm", required=True, choices=request["SigningAlgorithm"].enum)
words.add_argument("--query", required=True, choices=["Signature"])
words.add_argument("--output", required=True, choices=["text"])
words = words.parse_args()
message = pathlib.Path(words.message.removeprefix("fileb://")).read_bytes()
assert len(message) <= request["Message"].metadata["max"]
assert words.signing_algorithm == "ECDSA_SHA_256"
digest = hashes.SHA256()
key = load_pem_private_key(pathlib.Path("build/release.key").read_bytes(), None)
how = ec.ECDSA(Prehashed(digest) if words.message_type == "DIGEST" else digest)
print(base64.b64encode(key.sign(message, how)).decode())
"""


def commands(block: str) -> list[str]:
    """Give the commands of a console block, each with the lines that it goes on in."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """S3 by moto, with the buckets of the page and an export in one; a client."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client: Any = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **CREDENTIALS)  # type: ignore[call-overload]
        for bucket in ("exports", "bundles"):
            client.create_bucket(Bucket=bucket)
        for path in SAMPLE.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "exports", f"registry/{path.relative_to(SAMPLE)}")
        yield client
        client.close()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def table() -> Iterator[RegistryTable]:
    """A table with the quickstart's registry, under the name that commands look for, in a DynamoDB of its own."""
    if missing := why_missing():
        pytest.skip(missing)
    with running_dynamodb(JARS) as running:
        table = RegistryTable(running.client, TABLE)
        table.init()
        table.write([Change(item) for item in Export(str(SAMPLE)).items()])
        yield table


class Clone:
    """A folder that looks like a clone, in which the commands of the page are run."""

    def __init__(self, folder: Path, s3: Any, table: RegistryTable) -> None:
        self.folder = folder
        like_a_clone(folder)
        aws = folder / "bin" / "aws"
        aws.parent.mkdir()
        aws.write_text(AWS)
        aws.chmod(0o755)
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            "PATH": f"{aws.parent}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB": table.client.meta.endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": table.client.meta.endpoint_url,
        }

    def run(self, command: str) -> str:
        """Run a command that ends by itself; give what it prints."""
        return run(command, self.folder, self.environment)

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """Run a command that goes on until it is told to stop."""
        with subprocess.Popen(
            ["bash", "-euc", f"exec {command}"], cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield
                assert process.poll() is None
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0

    def key_of(self, bundle: Path) -> str:
        """Check the seal of a bundle; give the id of the key that it is signed with."""
        public = seal.read_public_key(self.folder / "build" / "release.pub")
        with bundle.open("rb") as file:
            return seal.check(file, {public.id: public}).key_id


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, s3: Any, table: RegistryTable) -> None:
    clone = Clone(tmp_path, s3, table)
    ran = []
    for language, block in BLOCKS:
        for command in commands(block) if language == "console" else [block]:
            ran.append(command)
            if "bundle watch" in command:
                with clone.running(command):
                    _check_that_it_watches(clone, s3, table)
            else:
                clone.run(command)
            if "--sign-command" in command:
                assert clone.key_of(tmp_path / "build" / "base.tar.gz") == "release"
                assert read_manifest(tmp_path / "build" / "base.tar.gz").metadata.source.startswith("arn:aws:dynamodb:")
    assert [
        word for word in ("keygen", "--sign-command", "bundle watch", "--dry-run") if word not in "".join(ran)
    ] == []


def _check_that_it_watches(clone: Clone, s3: Any, table: RegistryTable) -> None:
    folder = clone.folder / "build" / "bundles"
    wait_until((folder / "overlay.tar.gz").exists, 30)
    table.client.put_item(TableName=TABLE, Item=typed({"pk": "TENANT#acme", "sk": "TENANT", "status": "SUSPENDED"}))

    def put_there() -> bool:
        listed = s3.list_objects_v2(Bucket="bundles", Prefix="registry/").get("Contents", [])
        names = {entry["Key"].removeprefix("registry/") for entry in listed}
        if names != {"base.tar.gz", "overlay.tar.gz"}:
            return False
        for name in names:
            s3.download_file("bundles", f"registry/{name}", str(clone.folder / name))
        registry = in_force(layers(clone.folder / "base.tar.gz", clone.folder / "overlay.tar.gz"))
        return bool(registry["tenants"]["acme"]["terms"]["status"] == "SUSPENDED")

    wait_until(put_there, 30)
    assert {clone.key_of(clone.folder / name) for name in ("base.tar.gz", "overlay.tar.gz")} == {"release"}


def test_a_kms_signs_for_more_files_than_it_takes_the_hashes_of(tmp_path: Path, s3: Any, table: RegistryTable) -> None:
    clone = Clone(tmp_path, s3, table)
    clone.run(".venv/bin/tenantgate bundle keygen build/release")
    for number in range(20):
        (tmp_path / "mine" / f"e{number}").mkdir(parents=True)
        (tmp_path / "mine" / f"e{number}" / "e.rego").write_text(f"package custom.e{number}\n\ndeny := set()\n")
    (command,) = [c for _, block in BLOCKS for c in commands(block) if "--sign-command" in c]
    clone.run(f"{command} --custom mine")
    assert clone.key_of(tmp_path / "build" / "base.tar.gz") == "release"
    assert read_sizes(tmp_path / "build" / "base.tar.gz")[seal.SIGNATURES] > 4096
