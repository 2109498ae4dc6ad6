"""Callers on other hosts: who they are is proved by certificates, for every service, and files change without a restart."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import urllib3
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sidecar.cli import main
from sidecar.errors import StartError
from sidecar.gen.tenantgate.v1 import status_service_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub
from sidecar.server import Sidecar
from sidecar.tenancy import AuthorizationClient, NoDecisionError, TenantContext, Tls, use
from tests.support import wire
from tests.support.certificates import Authority, Pair, hosts, uris
from tests.support.metrics import value
from tests.support.processes import running_sidecar, sidecar_settings, wait_until
from tests.support.wire import DEADLINE, ORDER_LOOKUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sidecar.settings import Settings

UNKNOWN = (grpc.StatusCode.PERMISSION_DENIED, "CLIENT_UNKNOWN", "tenantgate")
ALLOWED = ("spiffe://example.org/agents/*", "gateway.example.org")
AGENT = uris("spiffe://example.org/agents/order-bot")
ALICE = TenantContext("Tenant-A", subject_id="alice", principal_id="agent:order-bot", scopes=wire.SCOPES)


class House(NamedTuple):
    """A folder with the authorities of the sidecar and of its clients, and the sidecar's own pair."""

    folder: Path
    servers: Authority
    clients: Authority
    own: Pair

    def settings(self, bundle: Path, **overrides: Any) -> Settings:
        """Give settings for a sidecar that speaks TLS at a port of its own."""
        return sidecar_settings(
            self.folder / "state",
            bundle,
            **{
                "listen__tcp": "127.0.0.1:0",
                "listen__admin": "127.0.0.1:0",
                "tls__cert_file": str(self.own.certificate),
                "tls__key_file": str(self.own.key),
                "tls__client_ca_file": str(self.clients.file),
                "tls__allowed_clients": ALLOWED,
                **overrides,
            },
        )


@pytest.fixture
def house(short_path: Path) -> House:
    """Authorities, and a pair for ``localhost``."""
    return _house(short_path)


def _house(folder: Path) -> House:
    servers = Authority(folder, "servers")
    return House(folder, servers, Authority(folder, "clients"), servers.issue("sidecar", *hosts("localhost")))


