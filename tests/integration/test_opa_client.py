"""The client of OPA against servers that speak HTTP in every way it must understand, or must not be fooled by."""

from __future__ import annotations

import itertools
import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from sidecar.engine.opa import OpaClient
from sidecar.errors import DeadlineExceededError, EngineUnavailableError, MalformedAnswerError, SettingsError
from tests.bench.opa_client import main
from tests.support.engines import Callers
from tests.support.fake_opa import FakeOpa, HangUp, Query, fake_opa, http
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.support.fake_opa import Answer

DEADLINE = 20.0
MOST = 1000
BODY = json.dumps({"input": {"tenant": {"id": "T"}}}).encode()
TEXT = b'{"result": 1}'

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def asking(answer: Answer, folder: Path, **options: Any) -> Iterator[tuple[FakeOpa, OpaClient]]:
    """Run a server, and a client with one connection to it."""
    with fake_opa(folder / "fake.sock", answer) as opa:
        given = {"connections": 1, "timeout": DEADLINE, "max_answer_bytes": MOST} | options
        client = OpaClient(opa.address, **given)
        yield opa, client
        client.close()


def ask(client: OpaClient, seconds: float = DEADLINE) -> tuple[int, bytes]:
    """Send the query."""
    return client.query("x", BODY, time.monotonic() + seconds)


def in_pieces(whole: bytes) -> Answer:
    """Answer byte by byte."""
    return lambda _: (whole[at : at + 1] for at in range(len(whole)))


# ── ways to say the same ────────────────────────────────────────────────────────────────────────────────────────────────

_GOOD: dict[str, bytes] = {
    "as OPA does": http(TEXT),
    "with the length in small letters": b"HTTP/1.1 200 OK\r\ncontent-length:13\r\n\r\n" + TEXT,
    "with room around the length": b"HTTP/1.1 200 OK\r\nContent-Length: \t 13 \t\r\n\r\n" + TEXT,
    "with the length last": b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 13\r\n\r\n" + TEXT,
    "without a reason phrase": b"HTTP/1.1 200\r\nContent-Length: 13\r\n\r\n" + TEXT,
    "in HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n" + TEXT,
    "in one chunk": _CHUNKED + b"d\r\n" + TEXT + b"\r\n0\r\n\r\n",
    "in many chunks": _CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in TEXT) + b"0\r\n\r\n",
    "in chunks with large sizes, extensions and trailers": (
        _CHUNKED + b"00D ;a=b\r\n" + TEXT + b"\r\n000\r\nX-Trailer: y\r\nZ: 0\r\n\r\n"
    ),
    "in chunks, with a length that does not count": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n" + TEXT + b"\r\n0\r\n\r\n"
    ),
    "and that the connection ends": http(TEXT, 200, "Connection: close"),
}


@pytest.mark.parametrize("whole", _GOOD.values(), ids=_GOOD)
def test_an_answer_is_understood_and_the_next_one_too(whole: bytes, short_path: Path) -> None:
    with asking(lambda _: [whole], short_path) as (_, client):
        assert [ask(client) for _ in range(3)] == [(200, TEXT)] * 3


@pytest.mark.parametrize("whole", _GOOD.values(), ids=_GOOD)
def test_an_answer_is_understood_however_it_is_cut(whole: bytes, short_path: Path) -> None:
    with asking(in_pieces(whole), short_path) as (_, client):
        assert [ask(client) for _ in range(2)] == [(200, TEXT)] * 2


@pytest.mark.parametrize("size", [0, 1, MOST])
def test_an_answer_may_have_as_many_bytes_as_are_taken(size: int, short_path: Path) -> None:
    content = b"x" * size
    chunks = _CHUNKED + (b"%x\r\n%b\r\n" % (size, content) if size else b"") + b"0\r\n\r\n"
    answers = itertools.cycle([http(content), chunks])
    with asking(lambda _: [next(answers)], short_path) as (_, client):
        assert [ask(client)[1], ask(client)[1]] == [content, content]


# ── ways not to be fooled by ────────────────────────────────────────────────────────────────────────────────────────────

