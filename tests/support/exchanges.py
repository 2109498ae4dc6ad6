"""Sidecars that exchange tokens, with the OPA that decides, the STS that they ask and the issuer that they believe."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from sidecar.gen.tenantgate.v1 import credential_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.credential_service_pb2_grpc import CredentialServiceStub
from sidecar.identity.development import DevelopmentIssuer
from tests.support import wire
from tests.support.processes import running_opa, running_sidecar, sidecar_settings
from tests.support.registries import AS_OF, compiled
from tests.support.sts import ROLE, running_sts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from sidecar.server import Sidecar
    from tests.support.processes import PolicyOpa
    from tests.support.sts import RecordingSts

LONG = 30.0
"""Seconds that a call may take in a test that is not about deadlines."""

MEMORY = "acme-0123456789"
OTHER_MEMORY = "acme-9876543210"
READ_MEMORY: dict[str, Any] = {
    "ruleId": "read-memory",
    "effect": "ALLOW",
    "resourceType": "MEMORY",
    "resources": ["*"],
    "actions": ["read"],
}
"""The rule that allows what is asked for unless a test says otherwise."""

TENANTS = ("acme", "globex", "auth0|org", "acme ", "x" * 257, "büro 7")


def registry_items(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the items of a registry in which the same rules are every tenant's."""
    keys = [f"TENANT#{name}" for name in TENANTS]
    tenants = [{"pk": key, "sk": "TENANT", "status": "ACTIVE", "membership": "OPTIONAL"} for key in keys]
    return [*tenants, *({"pk": key, "sk": "POLICY#data", "rules": [*rules]} for key in keys if rules)]


def rfc3339(moment: float) -> str:
    """Write a moment, in seconds since 1970, as IAM and the registry do."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Exchanging:
    """A sidecar that exchanges tokens while it is ``running``, and all that it needs."""

    def __init__(self, opa: PolicyOpa, sts: RecordingSts, issuer: DevelopmentIssuer) -> None:
        self.opa = opa
        self.sts = sts
        self.issuer = issuer
        self.sidecar: Sidecar
        self.channel: grpc.Channel
        self.address: str
        self._as_of = AS_OF

    def reset(self) -> None:
        """Forget what reached STS, and have the registry allow to read memories and nothing else."""
        self.sts.reset()
        self.rules(READ_MEMORY)

    @contextmanager
    def running(self, **overrides: Any) -> Iterator[None]:
        """Run the sidecar for a while, with some settings of its own."""
        given: dict[str, Any] = {
            "opa__address": f"unix:{self.opa.socket}",
            "identity__mode": "verified",
            "identity__issuers": [self.issuer.settings()],
            "credentials__role_arn": ROLE,
            "credentials__endpoint_url": self.sts.url,
            "credentials__region": "eu-west-1",
            "credentials__timeout_seconds": LONG,
            # the next decision is by what the registry says then: these tests are about what is made of it
            "cache__bytes": 0,
        }
        with tempfile.TemporaryDirectory(prefix="tg-") as folder:
            settings = sidecar_settings(Path(folder), None, **(given | overrides))
            with running_sidecar(settings) as (self.sidecar, self.channel):
                self.address = self.sidecar.addresses[0]
                try:
                    yield
                finally:
                    self.sts.gate.set()

    def rules(self, *rules: dict[str, Any]) -> None:
        """Have the registry hold these rules, and these alone."""
        self._as_of += 1
        self.opa.put(
            "registry/base", compiled(registry_items(*rules), as_of=self._as_of, revision=f"revision-{self._as_of}")
        )

    def token(self, tenant: str = "acme", subject: str = "alice", **said: Any) -> str:
        """Mint a token."""
        return self.issuer.mint(tenant, subject, "agent:order-bot", scopes=("tools:read",), **said)

    def call(
        self,
        token: str | None = None,
        *,
        resource_id: str = MEMORY,
        resource_type: str = "MEMORY",
        action: str = "read",
        seconds: int | None = None,
        timeout: float = LONG,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> pb.ExchangeTokenResponse:
        """Call ExchangeToken."""
        request = pb.ExchangeTokenRequest(
            resource=wire.resource(resource_id, resource_type), action=decision_pb2.Action(name=action)
        )
        if seconds is not None:
            request.duration.CopyFrom(Duration(seconds=seconds))
        bearer = ("authorization", f"Bearer {token or self.token()}")
        answer: pb.ExchangeTokenResponse = CredentialServiceStub(self.channel).ExchangeToken(
            request, timeout=timeout, metadata=(bearer, *metadata)
        )
        return answer

    def failure(self, *arguments: Any, **named: Any) -> tuple[str, str, str]:
        """Call ExchangeToken, and give status, reason and message of the error that it ends with."""
        error: Any = wire.failure(lambda: self.call(*arguments, **named))
        status, reason, _ = wire.outcome(error)
        return status.name, reason, error.details()


@contextmanager
def exchanging() -> Iterator[Exchanging]:
    """Run what a sidecar that exchanges tokens needs for a while."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder, running_opa(Path(folder)) as opa, running_sts() as sts:
        yield Exchanging(opa, sts, DevelopmentIssuer(Path(folder) / "issuer"))
