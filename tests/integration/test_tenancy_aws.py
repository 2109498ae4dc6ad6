"""The guard for clients of AWS: nothing is signed without a tenant, nor with another tenant's credentials."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from moto.server import ThreadedMotoServer

from sidecar.identity.development import DevelopmentIssuer
from sidecar.tenancy import (
    AuthorizationClient,
    Credentials,
    NoTenantError,
    TenantContext,
    TenantMismatchError,
    guard,
    use,
)
from tests.support.processes import running_opa, running_sidecar, sidecar_settings
from tests.support.registries import compiled
from tests.support.sts import ENVIRONMENT, ROLE, running_sts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A, B = TenantContext("Tenant-A"), TenantContext("Tenant-B")
OF_A = Credentials("Tenant-A", "AKIAOFTENANTA", "secret", "session", datetime(2100, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def _session(credentials: Credentials = OF_A) -> Any:
    return boto3.Session(
        credentials.access_key_id, credentials.secret_access_key, credentials.session_token, region_name="us-east-1"
    )


@pytest.fixture
def s3(moto: str) -> Iterator[Any]:
    """A client with the credentials of Tenant-A, and a bucket; nothing guards it yet."""
    with closing(_session().client("s3", endpoint_url=moto)) as client:
        client.create_bucket(Bucket="data")
        yield client


_USES: dict[str, Callable[[Any], Any]] = {
    "a call": lambda s3: s3.list_objects_v2(Bucket="data"),
    "a page": lambda s3: [*s3.get_paginator("list_objects_v2").paginate(Bucket="data")],
    "a presigned URL": lambda s3: s3.generate_presigned_url("get_object", Params={"Bucket": "data", "Key": "k"}),
    "a presigned post": lambda s3: s3.generate_presigned_post("data", "k"),
    "an upload": lambda s3: s3.upload_fileobj(BytesIO(b"x"), "data", "k", Config=TransferConfig(use_threads=False)),
}


@pytest.mark.parametrize("work", _USES.values(), ids=_USES)
def test_a_guarded_client_works_in_a_context_and_nowhere_else(s3: Any, work: Callable[[Any], Any]) -> None:
    guard(s3)
    with use(A):
        work(s3)
    with pytest.raises(NoTenantError):
        work(s3)


@pytest.mark.parametrize("work", _USES.values(), ids=_USES)
def test_credentials_work_in_the_context_of_their_tenant_alone(s3: Any, work: Callable[[Any], Any]) -> None:
    guard(s3, OF_A)
    with use(A):
        work(s3)
    with use(B), pytest.raises(TenantMismatchError, match=r"credentials of 'Tenant-A' are used while .* of 'Tenant-B'"):
        work(s3)
    with pytest.raises(NoTenantError):
        work(s3)


@pytest.mark.parametrize("work", _USES.values(), ids=_USES)
def test_a_client_that_signs_with_other_credentials_is_refused(moto: str, work: Callable[[Any], Any]) -> None:
    others = Credentials("Tenant-A", "AKIAOFSOMEBODY", "secret", "session", OF_A.expiration)
    with closing(_session(others).client("s3", endpoint_url=moto)) as client:
        guard(client, OF_A)
        with use(A), pytest.raises(TenantMismatchError, match="does not sign with the credentials"):
            work(client)


def test_a_request_that_goes_unsigned_needs_a_tenant_too(moto: str) -> None:
    with closing(boto3.client("s3", endpoint_url=moto, config=Config(signature_version=UNSIGNED))) as client:
        guard(client)
        with pytest.raises(NoTenantError):
            client.list_buckets()


def test_a_request_that_goes_unsigned_is_not_made_with_the_credentials_of_a_tenant(moto: str) -> None:
    with closing(boto3.client("s3", endpoint_url=moto, config=Config(signature_version=UNSIGNED))) as client:
        guard(client, OF_A)
        with use(A), pytest.raises(TenantMismatchError, match="does not sign with the credentials"):
            client.list_buckets()


def test_a_session_guards_all_clients_and_resources_that_it_makes_from_then_on(moto: str) -> None:
    session = _session()
    with closing(session.client("s3", endpoint_url=moto)) as before:
        guard(session, OF_A)
        before.list_buckets()
        with closing(session.client("dynamodb", endpoint_url=moto)) as after:
            with use(A):
                after.list_tables()
            with use(B), pytest.raises(TenantMismatchError):
                after.list_tables()
            with pytest.raises(NoTenantError):
                after.list_tables()
        resource = session.resource("s3", endpoint_url=moto)
        with closing(resource.meta.client), pytest.raises(NoTenantError):
            [*resource.buckets.all()]


def test_a_resource_can_be_guarded(moto: str) -> None:
    resource = _session().resource("s3", endpoint_url=moto)
    with closing(resource.meta.client):
        guard(resource)
        with use(A):
            [*resource.buckets.all()]
        with pytest.raises(NoTenantError):
            [*resource.buckets.all()]


def test_a_transfer_in_threads_of_its_own_is_refused_rather_than_let_through(s3: Any) -> None:
    guard(s3)
    with use(A), pytest.raises(NoTenantError):
        s3.upload_fileobj(BytesIO(b"x"), "data", "k")


def test_credentials_that_the_sidecar_exchanged_reach_nothing_in_the_name_of_another_tenant(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    issuer = DevelopmentIssuer(tmp_path_factory.mktemp("issuer"))
    rule = {"effect": "ALLOW", "resourceType": "MEMORY", "resources": ["*"], "actions": ["read"]}
    registry: list[dict[str, Any]] = [
        {"pk": "TENANT#acme", "sk": "TENANT", "status": "ACTIVE", "membership": "OPTIONAL"},
        {"pk": "TENANT#acme", "sk": "POLICY#p", "rules": [rule]},
    ]
    acme = TenantContext("acme", token=issuer.mint("acme", "alice", "agent:order-bot"))
    with running_sts() as sts, running_opa(tmp_path_factory.mktemp("opa")) as opa:
        opa.put("registry/base", compiled(registry))
        settings = sidecar_settings(
            tmp_path_factory.mktemp("s"),
            None,
            opa__address=f"unix:{opa.socket}",
            identity__mode="verified",
            identity__issuers=[issuer.settings()],
            credentials__role_arn=ROLE,
            credentials__endpoint_url=sts.url,
            credentials__region="eu-west-1",
        )
        with (
            running_sidecar(settings) as (sidecar, _),
            AuthorizationClient(sidecar.addresses[0], timeout=20) as client,
            use(acme),
        ):
            denied = client.exchange("acme-0123456789", type="MEMORY", action="write")
            allowed = client.exchange("acme-0123456789", type="MEMORY", action="read", duration_seconds=900)
        assert (denied.decision.code, denied.credentials) == ("NO_MATCHING_RULE", None)
        credentials = allowed.credentials
        assert credentials is not None
        assert credentials.tenant_id == "acme"
        assert credentials.secret_access_key not in repr(credentials)
        assert credentials.session_token not in repr(allowed)
        with closing(_session(credentials).client("sts", endpoint_url=sts.url)) as bound:
            guard(bound, credentials)
            with use(acme):
                assert allowed.decision.decision_id in bound.get_caller_identity()["Arn"]
            with use(TenantContext("globex")), pytest.raises(TenantMismatchError):
                bound.get_caller_identity()
