"""An STS that remembers what reached it: moto's, behind a gate that can hold requests back or answer in its stead."""

from __future__ import annotations

import io
import json
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LONGEST_WAIT = 30.0  # seconds

ROLE = "arn:aws:iam::123456789012:role/tenant-data"
ASSUMED_ROLE = "arn:aws:sts::123456789012:assumed-role/tenant-data"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAOFTHESIDECAR",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-sidecar",
    "AWS_SESSION_TOKEN": "session-token-of-the-sidecar",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What makes boto3 sign with credentials of the tests, whatever the machine has."""


class StsRequest(NamedTuple):
    """One request as it reached STS, with the parameters of its query protocol; ``signed`` tells whether it had a signature."""

    parameters: dict[str, str]
    signed: bool

    @property
    def action(self) -> str:
        """Which operation was asked for."""
        return self.parameters["Action"]

    @property
    def policy(self) -> dict[str, Any]:
        """The session policy that came with it."""
        read: dict[str, Any] = json.loads(self.parameters["Policy"])
        return read


class RecordingSts:
    """Remembers requests. ``answer`` may answer one itself, in place of moto; while ``gate`` is shut, all wait at it."""

    def __init__(self) -> None:
        self.url = ""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.reset()

    def reset(self) -> None:
        """Forget all, and let requests through to moto again."""
        self.requests: list[StsRequest] = []
        self.answer: Callable[[StsRequest], Response | None] = lambda _request: None
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)

    def wait_for_arrival(self) -> None:
        """Wait until one more request has come."""
        assert self.arrived.acquire(timeout=_LONGEST_WAIT)

    @property
    def only_request(self) -> StsRequest:
        """The one request that came."""
        (request,) = self.requests
        return request

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            request = StsRequest(dict(parse_qsl(body.decode())), "HTTP_AUTHORIZATION" in environ)
            self.requests.append(request)
            gate, answer = self.gate, self.answer
            self.arrived.release()
            assert gate.wait(_LONGEST_WAIT)
            response = answer(request)
            if response is not None:
                served: Iterable[bytes] = response(environ, start_response)
                return served
        passed: Iterable[bytes] = self._moto(environ, start_response)
        return passed


def refusal(code: str, message: str, status: int = 400) -> Response:
    """Make the response with which STS refuses."""
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    )
    return Response(body, status, content_type="text/xml")


def given(action: str = "AssumeRole", **credentials: str) -> Response:
    """Make the response with which STS gives credentials: those that are named, and nothing else."""
    keys = "".join(f"<{name}>{value}</{name}>" for name, value in credentials.items())
    body = (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>{keys}'
        f"</Credentials><AssumedRoleUser><Arn>{ASSUMED_ROLE}/d</Arn><AssumedRoleId>A:d</AssumedRoleId></AssumedRoleUser>"
        f"</{action}Result></{action}Response>"
    )
    return Response(body, content_type="text/xml")


def caller(arn: str) -> Response:
    """Make the response with which STS says who asks."""
    action = "GetCallerIdentity"
    body = f"<{action}Response><{action}Result><Arn>{arn}</Arn></{action}Result></{action}Response>"
    return Response(body, content_type="text/xml")


class _Quiet(MotoRequestHandler):
    def log(self, *_: Any) -> None:
        """Leave standard error to the tests."""


@contextmanager
def running_sts() -> Iterator[RecordingSts]:
    """Run one for a while, on loopback."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    sts = RecordingSts()
    server = make_server("127.0.0.1", 0, sts, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    sts.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield sts
    finally:
        sts.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