@pytest.fixture(scope="module")
def running(sample_bundle: Path) -> Iterator[tuple[House, Sidecar]]:
    """A sidecar that speaks TLS. It is shared: tests only connect to it."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        house = _house(Path(folder))
        with running_sidecar(house.settings(sample_bundle, ext_authz__enabled=True)) as (sidecar, _):
            yield house, sidecar


def _address(sidecar: Sidecar) -> str:
    return sidecar.addresses[0].replace("127.0.0.1", "localhost")


@contextmanager
def connected(address: str, authority: Authority, pair: Pair | None) -> Iterator[grpc.Channel]:
    """Connect anew, as whoever has a pair."""
    proof = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair is not None else ()
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), *proof)
    with grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def _agent(house: House, name: str = "order-bot") -> Pair:
    """Make a pair that may connect."""
    return house.clients.issue(name, *AGENT)


# ── who may connect ─────────────────────────────────────────────────────────────────────────────────────────────────────

_KNOWN: dict[str, Sequence[x509.GeneralName]] = {
    "a SPIFFE id": uris("spiffe://example.org/agents/refund-bot"),
    "a SPIFFE id with other names beside it": [*AGENT, *hosts("elsewhere.example.org")],
    "a DNS name": hosts("gateway.example.org"),
    "a DNS name beside URIs of other kinds": [*uris("https://a.example", "urn:b"), *hosts("gateway.example.org")],
    "a DNS name in other letters": hosts("Gateway.Example.ORG"),
    "a DNS name among others": hosts("elsewhere.example.org", "gateway.example.org"),
}
_UNKNOWN: dict[str, Sequence[x509.GeneralName]] = {
    "another SPIFFE id": uris("spiffe://example.org/admins/order-bot"),
    "a SPIFFE id further in": uris("spiffe://example.org/agents/order-bot/child"),
    "a SPIFFE id of another trust domain": uris("spiffe://example.com/agents/order-bot"),
    "a SPIFFE id of a trust domain that begins alike": uris("spiffe://example.org.evil/agents/order-bot"),
    "two URIs, of which one may": uris("spiffe://example.org/agents/order-bot", "spiffe://example.org/agents/two"),
    "two URIs beside a DNS name that may": [
        *uris("spiffe://example.org/agents/order-bot", "https://example.org"),
        *hosts("gateway.example.org"),
    ],
    "a URI of another kind": uris("https://example.org/agents/order-bot"),
    "a SPIFFE id written as a DNS name": hosts("spiffe://example.org/agents/order-bot"),
    "a DNS name below one that may": hosts("a.gateway.example.org"),
    "a DNS name with a star": hosts("*.example.org"),
    "no name but the common name": (),
}


@pytest.mark.parametrize("names", _KNOWN.values(), ids=_KNOWN)
def test_a_client_may_call_with(running: tuple[House, Sidecar], names: Sequence[x509.GeneralName]) -> None:
    house, sidecar = running
    with connected(_address(sidecar), house.servers, house.clients.issue("client", *names)) as channel:
        assert wire.authorize(channel).effect == 1


@pytest.mark.parametrize("names", _UNKNOWN.values(), ids=_UNKNOWN)
def test_a_client_may_not_call_with(running: tuple[House, Sidecar], names: Sequence[x509.GeneralName]) -> None:
    house, sidecar = running
    pair = house.clients.issue("gateway.example.org", *names)
    with connected(_address(sidecar), house.servers, pair) as channel:
        error = wire.failure(lambda: wire.authorize(channel))

    assert wire.outcome(error) == UNKNOWN


def _reflect(channel: grpc.Channel) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # whose types do not tell its methods
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return list(stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE))


def _watch_health(channel: grpc.Channel) -> Any:
    return next(wire.health(channel).Watch(HealthCheckRequest(), timeout=DEADLINE))


def _watch_status(channel: grpc.Channel) -> Any:
    return next(StatusServiceStub(channel).WatchStatus(status_service_pb2.WatchStatusRequest(), timeout=DEADLINE))


_SERVICES: dict[str, Callable[[grpc.Channel], Any]] = {
    "Authorize": wire.authorize,
    "BatchAuthorize": lambda c: AuthorizationServiceStub(c).BatchAuthorize(wire.batch(ORDER_LOOKUP), timeout=DEADLINE),
    "FilterTools": lambda c: AuthorizationServiceStub(c).FilterTools(wire.tools(ORDER_LOOKUP), timeout=DEADLINE),
    "GetStatus": wire.get_status,
    "WatchStatus": _watch_status,
    "Check": lambda channel: wire.health(channel).Check(HealthCheckRequest(), timeout=DEADLINE),
    "Watch": _watch_health,
    "ServerReflectionInfo": _reflect,
}


@pytest.mark.parametrize("method", _SERVICES)
def test_the_list_holds_for(running: tuple[House, Sidecar], method: str) -> None:
    house, sidecar = running
    before = value(sidecar, "tenantgate_errors_total", reason="CLIENT_UNKNOWN", method=method)
    with connected(_address(sidecar), house.servers, _agent(house)) as channel:
        assert _SERVICES[method](channel)
    stranger = house.clients.issue("stranger", *hosts("stranger.example.org"))
    with connected(_address(sidecar), house.servers, stranger) as channel:
        error: Any = wire.failure(lambda: _SERVICES[method](channel))

    assert wire.outcome(error) == UNKNOWN
    assert "stranger.example.org" in error.details()
    assert value(sidecar, "tenantgate_errors_total", reason="CLIENT_UNKNOWN", method=method) == before + 1


def test_the_list_holds_for_envoy(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    request = external_auth_pb2.CheckRequest()
    with connected(_address(sidecar), house.servers, _agent(house)) as channel:
        assert external_auth_pb2_grpc.AuthorizationStub(channel).Check(request, timeout=DEADLINE).status.code
    stranger = house.clients.issue("stranger", *hosts("stranger.example.org"))
    with connected(_address(sidecar), house.servers, stranger) as channel:
        stub = external_auth_pb2_grpc.AuthorizationStub(channel)
        error = wire.failure(lambda: stub.Check(request, timeout=DEADLINE))

    assert wire.outcome(error) == UNKNOWN


def test_every_service_that_is_offered_is_among_those_tests(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    with connected(_address(sidecar), house.servers, _agent(house)) as channel:
        (answer,) = _reflect(channel)

    assert {service.name for service in answer.list_services_response.service} == {
        "envoy.service.auth.v3.Authorization",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "tenantgate.v1.AuthorizationService",
        "tenantgate.v1.StatusService",
    }


def test_a_client_that_is_refused_is_logged_once(
    running: tuple[House, Sidecar], caplog: pytest.LogCaptureFixture
) -> None:
    house, sidecar = running
    pair = house.clients.issue("nobody", *hosts("nobody.example.org"))
    for _ in range(2):
        with connected(_address(sidecar), house.servers, pair) as channel:
            wire.failure(lambda channel=channel: wire.authorize(channel))  # type: ignore[misc]

    assert [entry.getMessage() for entry in caplog.records if "nobody.example.org" in entry.getMessage()] == [
        next(entry.getMessage() for entry in caplog.records if "client_refused" in entry.getMessage())
    ]


def test_the_socket_of_a_sidecar_with_tls_needs_no_certificate(running: tuple[House, Sidecar]) -> None:
    _, sidecar = running
    with grpc.insecure_channel(sidecar.addresses[1]) as channel:
        assert wire.authorize(channel).effect == 1


# ── handshakes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _refused_at_the_door(address: str, authority: Authority, pair: Pair | None) -> None:
    with connected(address, authority, pair) as channel:
        error: Any = wire.failure(lambda: wire.authorize(channel))
    assert error.code() == grpc.StatusCode.UNAVAILABLE


def test_without_a_certificate_nobody_gets_in(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    _refused_at_the_door(_address(sidecar), house.servers, None)


def test_without_tls_nobody_gets_in(running: tuple[House, Sidecar]) -> None:
    _, sidecar = running
    with grpc.insecure_channel(sidecar.addresses[0]) as channel:
        error: Any = wire.failure(lambda: wire.authorize(channel))

    assert error.code() == grpc.StatusCode.UNAVAILABLE


def test_a_certificate_of_another_authority_is_refused(running: tuple[House, Sidecar], tmp_path: Path) -> None:
    house, sidecar = running
    _refused_at_the_door(_address(sidecar), house.servers, Authority(tmp_path, "clients").issue("x", *AGENT))


def test_a_certificate_of_the_authority_of_servers_is_refused(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    _refused_at_the_door(_address(sidecar), house.servers, house.servers.issue("x", *AGENT))


def test_a_certificate_that_has_ended_is_refused(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    _refused_at_the_door(
        _address(sidecar), house.servers, house.clients.issue("x", *AGENT, lasts=timedelta(minutes=-1))
    )


def test_a_certificate_of_an_authority_below_counts_with_its_chain(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    below = Authority(house.folder, "below", house.clients)
    pair = below.issue("far", *AGENT)
    _refused_at_the_door(_address(sidecar), house.servers, pair)
    pair.certificate.write_bytes(pair.certificate.read_bytes() + below.file.read_bytes())
    with connected(_address(sidecar), house.servers, pair) as channel:
        assert wire.authorize(channel).effect == 1


def test_a_client_that_does_not_say_who_it_is_is_let_go(running: tuple[House, Sidecar]) -> None:
    _, sidecar = running
    host, _, port = sidecar.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=3 * DEADLINE) as connection:
        assert connection.recv(1) == b""


def _handshake(address: str, house: House, version: ssl.TLSVersion) -> str | None:
    """Shake hands in one version of TLS; give the version that the server agreed to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(house.servers.file)
    context.load_cert_chain(*_agent(house))
    context.set_ciphers("ALL:@SECLEVEL=0")  # without which OpenSSL itself would not speak the old ones
    context.set_alpn_protocols(["h2", "http/1.1"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=DEADLINE) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secure,
    ):
        return secure.version()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_grpc_is_spoken_over(running: tuple[House, Sidecar], version: ssl.TLSVersion) -> None:
    house, sidecar = running

    assert _handshake(sidecar.addresses[0], house, version) == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_grpc_is_not_spoken_over(running: tuple[House, Sidecar], version: ssl.TLSVersion) -> None:
    house, sidecar = running
    with pytest.raises(OSError, match=r"EOF|reset|ALERT"):
        _handshake(sidecar.addresses[0], house, version)