_TOO_LONG: dict[str, bytes] = {
    "one byte more than is taken": http(b"x" * (MOST + 1)),
    "a length beyond all memory": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n",
    "a chunk beyond all memory": _CHUNKED + b"ffffffffffff\r\n",
    "chunks that are too many": _CHUNKED + b"1\r\nx\r\n" * (MOST + 1) + b"0\r\n\r\n",
    "a chunk that is one byte too long after others": _CHUNKED + b"1\r\nx\r\n" + b"3e8\r\n" + b"x" * MOST + b"\r\n",
}
_BAD: dict[str, bytes] = {
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -13\r\n\r\n" + TEXT,
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: 0xd\r\n\r\n" + TEXT,
    "a length beyond all numbers": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n" + TEXT,
    "a length within another header": b"HTTP/1.1 200 OK\r\nX-Content-Length: 13\r\n\r\n" + TEXT,
    "a chunk without a size": _CHUNKED + b"\r\n" + TEXT + b"\r\n0\r\n\r\n",
    "a chunk with a negative size": _CHUNKED + b"-1\r\n" + TEXT + b"\r\n0\r\n\r\n",
    "a chunk that is longer than it says": _CHUNKED + b"5\r\n" + TEXT + b"\r\n0\r\n\r\n",
    "the size of a chunk without end": _CHUNKED + b"1" * 2000,
    "trailers without end": _CHUNKED + b"0\r\nX: " + b"y" * 2000,
    "a status that is no number": b"HTTP/1.1 OK 200\r\nContent-Length: 13\r\n\r\n" + TEXT,
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 13\r\n\r\n" + TEXT,
    "something before the status": b" HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + TEXT,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("whole", _TOO_LONG.values(), ids=_TOO_LONG)
def test_an_answer_that_is_too_long_is_not_taken_in(whole: bytes, short_path: Path) -> None:
    answers = iter([[whole]])
    with asking(lambda _: next(answers, [http(TEXT)]), short_path) as (_, client):
        with pytest.raises(MalformedAnswerError, match=f"more than {MOST} bytes"):
            ask(client)

        assert ask(client) == (200, TEXT)


@pytest.mark.parametrize("whole", _BAD.values(), ids=_BAD)
def test_an_answer_that_cannot_be_read_is_an_error_and_the_next_is_not(whole: bytes, short_path: Path) -> None:
    answers = iter([[whole]])
    with asking(lambda _: next(answers, [http(TEXT)]), short_path) as (_, client):
        with pytest.raises(EngineUnavailableError):
            ask(client)

        assert ask(client) == (200, TEXT)


_WHOLES = {"of a length": http(TEXT), "in chunks": _GOOD["in many chunks"]}


@pytest.mark.parametrize("whole", _WHOLES.values(), ids=_WHOLES)
def test_an_answer_that_is_cut_off_anywhere_is_an_error(whole: bytes, short_path: Path) -> None:
    for end in range(len(whole)):

        def cut(_query: Query, end: int = end) -> Iterator[bytes]:
            yield whole[:end]
            raise HangUp

        with (
            asking(cut, short_path) as (_, client),
            pytest.raises(EngineUnavailableError, match="closed the connection"),
        ):
            ask(client)
        (short_path / "fake.sock").unlink()


@pytest.mark.parametrize("whole", _WHOLES.values(), ids=_WHOLES)
def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one(whole: bytes, short_path: Path) -> None:
    numbers: list[int] = []

    def more(query: Query) -> Iterable[bytes]:
        numbers.append(query.number)
        return [whole + http(b"smuggled")]

    with asking(more, short_path) as (_, client):
        assert [ask(client) for _ in range(3)] == [(200, TEXT)] * 3
    assert numbers == [1, 1, 1]


def test_a_trickle_does_not_last_longer_than_a_query_may_take(short_path: Path) -> None:
    def trickle(query: Query) -> Iterator[bytes]:
        for byte in http(TEXT):
            yield bytes([byte])
            if query.stopped.wait(0.05):
                return

    with (
        asking(trickle, short_path, timeout=0.3) as (_, client),
        pytest.raises(EngineUnavailableError, match="did not answer"),
    ):
        ask(client)


def test_the_deadline_is_told_apart_from_the_time_that_a_query_may_take(short_path: Path) -> None:
    def silent(query: Query) -> Iterator[bytes]:
        query.stopped.wait()
        yield b""

    with asking(silent, short_path) as (_, client), pytest.raises(DeadlineExceededError, match="while OPA was asked"):
        ask(client, seconds=0.2)


# ── connections ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_connection_serves_one_question_after_the_other(short_path: Path) -> None:
    numbers: list[int] = []

    def answer(query: Query) -> Iterable[bytes]:
        numbers.append(query.number)
        return [http(TEXT)]

    with asking(answer, short_path, connections=4) as (_, client):
        for _ in range(5):
            ask(client)
    assert numbers == [1, 2, 3, 4, 5]


def test_a_connection_that_opa_ends_is_not_kept(short_path: Path) -> None:
    numbers: list[int] = []

    def answer(query: Query) -> Iterable[bytes]:
        numbers.append(query.number)
        return [http(TEXT, 200, "Connection: close")]

    with asking(answer, short_path) as (_, client):
        for _ in range(3):
            ask(client)
    assert numbers == [1, 1, 1]


def test_a_kept_connection_that_breaks_in_the_middle_of_an_answer_is_replaced(short_path: Path) -> None:
    def answer(query: Query) -> Iterator[bytes]:
        yield http(TEXT)[: None if query.number == 1 else 20]
        if query.number > 1:
            raise HangUp

    with asking(answer, short_path) as (_, client):
        assert [ask(client) for _ in range(4)] == [(200, TEXT)] * 4


def test_no_more_connections_are_made_than_may_be(short_path: Path) -> None:
    release, most = threading.Event(), 3

    def held(query: Query) -> Iterator[bytes]:
        wait_until(lambda: release.is_set() or query.stopped.is_set(), 60)
        yield http(TEXT)

    with asking(held, short_path, connections=most) as (opa, client):
        callers = Callers()
        for number in range(most):
            callers.call(str(number), lambda: ask(client))
        wait_until(lambda: len(opa.queries) == most)
        with pytest.raises(DeadlineExceededError):
            ask(client, seconds=0.2)
        release.set()

        assert [*callers.join().values()] == [(200, TEXT)] * most
        assert len(opa.queries) == most


def test_a_connection_that_is_in_use_when_the_client_is_closed_is_not_kept(short_path: Path) -> None:
    release = threading.Event()

    def held(query: Query) -> Iterator[bytes]:
        wait_until(lambda: release.is_set() or query.stopped.is_set(), 60)
        yield http(TEXT)

    with asking(held, short_path) as (opa, client):
        callers = Callers()
        callers.call("one", lambda: ask(client))
        wait_until(lambda: len(opa.queries) == 1)
        client.close()
        release.set()
        assert callers.join() == {"one": (200, TEXT)}
        wait_until(lambda: opa.open == 0)


def test_answers_do_not_get_mixed_up_between_callers(short_path: Path) -> None:
    with asking(lambda query: [http(query.body)], short_path, connections=5) as (_, client):

        def many(caller: int) -> bool:
            bodies = [json.dumps({"input": {"tenant": {"id": f"{caller}.{n}"}}}).encode() for n in range(50)]
            return [client.query("x", body, time.monotonic() + DEADLINE)[1] for body in bodies] == bodies

        callers = Callers()
        for number in range(10):
            callers.call(str(number), lambda number=number: many(number))  # type: ignore[misc]
        assert {*callers.join().values()} == {True}


def test_the_cost_of_clients_is_measured_by_one_command() -> None:
    ended = CliRunner().invoke(main, ["--queries", "2", "--rounds", "1"], catch_exceptions=False)

    assert [line.split("  ")[0] for line in ended.stdout.splitlines()] == [
        "the sidecar's own",
        "http.client",
        "urllib3",
    ]


@pytest.mark.parametrize("address", ["", "opa", "https://opa:8181", "http://", "ftp://opa", "/run/opa.sock"])
def test_an_address_that_opa_cannot_have_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"opa\.address"):
        OpaClient(address, connections=1, timeout=1, max_answer_bytes=1)
