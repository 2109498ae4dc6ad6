"""The image of OPA: it holds OPA and nothing to break in with, and is well when it has what it decides by."""

from __future__ import annotations

import json
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from testcontainers.core.network import Network

from tests.support.bundles import Key, Publisher
from tests.support.containers import GIVEN, OPA, SIDECAR, confined, docker, inspected, run_in, until_healthy
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testcontainers.core.container import DockerContainer

ASK = 'http.send({"method": "get", "url": "http://127.0.0.1:8282/health?bundles", "raise_error": false}).status_code'


def test_there_is_nothing_in_it_but_opa_its_configurations_and_certificates(tmp_path: Path) -> None:
    name = docker("create", OPA).strip()
    try:
        docker("export", "--output", tmp_path / "image.tar", name)
    finally:
        docker("rm", name)
    with tarfile.open(tmp_path / "image.tar") as tar:
        files = {member.name for member in tar if member.isfile() and member.size}

    assert files == {"opa", "etc/opa/separate.yaml", "etc/opa/separate-s3.yaml", "etc/ssl/certs/ca-certificates.crt"}
    assert inspected(OPA)["Config"]["User"] == "65532:65532"


@contextmanager
def following(sample_bundle: Path, folder: Path, signing: Key | None) -> Iterator[DockerContainer]:
    """Prepare an OPA that trusts one key, and run a server of bundles for it, signed or not; the sidecar's image serves them."""
    folder.chmod(0o755)
    key = signing or Key(folder)
    publisher = Publisher(sample_bundle, folder / "published", signing)
    publisher.base(0)
    publisher.overlay(1, since=0)
    (folder / "token").write_text("secret")
    serve = ["bundle", "serve", f"{GIVEN}/published", "--listen", "0.0.0.0:8282", "--token-file", f"{GIVEN}/token"]
    environment = {
        "BUNDLE_URL": "http://publisher:8282",
        "BUNDLE_TOKEN": "secret",
        "BUNDLE_KEY": json.dumps(key.public.read_text())[1:-1],
    }
    with Network() as network:
        server = confined(SIDECAR, folder).with_command(serve).with_network(network)
        with server.with_network_aliases("publisher"):
            yield confined(OPA, None, **environment).with_network(network)


def test_it_is_well_with_bundles_that_its_key_has_signed(sample_bundle: Path, tmp_path: Path) -> None:
    with following(sample_bundle, tmp_path, Key(tmp_path)) as opa, until_healthy(opa) as running:
        assert run_in(running, "/opa", "eval", "--format=raw", ASK) == (0, "200\n")


def test_it_is_not_well_with_bundles_that_nobody_has_signed(sample_bundle: Path, tmp_path: Path) -> None:
    with following(sample_bundle, tmp_path, None) as opa, opa as running:
        wait_until(lambda: "Bundle load failed" in running.get_logs()[1].decode(), 60)
        assert run_in(running, "/opa", "eval", "--format=raw", ASK) == (0, "500\n")