def test_a_connection_that_has_lived_its_time_is_replaced_and_no_call_is_lost(
    house: House, sample_bundle: Path
) -> None:
    settings = house.settings(sample_bundle, tls__connection_seconds=1)
    with (
        running_sidecar(settings) as (sidecar, _),
        connected(_address(sidecar), house.servers, _agent(house)) as channel,
    ):
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        ends = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE)
        wire.authorize(channel)
        wait_until(lambda: [*pairwise(states)].count(ends) == 1)
        wire.authorize(channel)

        # whoever may not connect any more does not get in again
        wait_until(lambda: [*pairwise(states)].count(ends) == 2)
        house.clients.file.write_bytes(Authority(house.folder, "others").file.read_bytes())
        error: Any = wire.failure(lambda: wire.authorize(channel))

    assert error.code() == grpc.StatusCode.UNAVAILABLE


# ── new certificates ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_new_files_are_used_for_new_connections_while_those_there_are_go_on(house: House, sample_bundle: Path) -> None:
    with (
        running_sidecar(house.settings(sample_bundle)) as (sidecar, _),
        connected(_address(sidecar), house.servers, _agent(house)) as before,
    ):
        wire.authorize(before)
        servers, clients = Authority(house.folder, "servers-2"), Authority(house.folder, "clients-2")
        renewed = servers.issue("renewed", *hosts("localhost"))
        house.clients.file.write_bytes(clients.file.read_bytes())
        renewed.key.rename(house.own.key)
        renewed.certificate.rename(house.own.certificate)

        with connected(_address(sidecar), servers, clients.issue("new", *AGENT)) as after:
            assert wire.authorize(after).effect == 1
            assert wire.get_status(after).tls.reloads == 1
        assert wire.authorize(before).effect == 1
        _refused_at_the_door(_address(sidecar), servers, _agent(house))
        assert value(sidecar, "tenantgate_tls_reloads_total") == 1


