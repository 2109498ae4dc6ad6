"""Sidecars that follow published bundles, what their status says of these, and servers that bundles are published by."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from sidecar.bundle_endpoint import BundleEndpoint
from tests.support import wire
from tests.support.bundles import NOW, SECOND
from tests.support.processes import sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.gen.tenantgate.v1.status_service_pb2 import BundleStatus
    from sidecar.settings import Settings
    from tests.support.bundles import Publisher


def following(publisher: Publisher, source: str | None = None, **overrides: Any) -> Settings:
    """Give settings for a sidecar that follows a publisher, in its folder if no other source is named."""
    assert publisher.key is not None
    given = {
        "bundles__source": source or str(publisher.folder),
        "bundles__keys": [str(publisher.key.public)],
        # Not so often that a test would find by its own what it should be told.
        "lifecycle__probe_interval_seconds": 5.0,
    }
    return sidecar_settings(publisher.folder.parent / "state", None, **(given | overrides))


def bundle_status(channel: grpc.Channel, kind: str = "base") -> BundleStatus:
    """Give what status says of a kind of bundle."""
    (found,) = [bundle for bundle in wire.get_status(channel).bundles if bundle.name == kind]
    return found


def revision_of(channel: grpc.Channel) -> str:
    """Give the revision that decisions are made under; empty if there are none."""
    try:
        return wire.authorize(channel).revision
    except grpc.RpcError:
        return ""


def comes(channel: grpc.Channel, wanted: str) -> None:
    """Wait until decisions are made under a revision."""
    wait_until(lambda: revision_of(channel) == wanted)


def comes_as_of(channel: grpc.Channel, seconds: int) -> None:
    """Wait for a registry by its moment, where the revision names a base and an overlay that were not made for each other."""
    wait_until(lambda: wire.authorize(channel).as_of.ToMicroseconds() == NOW + seconds * SECOND)


def refused_for(channel: grpc.Channel, reason: str, kind: str = "base") -> BundleStatus:
    """Wait until a file has been refused for a reason; give the status then."""
    wait_until(lambda: bundle_status(channel, kind).refusals[reason])
    return bundle_status(channel, kind)


@contextmanager
def published_at(publisher: Publisher, token: str | None = None, port: int = 0) -> Iterator[BundleEndpoint]:
    """Serve over HTTP what is published."""
    serving = BundleEndpoint(publisher.folder.joinpath, port=port, token=token, watch=True)
    serving.start()
    try:
        yield serving
    finally:
        serving.stop()
