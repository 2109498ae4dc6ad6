"""A collector of traces on loopback: takes what is sent as OTLP over HTTP, and keeps the spans."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http import Handler, http_server
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Span:
    """One span. Ids are in hexadecimal; ``service`` is in whose name it was sent."""

    def __init__(self, span: Any, service: str) -> None:
        self.name: str = span.name
        self.kind: int = span.kind
        self.trace_id: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.links: list[str] = [link.span_id.hex() for link in span.links]
        self.failed: bool = span.status.code == span.status.STATUS_CODE_ERROR
        self.attributes: dict[str, Any] = {
            entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes
        }
        self.service = service


class Collector:
    """What came: ``spans``, and the ``bodies`` that they came in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []

    def take(self, body: bytes) -> None:
        """Take one body."""
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [entry.value.string_value for entry in resource.resource.attributes if entry.key == "service.name"]
            for scope in resource.scope_spans:
                self.spans += [Span(span, names[0]) for span in scope.spans]

    def of(self, trace_id: str, count: int) -> list[Span]:
        """Wait until there are so many spans of a trace; give them in the order in which they ended."""
        wait_until(lambda: len([span for span in self.spans if span.trace_id == trace_id]) >= count)
        return [span for span in self.spans if span.trace_id == trace_id]


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Collect for a while."""

    class Taking(Handler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802 - the name by which it is found
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf":
                collector.take(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    with http_server(Taking) as url:
        collector = Collector(url)
        yield collector
