"""What a client of the bundle endpoint sees: at once, when something changes, and when it may not."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from sidecar.bundle_endpoint import MEDIA_TYPE, BundleEndpoint
from sidecar.errors import StartError
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.bundle_endpoint import Reports


@contextmanager
def _serving(folder: Path, **options: Any) -> Iterator[BundleEndpoint]:
    endpoint = BundleEndpoint(folder.joinpath, **options)
    endpoint.start()
    try:
        yield endpoint
    finally:
        endpoint.stop()


def _get(endpoint: BundleEndpoint, name: str = "base.tar.gz", method: str = "GET", **options: Any) -> Any:
    return urllib3.request(method, f"{endpoint.url}/{name}", retries=False, timeout=20, **options)


def _publish(folder: Path, body: bytes, name: str = "base.tar.gz") -> None:
    (folder / "scratch").write_bytes(body)
    (folder / "scratch").replace(folder / name)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()}"'


class _Waiter:
    """A long poll under way."""

    def __init__(self, endpoint: BundleEndpoint, etag: str, wait: int = 60, name: str = "base.tar.gz") -> None:
        self.answers: list[Any] = []
        headers = {"If-None-Match": etag, "Prefer": f"modes=snapshot,delta;wait={wait}"}
        self._thread = threading.Thread(target=lambda: self.answers.append(_get(endpoint, name, headers=headers)))
        self._thread.start()

    def answer(self) -> Any:
        """Give the answer when it is there."""
        self._thread.join(20)
        return self.answers[0]


def test_it_gives_the_file_with_its_hash(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path) as endpoint:
        answer = _get(endpoint)

    assert (answer.status, answer.data) == (200, b"one")
    assert (answer.headers["etag"], answer.headers["content-type"]) == (_etag(b"one"), MEDIA_TYPE)


def test_a_large_file_comes_whole(tmp_path: Path) -> None:
    body = bytes(range(256)) * 8192
    _publish(tmp_path, body)
    with _serving(tmp_path) as endpoint:
        answer = _get(endpoint)

    assert answer.data == body


def test_what_the_client_has_is_not_sent_again(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path) as endpoint:
        answer = _get(endpoint, headers={"If-None-Match": _etag(b"one")})

    assert (answer.status, answer.data, answer.headers["etag"]) == (304, b"", _etag(b"one"))


@pytest.mark.parametrize("name", ["overlay.tar.gz", "scratch", "../secret", "%2e%2e/secret", "base.tar.gz/x", ""])
def test_there_is_nothing_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "secret").write_text("secret")
    _publish(tmp_path / "published", b"one")
    (tmp_path / "published" / "scratch").write_text("secret")
    with _serving(tmp_path / "published") as endpoint:
        answer = _get(endpoint, name)

    assert answer.status == 404


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer guessed", "secret", "bearer secret", "Bearer s\u00e9cret"])
def test_without_the_token_there_is_nothing(header: str | None, tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path, token="secret") as endpoint:
        refused = _get(endpoint, headers={} if header is None else {"Authorization": header})
        given = _get(endpoint, headers={"Authorization": "Bearer secret"})

    assert (refused.status, given.status) == (401, 200)


def test_a_change_by_another_process_ends_the_wait_at_once(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path, watch=True) as endpoint:
        waiter = _Waiter(endpoint, _etag(b"one"))
        _publish(tmp_path, b"two")
        began = time.monotonic()
        answer = waiter.answer()

    assert (answer.status, answer.data) == (200, b"two")
    assert time.monotonic() - began < 5  # of 60


def test_a_change_that_is_told_ends_the_wait(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path) as endpoint:
        waiter = _Waiter(endpoint, _etag(b"one"))
        _publish(tmp_path, b"two")
        endpoint.changed()

        assert waiter.answer().data == b"two"


def test_a_file_that_comes_to_be_ends_the_wait(tmp_path: Path) -> None:
    with _serving(tmp_path, watch=True) as endpoint:
        waiter = _Waiter(endpoint, "", name="overlay.tar.gz")
        _publish(tmp_path, b"one", "overlay.tar.gz")

        assert waiter.answer().data == b"one"


def test_a_wait_without_a_change_ends_with_nothing_new(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path) as endpoint:
        began = time.monotonic()
        same = _Waiter(endpoint, _etag(b"one"), wait=1).answer()
        missing = _Waiter(endpoint, "", wait=1, name="overlay.tar.gz").answer()

    assert (same.status, missing.status) == (304, 304)
    assert time.monotonic() - began >= 2


def test_those_who_wait_are_answered_when_it_stops(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path) as endpoint:
        waiters = [_Waiter(endpoint, _etag(b"one")) for _ in range(3)]
        wait_until(lambda: len(endpoint._server.server_state.tasks) == 3)
        began = time.monotonic()
        endpoint.stop()
        answers = [waiter.answer().status for waiter in waiters]

    assert answers == [304] * 3
    assert time.monotonic() - began < 3


def test_those_who_wait_and_go_away_make_room(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path, connections=2) as endpoint:
        headers = {"If-None-Match": _etag(b"one"), "Prefer": "wait=60"}
        with pytest.raises(urllib3.exceptions.TimeoutError):
            urllib3.request("GET", f"{endpoint.url}/base.tar.gz", headers=headers, retries=False, timeout=0.2)
        wait_until(lambda: not endpoint._server.server_state.tasks)

        assert _get(endpoint).status == 200


def test_more_connections_than_it_takes_on_are_turned_away(tmp_path: Path) -> None:
    _publish(tmp_path, b"one")
    with _serving(tmp_path, connections=3) as endpoint:
        waiters = [_Waiter(endpoint, _etag(b"one")) for _ in range(2)]
        wait_until(lambda: len(endpoint._server.server_state.tasks) == 2)
        refused = _get(endpoint).status
        _publish(tmp_path, b"two")
        endpoint.changed()
        statuses = [waiter.answer().status for waiter in waiters]

    assert refused == 503
    assert statuses == [200, 200]


def test_a_file_that_is_replaced_while_it_is_sent_comes_whole(tmp_path: Path) -> None:
    body = b"1" * (64 << 20)
    _publish(tmp_path, body)
    with _serving(tmp_path, watch=True) as endpoint:
        answer = _get(endpoint, preload_content=False)
        _publish(tmp_path, b"2")
        wait_until(lambda: _get(endpoint).data == b"2")
        rest = hashlib.sha256(answer.read()).hexdigest()
        answer.release_conn()

    assert f'"{rest}"' == answer.headers["etag"]


def test_reports_are_taken_with_the_token_alone(tmp_path: Path) -> None:
    taken: list[tuple[bytes, dict[str, tuple[str, datetime]]]] = []
    reports: Reports = lambda body, given: taken.append((body, {**given}))  # noqa: E731 - it says that it is one
    _publish(tmp_path, b"1")
    _publish(tmp_path, b"2", "overlay.tar.gz")
    token = {"Authorization": "Bearer secret"}
    with _serving(tmp_path, token="secret", reports=reports) as endpoint:
        refused = _get(endpoint, "status", "POST", body=b"{}")
        before = datetime.now(UTC)
        given = _get(endpoint, headers=token)
        after = datetime.now(UTC)
        accepted = _get(endpoint, "status", "POST", body=b"{}", headers=token)
        large = _get(endpoint, "status", "POST", body=b" " * (2 << 20), headers=token)

    assert (refused.status, accepted.status, large.status) == (401, 204, 413)
    ((body, told),) = taken
    digest, at = told.pop("base.tar.gz")
    assert (body, told, digest) == (b"{}", {}, given.headers["etag"].strip('"'))
    assert before <= at <= after


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with _serving(tmp_path) as endpoint, pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:"):
        BundleEndpoint(tmp_path.joinpath, port=int(endpoint.url.rpartition(":")[2]))
