"""Bundles over HTTP: ``base.tar.gz`` and ``overlay.tar.gz``, handed out the moment they change.

A client that knows long polling, as OPA does, asks with ``Prefer: wait=SECONDS`` and the ETag of what it has, and is answered
when there is something else; https://www.openpolicyagent.org/docs/latest/management-bundles/#http-long-polling. Others get 200 or
304 at once. The ETag is the SHA-256 of the file.

The sidecar hands its own OPA what it has taken in, and hears over the same port what OPA made of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import stat
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sidecar.http_server import HttpServer
from sidecar.seal import FILES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from starlette.requests import Request

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/vnd.openpolicyagent.bundles"
"""What tells a client that the server knows long polling."""

_CHUNK = 1 << 18
_LOOK_SECONDS = 0.02
_CHECK_SECONDS = 1.0  # how soon it is noticed that a client that waits has gone away
_MOST_WAIT_SECONDS = 600
_MOST_REPORT_BYTES = 1 << 20
_WAIT = re.compile(r"(?:^|[;,])\s*wait=(\d{1,6})\s*(?:$|[;,])")


class _Version:
    """One file as it was when it was looked at. It stays open, so that it can be sent whole though another takes its place."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self.identity = _identity(os.fstat(descriptor))
        self.size = self.identity[-1]
        digest = hashlib.sha256()
        at = 0
        while chunk := os.pread(descriptor, _CHUNK, at):
            digest.update(chunk)
            at += len(chunk)
        self.digest = digest.hexdigest()
        self.etag = f'"{self.digest}"'

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the content."""
        for at in range(0, self.size, _CHUNK):
            yield os.pread(self._descriptor, min(_CHUNK, self.size - at), at)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class _Files:
    """The files that are handed out, and what waits for them to change. Lives in the loop of the server.

    ``given`` tells, by name, which was handed out last: its SHA-256, and the moment before.
    """

    def __init__(self, find: Callable[[str], Path]) -> None:
        self._find = find
        self._versions: dict[str, _Version] = {}
        self._changed = asyncio.Event()
        self._faults: dict[str, str] = {}
        self.given: dict[str, tuple[str, datetime]] = {}
        self.closing = False

    def look(self) -> None:
        """See whether files are others than before, and wake those who wait if so."""
        changed = False
        for name in FILES.values():
            path = self._find(name)
            try:
                found = path.stat()
                before = self._versions.get(name)
                if before is not None and before.identity == _identity(found):
                    continue
                if not stat.S_ISREG(found.st_mode):
                    continue
                self._versions[name] = _Version(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self._faults.pop(name, None)
                changed = True
            except FileNotFoundError:
                changed |= self._versions.pop(name, None) is not None
            except OSError as fault:
                if self._faults.get(name) != str(fault):
                    self._faults[name] = str(fault)
                    log.warning("bundle_unreadable", file=name, reason=str(fault))
        if changed:
            self.wake()

    def wake(self) -> None:
        """Have all who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def get(self, name: str, known: str, wait: float, gone: Callable[[], Awaitable[bool]]) -> _Version | None:
        """Give the version of a file that is another than the one known, or what there is when the wait is over.

        ``gone`` tells whether the client has gone away, for which nothing is to wait.
        """
        end = time.monotonic() + wait
        while True:
            changed, version = self._changed, self._versions.get(name)
            left = end - time.monotonic()
            if left <= 0 or self.closing or (version is not None and version.etag != known) or await gone():
                return version
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left, _CHECK_SECONDS))


class Reports(Protocol):
    """What takes the status that OPA posts."""

    def __call__(self, body: bytes, given: Mapping[str, tuple[str, datetime]], /) -> None:
        """Take one. ``given`` tells, by name, which file was handed out last: its SHA-256, and the moment before."""


def _application(files: _Files, token: str | None, reports: Reports | None) -> Starlette:
    async def bundle(request: Request) -> Response:
        _admit(request, token)
        name = request.path_params["name"]
        if name not in FILES.values():
            raise HTTPException(404)
        known = request.headers.get("if-none-match", "").strip().removeprefix("W/")
        asked = _WAIT.search(request.headers.get("prefer", ""))
        wait = min(int(asked[1]), _MOST_WAIT_SECONDS) if asked else 0
        version = await files.get(name, known, wait, request.is_disconnected)
        headers = {"content-type": MEDIA_TYPE, "cache-control": "no-cache"}
        if version is None:
            # To one that waits, nothing new, as OPA has it: an error would make it back off.
            return Response(status_code=304 if asked else 404, headers=headers)
        headers["etag"] = version.etag
        if version.etag == known:
            return Response(status_code=304, headers=headers)
        files.given[name] = version.digest, datetime.now(UTC)
        headers["content-length"] = str(version.size)
        return StreamingResponse(version.chunks(), headers=headers)

    async def report(request: Request) -> Response:
        _admit(request, token)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_REPORT_BYTES:
                raise HTTPException(413)
        assert reports is not None  # noqa: S101 - else there is no such route
        reports(bytes(body), files.given)
        return Response(status_code=204)

    routes = [Route("/{name}", bundle, methods=["GET"])]
    if reports is not None:
        routes.insert(0, Route("/status", report, methods=["POST"]))
    return Starlette(routes=routes)


def _admit(request: Request, token: str | None) -> None:
    if token is None:
        return
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, headers={"www-authenticate": "Bearer"})


class BundleEndpoint(HttpServer):
    """Hands out bundles. ``find`` tells which file is the one of a name; it need not be there.

    ``watch`` has it look at the files by itself; else ``changed`` says when. With a ``token``, it is asked for. ``reports`` takes
    what OPA's status plugin posts, in the thread of the server.
    """

    def __init__(
        self,
        find: Callable[[str], Path],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str | None = None,
        reports: Reports | None = None,
        watch: bool = False,
        connections: int = 64,
    ) -> None:
        self._files = _Files(find)
        self._watch = watch
        super().__init__(
            _application(self._files, token, reports), host, port, name="bundle-endpoint", connections=connections
        )

    def changed(self) -> None:
        """Look at the files now. May be called from any thread."""
        self.call(self._files.look)

    def _begin(self) -> None:
        self._files.look()
        if self._watch:
            self._watching = asyncio.create_task(self._look_on())

    async def _look_on(self) -> None:
        while not self._server.should_exit:
            await asyncio.sleep(_LOOK_SECONDS)
            self._files.look()
        self._close()  # a signal ends it, and those who wait hear of it

    def _close(self) -> None:
        self._files.closing = True
        self._files.wake()
        super()._close()


def serve(folder: Path, host: str, port: int, token: str | None, told: Callable[[str], None]) -> None:
    """Serve a directory until SIGINT or SIGTERM. ``told`` gets the address once there is one. Raises ``StartError``."""
    endpoint = BundleEndpoint(folder.joinpath, host, port, token=token, watch=True)
    told(endpoint.url)
    try:
        endpoint.run()
    finally:
        endpoint.stop()
