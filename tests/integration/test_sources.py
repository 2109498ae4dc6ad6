"""Where published bundles are fetched from: directories, HTTP servers and S3, as they are and as they fail."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.support import wire
from tests.support.certificates import Authority
from tests.support.following import bundle_status, comes, following, published_at
from tests.support.processes import running_sidecar, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.bundles import Publisher


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "directory"])
def test_what_is_no_file_is_no_bundle(make: Callable[[Path], None], publisher: Publisher) -> None:
    base = publisher.base(0)
    with running_sidecar(following(publisher)) as (_, channel):
        (publisher.folder / "base.tar.gz").unlink()
        make(publisher.folder / "base.tar.gz")
        wait_until(lambda: bundle_status(channel).error)

        assert wire.authorize(channel).revision == base


def test_bundles_come_over_http_as_they_are_published(publisher: Publisher, short_path: Path) -> None:
    (short_path / "token").write_text("secret\n")
    publisher.base(0)
    with published_at(publisher, "secret") as endpoint:
        # What is not found by long polling would take longer than the test waits.
        settings = following(
            publisher, endpoint.url, bundles__token_file=str(short_path / "token"), bundles__poll_seconds=0.5
        )
        with running_sidecar(settings) as (_, channel):
            comes(channel, publisher.base(1))
            comes(channel, publisher.base(2))
            comes(channel, publisher.overlay(4, since=2))


def test_a_wrong_token_is_told_in_status(publisher: Publisher, short_path: Path) -> None:
    (short_path / "token").write_text("guessed")
    publisher.base(0)
    with published_at(publisher, "secret") as endpoint:
        settings = following(publisher, endpoint.url, bundles__token_file=str(short_path / "token"))
        with running_sidecar(settings) as (_, channel):
            assert "HTTP status 401" in wire.get_status(channel).problem


def test_an_http_server_may_go_and_come_back(publisher: Publisher) -> None:
    base = publisher.base(0)
    with published_at(publisher) as endpoint:
        port = int(endpoint.url.rpartition(":")[2])
        settings = following(publisher, endpoint.url, bundles__poll_seconds=0.05)
        with running_sidecar(settings) as (_, channel):
            endpoint.stop()
            wait_until(lambda: bundle_status(channel).error)
            assert wire.authorize(channel).revision == base
            second = publisher.base(1)
            with published_at(publisher, port=port):
                comes(channel, second)


def test_a_server_without_long_polling_is_asked_again_and_again(publisher: Publisher) -> None:
    publisher.base(0)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(publisher.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().partition("(")[2].partition("/)")[0]
            with running_sidecar(following(publisher, url, bundles__poll_seconds=0.05)) as (_, channel):
                comes(channel, publisher.base(1))
                comes(channel, publisher.overlay(2, since=1))
        finally:
            server.kill()


@contextmanager
def _https(publisher: Publisher, certificate: Path) -> Iterator[str]:
    """Serve over HTTPS what is published; give the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=publisher.folder)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Leave it out."""


def test_bundles_come_over_https_from_a_server_with_a_certificate_of_the_authority_that_is_named(
    publisher: Publisher, short_path: Path
) -> None:
    ours = Authority(short_path, "authority")
    publisher.base(0)
    with _https(publisher, ours.certify("127.0.0.1")) as url:
        settings = following(publisher, url, bundles__ca_file=str(ours.file), bundles__poll_seconds=0.05)
        with running_sidecar(settings) as (_, channel):
            comes(channel, publisher.base(1))
            comes(channel, publisher.overlay(2, since=1))

            assert [bundle_status(channel, kind).error for kind in ("base", "overlay")] == ["", ""]


@pytest.mark.parametrize("named", [True, False], ids=["another", "the system's"])
def test_a_certificate_of_another_authority_is_told_in_status(
    named: bool,  # noqa: FBT001 - a parameter
    publisher: Publisher,
    short_path: Path,
) -> None:
    ours, other = Authority(short_path, "authority"), Authority(short_path, "other")
    publisher.base(0)
    with _https(publisher, ours.certify("127.0.0.1")) as url:
        settings = following(publisher, url, bundles__ca_file=str(other.file) if named else None)
        with running_sidecar(settings) as (_, channel):
            problem = wire.get_status(channel).problem

    authorities = f"bundles.ca_file {other.file}" if named else "the certificates of the system"
    assert problem.startswith(f"there is no base bundle: {url}/base.tar.gz (checked against {authorities}): ")
    assert "certificate verify failed" in problem


@pytest.mark.parametrize("content", [None, "nothing"], ids=["not there", "no certificates"])
def test_an_authority_that_cannot_be_read_is_told_in_status(
    content: str | None, publisher: Publisher, short_path: Path
) -> None:
    ours, wrong = Authority(short_path, "authority"), short_path / "wrong.pem"
    if content is not None:
        wrong.write_text(content)
    publisher.base(0)
    with _https(publisher, ours.certify("127.0.0.1")) as url:
        settings = following(publisher, url, bundles__ca_file=str(wrong), bundles__poll_seconds=0.05)
        with running_sidecar(settings) as (_, channel):
            problem = wire.get_status(channel).problem
            ours.file.replace(wrong)
            comes(channel, publisher.base(1))

    assert f"{url}/base.tar.gz (checked against bundles.ca_file {wrong}): " in problem


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A bucket named ``published``, as moto has it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="published")
    yield client
    client.close()
    server.stop()


def test_bundles_come_from_s3(publisher: Publisher, bucket: Any) -> None:
    def put(kind: str) -> None:
        bucket.put_object(Bucket="published", Key=f"registry/{kind}.tar.gz", Body=publisher.get(kind))

    first = publisher.base(0)
    put("base")
    settings = following(publisher, "s3://published/registry", bundles__poll_seconds=0.05)
    with running_sidecar(settings) as (_, channel):
        assert wire.authorize(channel).revision == first
        second = publisher.base(1)
        put("base")
        comes(channel, second)
        overlay = publisher.overlay(2, since=1)
        put("overlay")
        comes(channel, overlay)
        assert [bundle_status(channel, name).error for name in ("base", "overlay")] == ["", ""]