def test_every_worker_asks_who_connects_and_takes_new_files(house: House, sample_bundle: Path) -> None:
    stranger = house.clients.issue("stranger", *hosts("stranger.example.org"))
    with running_sidecar(house.settings(sample_bundle, workers=2)) as (sidecar, _):
        for _ in range(8):  # the kernel chooses the worker
            with connected(_address(sidecar), house.servers, _agent(house)) as channel:
                assert wire.authorize(channel).effect == 1
            with connected(_address(sidecar), house.servers, stranger) as channel:
                assert wire.outcome(wire.failure(lambda channel=channel: wire.authorize(channel))) == UNKNOWN  # type: ignore[misc]
        clients = Authority(house.folder, "clients-2")
        house.clients.file.write_bytes(clients.file.read_bytes())
        for _ in range(8):
            with connected(_address(sidecar), house.servers, clients.issue("new", *AGENT)) as channel:
                assert wire.authorize(channel).effect == 1
            _refused_at_the_door(_address(sidecar), house.servers, _agent(house))


def _no_certificate(house: House) -> str:
    house.own.certificate.write_text("soon")
    return "holds no certificate"


def _other_key(house: House) -> str:
    house.servers.issue("other").key.rename(house.own.key)
    return "is not the key of the certificate"


def _no_file(house: House) -> str:
    house.clients.file.unlink()
    return "cannot be read: No such file"


def _open_key(house: House) -> str:
    house.own.key.chmod(0o644)
    return "chmod it to 0600"


def _ended(house: House) -> str:
    pair = house.servers.issue("ended", *hosts("localhost"), lasts=timedelta(seconds=-1))
    pair.key.rename(house.own.key)
    pair.certificate.rename(house.own.certificate)
    return "renew it"


@pytest.mark.parametrize("breaking", [_no_certificate, _other_key, _no_file, _open_key, _ended])
def test_files_that_cannot_be_used_leave_the_old_ones_in_force(
    house: House, sample_bundle: Path, breaking: Callable[[House], str], caplog: pytest.LogCaptureFixture
) -> None:
    agent = _agent(house)
    with running_sidecar(house.settings(sample_bundle)) as (sidecar, local):
        cause = breaking(house)
        for _ in range(2):
            with connected(_address(sidecar), house.servers, agent) as channel:
                assert wire.authorize(channel).effect == 1

        assert cause in wire.get_status(local).tls.error
        assert wire.get_status(local).tls.refused == 1
        assert value(sidecar, "tenantgate_tls_refusals_total") == 1
        assert value(sidecar, "tenantgate_tls_fault") == 1
    assert len([entry for entry in caplog.records if "certificates_refused" in entry.getMessage()]) == 1


