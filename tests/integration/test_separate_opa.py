"""An OPA of one's own, with the configurations that are shipped for it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import urllib3
from moto.core.authorization import enable_iam_authentication
from moto.server import ThreadedMotoServer

from tests.support.bundles import pack
from tests.support.following import comes, published_at, revision_of
from tests.support.processes import running_sidecar, separate_opa, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.settings import Settings
    from tests.support.bundles import Publisher


@contextmanager
def _own_opa(config: str, publisher: Publisher, folder: Path, values: dict[str, str]) -> Iterator[Settings]:
    """Run OPA with a configuration; give settings for a sidecar beside it."""
    assert publisher.key is not None
    with separate_opa(config, folder, publisher.key.public, values) as address:
        yield sidecar_settings(folder / "state", None, opa__address=address)


def test_opa_takes_the_configuration_of_a_separate_one(publisher: Publisher, short_path: Path) -> None:
    publisher.base(0)
    overlay = publisher.overlay(1, since=0)
    with published_at(publisher, "secret") as endpoint:
        values = {"BUNDLE_URL": endpoint.url, "BUNDLE_TOKEN": "secret"}
        with (
            _own_opa("separate.yaml", publisher, short_path, values) as settings,
            running_sidecar(settings) as (_, channel),
        ):
            comes(channel, overlay)
            publisher.put("base", pack(publisher.base_files(9)))
            assert revision_of(channel) == overlay

    assert (short_path / "persisted").exists()


@pytest.fixture
def s3() -> Iterator[tuple[Any, str, dict[str, str]]]:
    """A bucket named ``published`` that checks signatures, its address, and credentials of a user who may read it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    given: Any = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
    }
    iam, root = boto3.client("iam", **given), boto3.client("s3", **given)
    root.create_bucket(Bucket="published")
    iam.create_user(UserName="opa")
    reading = {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::published", "arn:aws:s3:::published/*"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": reading})
    iam.put_user_policy(UserName="opa", PolicyName="reading", PolicyDocument=policy)
    key = iam.create_access_key(UserName="opa")["AccessKey"]
    credentials = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    client = boto3.client("s3", **given | credentials)
    environment = {name.upper(): value for name, value in credentials.items()} | {"AWS_REGION": "us-east-1"}
    with enable_iam_authentication():
        yield client, f"{url}/published/registry", environment
    for opened in (iam, root, client):
        opened.close()
    urllib3.request("POST", f"{url}/moto-api/reset", retries=False, timeout=20)
    server.stop()


def test_opa_fetches_from_s3_with_the_configuration_for_that(
    publisher: Publisher, short_path: Path, s3: tuple[Any, str, dict[str, str]]
) -> None:
    client, url, credentials = s3

    def put(kind: str) -> None:
        client.put_object(Bucket="published", Key=f"registry/{kind}.tar.gz", Body=publisher.get(kind))

    publisher.base(0)
    overlay = publisher.overlay(1, since=0)
    put("base")
    put("overlay")
    values = {"BUNDLE_URL": url, **credentials}
    with (
        _own_opa("separate-s3.yaml", publisher, short_path, values) as settings,
        running_sidecar(settings) as (_, channel),
    ):
        comes(channel, overlay)
        later = publisher.overlay(2, since=0)
        put("overlay")
        comes(channel, later)


def test_s3_gives_nothing_to_an_opa_with_a_wrong_secret(
    publisher: Publisher, short_path: Path, s3: tuple[Any, str, dict[str, str]]
) -> None:
    client, url, credentials = s3
    publisher.base(0)
    client.put_object(Bucket="published", Key="registry/base.tar.gz", Body=publisher.get("base"))
    values = {"BUNDLE_URL": url, **credentials, "AWS_SECRET_ACCESS_KEY": "guessed"}
    with _own_opa("separate-s3.yaml", publisher, short_path, values):
        wait_until(lambda: "Bundle load failed: server replied with Forbidden" in (short_path / "opa.log").read_text())
