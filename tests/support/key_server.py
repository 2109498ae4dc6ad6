"""An issuer's HTTP server on loopback, which counts what it is asked and can be told to be slow, wrong or gone."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.http import Handler, http_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys.json"


class KeyServer:
    """What the server answers, by path: a status and a body. It answers nothing while ``gate`` is closed.

    ``asked`` are the paths that it was asked for, ``headers`` those of the last request. With ``endless``, bytes and a pause in
    seconds, it writes these over and over and never comes to the body.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.location = ""
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.endless: tuple[bytes, float] | None = None
        self.stopping = threading.Event()

    @property
    def keys_url(self) -> str:
        """Where the keys are."""
        return self.url + KEYS

    def list_keys(self, *jwks: dict[str, Any]) -> None:
        """Answer a JWK set from now on."""
        self.answers[KEYS] = 200, json.dumps({"keys": jwks}).encode()

    def describe(self, **about: Any) -> None:
        """Answer from now on what OpenID Connect Discovery asks for."""
        said = {"issuer": self.url, "jwks_uri": self.keys_url} | about
        self.answers[DISCOVERY] = 200, json.dumps(said).encode()


@contextmanager
def key_server(tls: ssl.SSLContext | None = None) -> Iterator[KeyServer]:
    """Serve for a while."""

    class Answering(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the name by which it is found
            server.asked.append(self.path)
            server.headers = {name.lower(): value for name, value in self.headers.items()}
            server.gate.wait()
            status, body = server.answers.get(self.path, (404, b""))
            self.send_response(status)
            if server.location:
                self.send_header("Location", server.location)
            self.send_header("Content-Length", str(1 << 40 if server.endless else len(body)))
            self.end_headers()
            while server.endless and not server.stopping.wait(server.endless[1]):
                self.wfile.write(server.endless[0])
            self.wfile.write(body)

    with http_server(Answering, tls) as url:
        server = KeyServer(url)
        try:
            yield server
        finally:
            server.stopping.set()
            server.gate.set()