def test_files_that_were_mended_come_into_force(house: House, sample_bundle: Path) -> None:
    with running_sidecar(house.settings(sample_bundle)) as (sidecar, local):
        whole = house.own.certificate.read_bytes()
        house.own.certificate.write_bytes(whole[:100])
        assert wire.get_status(local).tls.error
        house.own.certificate.write_bytes(whole)
        state = wire.get_status(local).tls

        assert (state.error, state.reloads, state.refused) == ("", 1, 1)
        assert value(sidecar, "tenantgate_tls_fault") == 0


def test_the_end_of_the_certificate_is_known(running: tuple[House, Sidecar]) -> None:
    _, sidecar = running
    with grpc.insecure_channel(sidecar.addresses[1]) as channel:
        state = wire.get_status(channel)

    assert 0 < state.tls.until.seconds - state.started_at.seconds <= 3600
    assert value(sidecar, "tenantgate_tls_until_seconds") == state.tls.until.seconds


# ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _asking(authority: Authority, pair: Pair) -> Iterator[Callable[[str], tuple[int, str]]]:
    """Ask over HTTPS, as whoever has a pair."""
    with urllib3.PoolManager(
        ca_certs=str(authority.file), cert_file=str(pair.certificate), key_file=str(pair.key), retries=False, timeout=20
    ) as pool:

        def ask(url: str) -> tuple[int, str]:
            answer = pool.request("GET", url)
            return answer.status, answer.data.decode()

        yield ask


_METADATA = "/.well-known/authzen-configuration"


@pytest.fixture
def authzen(house: House, sample_bundle: Path) -> Iterator[tuple[House, Sidecar, str]]:
    """A sidecar that offers AuthZEN over TLS, and where."""
    settings = house.settings(sample_bundle, authzen__listen="127.0.0.1:0", authzen__principal="agent:order-bot")
    with running_sidecar(settings) as (sidecar, _):
        assert sidecar.authzen_url.startswith("https://127.0.0.1:")
        yield house, sidecar, sidecar.authzen_url.replace("127.0.0.1", "localhost")


def test_authzen_is_served_over_tls_to_clients_that_are_known(authzen: tuple[House, Sidecar, str]) -> None:
    house, sidecar, url = authzen
    with _asking(house.servers, _agent(house)) as ask:
        status, metadata = ask(url + _METADATA)
        assert status == 200
        assert sidecar.authzen_url in metadata
    with _asking(house.servers, house.clients.issue("s", *hosts("stranger.example.org"))) as ask:
        status, said = ask(url + _METADATA)

    assert status == 403
    assert "stranger.example.org" in said
    assert value(sidecar, "tenantgate_errors_total", reason="CLIENT_UNKNOWN", method="authzen") == 1


def test_authzen_is_not_served_without_a_certificate(authzen: tuple[House, Sidecar, str]) -> None:
    house, _, url = authzen
    with urllib3.PoolManager(ca_certs=str(house.servers.file), retries=False) as pool:
        with pytest.raises(urllib3.exceptions.HTTPError, match=r"(?i)certificate.required|closed|reset"):
            pool.request("GET", url + _METADATA, timeout=20)
        with pytest.raises(urllib3.exceptions.HTTPError):
            pool.request("GET", url.replace("https", "http") + _METADATA, timeout=20)


def test_http_is_spoken_over_tls_1_3_alone(authzen: tuple[House, Sidecar, str]) -> None:
    house, _, url = authzen
    address = url.removeprefix("https://")

    assert _handshake(address, house, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(OSError, match=r"EOF|ALERT"):
        _handshake(address, house, ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["by name", "by address"])
def test_http_takes_new_files_for_new_connections(house: House, sample_bundle: Path, host: str) -> None:
    names = [*hosts("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    settings = house.settings(sample_bundle, authzen__listen="127.0.0.1:0", authzen__principal="agent:order-bot")
    house.servers.issue("sidecar", *names)
    with running_sidecar(settings) as (sidecar, _):
        url = sidecar.authzen_url.replace("127.0.0.1", host) + _METADATA
        with _asking(house.servers, _agent(house)) as before:
            assert before(url)[0] == 200
        servers, clients = Authority(house.folder, "servers-2"), Authority(house.folder, "clients-2")
        renewed = servers.issue("renewed", *names)
        house.clients.file.write_bytes(clients.file.read_bytes())
        renewed.key.rename(house.own.key)
        renewed.certificate.rename(house.own.certificate)

        with _asking(servers, clients.issue("new", *AGENT)) as after:
            assert after(url)[0] == 200
        with _asking(servers, _agent(house)) as after, pytest.raises(urllib3.exceptions.HTTPError):
            after(url)


def test_a_connection_over_http_ends_when_it_has_lived_its_time(house: House, sample_bundle: Path) -> None:
    settings = house.settings(
        sample_bundle, authzen__listen="127.0.0.1:0", authzen__principal="agent:order-bot", tls__connection_seconds=1
    )
    context = ssl.create_default_context(cafile=house.servers.file)
    context.load_cert_chain(*_agent(house))
    with running_sidecar(settings) as (sidecar, _):
        port = int(sidecar.authzen_url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection,
            context.wrap_socket(connection, server_hostname="localhost") as secure,
        ):
            assert secure.recv(1) == b""


def test_the_admin_listener_of_this_host_needs_no_certificate_and_that_of_others_does(
    house: House, sample_bundle: Path
) -> None:
    with running_sidecar(house.settings(sample_bundle, listen__admin="0.0.0.0:0")) as (sidecar, _):
        url = sidecar.admin_url.replace("0.0.0.0", "localhost")
        assert url.startswith("https://")
        with _asking(house.servers, _agent(house)) as ask:
            assert ask(url + "/livez") == (200, "alive\n")
        with _asking(house.servers, house.clients.issue("s", *hosts("stranger.example.org"))) as ask:
            assert ask(url + "/metrics")[0] == 403
    with running_sidecar(house.settings(sample_bundle)) as (sidecar, _):
        assert sidecar.admin_url.startswith("http://127.0.0.1:")


# ── clients of ours ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _tls(house: House, pair: Pair) -> Tls:
    return Tls(str(house.servers.file), str(pair.certificate), str(pair.key))


def test_the_client_for_agents_proves_who_it_is(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    with AuthorizationClient(_address(sidecar), timeout=DEADLINE, tls=_tls(house, _agent(house))) as client, use(ALICE):
        assert client.authorize(ORDER_LOOKUP).allowed


def test_the_client_for_agents_takes_new_files(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    pair = house.clients.issue("rotating", *hosts("stranger.example.org"))
    with AuthorizationClient(_address(sidecar), timeout=DEADLINE, tls=_tls(house, pair)) as client, use(ALICE):
        with pytest.raises(NoDecisionError, match="CLIENT_UNKNOWN"):
            client.authorize(ORDER_LOOKUP)
        for _ in range(3):  # more often than channels are kept
            house.clients.issue("rotating", *AGENT)
            assert client.authorize(ORDER_LOOKUP).allowed
        pair.key.unlink()
        assert client.authorize(ORDER_LOOKUP).allowed


def test_the_client_for_agents_makes_no_decision_of_files_that_are_missing(tmp_path: Path) -> None:
    files = Tls(*(str(tmp_path / name) for name in ("ca", "cert", "key")))
    with (
        AuthorizationClient("localhost:1", tls=files) as client,
        use(ALICE),
        pytest.raises(NoDecisionError, match=r"ca: No such file or directory \(CERTIFICATES_UNREADABLE\)"),
    ):
        client.authorize(ORDER_LOOKUP)


def _command(*words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, words)
    return ended.exit_code, ended.output


def _options(house: House, pair: Pair) -> list[str]:
    return [f"--tls-ca={house.servers.file}", f"--tls-cert={pair.certificate}", f"--tls-key={pair.key}"]


def test_the_commands_prove_who_they_are(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    there = ["--address", _address(sidecar), *_options(house, _agent(house))]
    who = ["--tenant", "Tenant-A", "--principal", "agent:order-bot", "--subject", "alice"]
    status, said = _command("authorize", ORDER_LOOKUP, *who, "--scope", "tools:read", *there)

    assert (status, "ALLOW" in said) == (0, True), said
    status, said = _command("status", *there)

    assert (status, "certificate" in said) == (0, True), said


def test_the_commands_say_why_they_are_refused(running: tuple[House, Sidecar]) -> None:
    house, sidecar = running
    stranger = house.clients.issue("s", *hosts("stranger.example.org"))
    status, said = _command("status", "--address", _address(sidecar), *_options(house, stranger))

    assert status == 2
    assert "PERMISSION_DENIED CLIENT_UNKNOWN" in said


def test_the_commands_say_what_to_give_where_tls_is_spoken(running: tuple[House, Sidecar]) -> None:
    _, sidecar = running
    status, said = _command("status", "--address", _address(sidecar))

    assert status == 2
    assert "--tls-ca, --tls-cert and --tls-key are for one that speaks TLS" in said


def test_the_commands_want_all_three_files(running: tuple[House, Sidecar]) -> None:
    house, _ = running
    status, said = _command("status", *_options(house, house.own)[:2])

    assert status == 2
    assert "--tls-ca, --tls-cert and --tls-key go together" in said


# ── what is refused at start ────────────────────────────────────────────────────────────────────────────────────────────


def _no_authority(house: House) -> str:
    house.clients.file.write_bytes(house.own.certificate.read_bytes())
    return "tls.client_ca_file: {ca}: CN=sidecar is no authority; name those that sign clients' certificates"


def _key_of_others(house: House) -> str:
    os.chown(house.own.key, 65534, 65534)
    return "tls.key_file: {key}: belongs to another user; it must be root's, or of the user that the sidecar runs as"


def _key_for_the_group(house: House) -> str:
    house.own.key.chmod(0o640)
    return "tls.key_file: {key}: others may read or change it (-rw-r-----); chmod it to 0600"


def _encrypted_key(house: House) -> str:
    key = load_pem_private_key(house.own.key.read_bytes(), None)
    house.own.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    return "tls.key_file: {key}: holds no private key, in PEM and not encrypted"


def _not_yet(house: House) -> str:
    pair = house.servers.issue("later", begins=timedelta(minutes=30))
    pair.key.rename(house.own.key)
    pair.certificate.rename(house.own.certificate)
    return "tls.cert_file: {cert}: is good from"


_UNSAFE: list[Callable[[House], str]] = [
    _no_certificate,
    _other_key,
    _no_file,
    _open_key,
    _ended,
    _not_yet,
    _no_authority,
    _key_for_the_group,
    _encrypted_key,
    pytest.param(_key_of_others, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")),  # type: ignore[list-item]
]


@pytest.mark.parametrize("breaking", _UNSAFE)
def test_it_does_not_start_with(house: House, sample_bundle: Path, breaking: Callable[[House], str]) -> None:
    files = {"ca": house.clients.file, "key": house.own.key, "cert": house.own.certificate}
    cause = breaking(house).format(**files)
    sidecar = Sidecar(house.settings(sample_bundle))
    with pytest.raises(StartError) as refused:
        sidecar.start()

    assert str(refused.value).startswith("tls.")
    assert cause in str(refused.value)


# ── the Unix socket ─────────────────────────────────────────────────────────────────────────────────────────────────────

_CONNECT = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("mode", "group", "connects"), [("0660", 0, True), ("0660", 65534, False), ("0600", 0, False)])
def test_who_may_open_the_socket(
    sample_bundle: Path, short_path: Path, mode: str, group: int, *, connects: bool
) -> None:
    short_path.chmod(0o755)
    path = short_path / "calls" / "s.sock"
    settings = sidecar_settings(short_path / "state", sample_bundle, listen__socket=str(path), listen__socket_mode=mode)
    with running_sidecar(settings):
        made = path.parent.stat().st_mode & 0o777
        path.parent.chmod(0o755)  # so that the socket's own permissions decide
        command = [sys.executable, "-c", _CONNECT, str(path), str(group)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert made == 0o750
    assert (ended.returncode == 0) == connects, ended.stderr
    assert connects or "PermissionError" in ended.stderr


def test_it_does_not_start_with_a_socket_in_a_directory_that_everybody_writes_to(
    sample_bundle: Path, short_path: Path
) -> None:
    shared = short_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(StartError, match=r"everybody may write to .*shared.*; name a path one directory further in"):
        Sidecar(sidecar_settings(short_path, sample_bundle, listen__socket=str(shared / "s"))).start()
    with running_sidecar(sidecar_settings(short_path, sample_bundle, listen__socket=str(shared / "in" / "s"))):
        assert (shared / "in" / "s").is_socket()
