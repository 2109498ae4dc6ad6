"""Which credentials are given out again, and that one call brings those that many wait for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.credentials.cache import CredentialCache, Terms
from sidecar.credentials.sts import Credentials
from sidecar.errors import CredentialsNotGivenError, CredentialsUnavailableError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from concurrent.futures import Future

_LONG = 20.0
_NEVER = 2_000_000_000.0


class _Clock:
    """A clock that is set by hand, in seconds since 1970. Whoever asks for credentials looks at it once."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self.looks.release()
        return self.now


class _Maker:
    """Makes credentials with a number each. While ``gate`` is shut, whoever is asked for them waits at it."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)
        self.fault: Exception | None = None

    def __call__(self, end: float) -> Credentials:
        self.ends.append(end)
        number = len(self.ends)
        self.asked.release()
        assert self.gate.wait(_LONG)
        if self.fault is not None:
            raise self.fault
        return Credentials(f"AKIA{number}", "secret", "token", end, "arn", f"decision-{number}")


class _Cache:
    """A cache with its clock and its maker, and threads for callers that wait."""

    def __init__(self, **settings: Any) -> None:
        self.clock = _Clock()
        self.make = _Maker()
        given: dict[str, Any] = {"entries": 10, "renew_before": 300, "most": 4, "timeout": _LONG} | settings
        self.cache = CredentialCache(**given, clock=self.clock)
        self.threads = ThreadPoolExecutor(8)

    def get(
        self,
        key: Hashable = "key",
        *,
        under: str = "rule",
        end: float = _NEVER,
        seconds: float = 3600,
        patience: float = _LONG,
    ) -> str:
        """Ask for credentials, and give the id of their key."""
        terms = Terms(under, end, seconds)
        return self.cache.get(key, terms, self.make, time.monotonic() + patience).access_key_id

    def ask(self, key: Hashable = "key", **terms: Any) -> Future[str]:
        """Ask for credentials on another thread."""
        return self.threads.submit(self.get, key, **terms)

    def wait_for_callers(self, count: int) -> None:
        """Wait until so many have asked, and found out whom to wait for."""
        for _ in range(count):
            assert self.clock.looks.acquire(timeout=_LONG)
        self.cache.drop("nothing")  # which waits for who is finding out


@pytest.fixture
def cache() -> Iterator[_Cache]:
    made = _Cache()
    yield made
    made.make.gate.set()
    made.threads.shutdown()


# ── what is given out again ─────────────────────────────────────────────────────────────────────────────────────────────


def test_credentials_are_given_out_again(cache: _Cache) -> None:
    assert [cache.get(), cache.get()] == ["AKIA1", "AKIA1"]


@pytest.mark.parametrize(("left", "given"), [(300, "AKIA1"), (299, "AKIA2")])
def test_they_are_renewed_before_their_end(cache: _Cache, left: float, given: str) -> None:
    cache.get()
    cache.clock.now += 3600 - left

    assert cache.get() == given


@pytest.mark.parametrize(("left", "given"), [(60, "AKIA1"), (59, "AKIA2")])
def test_short_ones_are_renewed_at_half_of_their_life(cache: _Cache, left: float, given: str) -> None:
    cache.get(seconds=120)
    cache.clock.now += 120 - left

    assert cache.get(seconds=120) == given


def test_they_are_not_renewed_where_new_ones_would_end_as_soon(cache: _Cache) -> None:
    end = cache.clock.now + 3600
    cache.get(end=end)
    cache.clock.now += 3500

    assert cache.get(end=end) == "AKIA1"


def test_those_that_outlive_what_now_bounds_them_are_not_given_out(cache: _Cache) -> None:
    cache.get()

    assert cache.get(end=cache.clock.now + 3599) == "AKIA2"
    assert cache.make.ends == [cache.clock.now + 3600, cache.clock.now + 3599]


def test_those_that_outlive_what_is_wanted_are_not_given_out(cache: _Cache) -> None:
    cache.get()

    assert cache.get(seconds=900) == "AKIA2"


def test_they_end_with_a_whole_second_that_is_not_too_late(cache: _Cache) -> None:
    cache.clock.now += 0.7
    cache.get(seconds=3600)
    cache.get(end=1_000_900.9, seconds=3600)

    assert cache.make.ends == [1_003_600, 1_000_900]


def test_those_made_under_another_rule_are_not_given_out(cache: _Cache) -> None:
    assert [cache.get(under="one"), cache.get(under="other")] == ["AKIA1", "AKIA2"]


def test_those_for_another_key_are_not_given_out(cache: _Cache) -> None:
    assert [cache.get(("a", "b")), cache.get(("a", "c")), cache.get(("a", "b"))] == ["AKIA1", "AKIA2", "AKIA1"]


def test_what_is_dropped_is_made_anew(cache: _Cache) -> None:
    cache.get()
    cache.cache.drop("key")

    assert cache.get() == "AKIA2"


def test_those_used_longest_ago_make_room() -> None:
    cache = _Cache(entries=2)
    cache.get("a")
    cache.get("b")
    cache.get("a")
    cache.get("c")

    assert [cache.get("a"), cache.get("c"), cache.get("b")] == ["AKIA1", "AKIA3", "AKIA4"]


def test_nothing_is_remembered_where_there_is_no_room() -> None:
    cache = _Cache(entries=0)

    assert [cache.get(), cache.get()] == ["AKIA1", "AKIA2"]


# ── many at a time ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_who_ask_at_a_time_are_answered_by_one_call(cache: _Cache) -> None:
    cache.make.gate.clear()
    callers = [cache.ask() for _ in range(6)]
    cache.wait_for_callers(6)
    cache.make.gate.set()

    assert [caller.result(_LONG) for caller in callers] == ["AKIA1"] * 6
    assert len(cache.make.ends) == 1


def test_a_failure_is_told_to_all_who_wait_and_not_remembered(cache: _Cache) -> None:
    cache.make.gate.clear()
    callers = [cache.ask() for _ in range(2)]
    cache.wait_for_callers(2)
    cache.make.fault = CredentialsUnavailableError("too large")
    cache.make.gate.set()

    for caller in callers:
        with pytest.raises(CredentialsUnavailableError, match="too large"):
            caller.result(_LONG)
    cache.make.fault = None
    assert cache.get() == "AKIA2"


def test_who_waits_waits_no_longer_than_its_own_deadline(cache: _Cache) -> None:
    cache.make.gate.clear()
    patient = cache.ask()
    assert cache.make.asked.acquire(timeout=_LONG)

    with pytest.raises(DeadlineExceededError, match="the deadline passed before STS gave credentials"):
        cache.get(patience=0.01)
    cache.make.gate.set()
    assert patient.result(_LONG) == "AKIA1"


def test_what_comes_after_the_deadline_serves_the_next(cache: _Cache) -> None:
    cache.make.gate.clear()
    with pytest.raises(DeadlineExceededError):
        cache.get(patience=0.01)
    cache.make.gate.set()

    assert cache.get() == "AKIA1"


def test_nobody_waits_longer_than_the_timeout() -> None:
    cache = _Cache(timeout=0.01)
    cache.make.gate.clear()

    with pytest.raises(CredentialsNotGivenError, match=r"STS did not answer within 0\.01 s"):
        cache.get()
    cache.make.gate.set()


def test_those_on_their_way_are_not_for_who_may_have_them_for_less_long(cache: _Cache) -> None:
    cache.make.gate.clear()
    first = cache.ask()
    assert cache.make.asked.acquire(timeout=_LONG)
    second = cache.ask(end=cache.clock.now + 600)
    assert cache.make.asked.acquire(timeout=_LONG)
    cache.make.gate.set()

    assert [first.result(_LONG), second.result(_LONG)] == ["AKIA1", "AKIA2"]
    assert cache.make.ends[1] == cache.clock.now + 600


def test_those_on_their_way_when_they_are_dropped_are_not_remembered(cache: _Cache) -> None:
    cache.make.gate.clear()
    first = cache.ask()
    assert cache.make.asked.acquire(timeout=_LONG)
    cache.cache.drop("key")
    cache.make.gate.set()

    assert first.result(_LONG) == "AKIA1"
    assert cache.get() == "AKIA2"


def test_more_than_are_taken_on_are_refused_at_once() -> None:
    cache = _Cache(most=1)
    cache.make.gate.clear()
    first = cache.ask("a")
    assert cache.make.asked.acquire(timeout=_LONG)

    with pytest.raises(CredentialsNotGivenError, match="as many calls to STS are under way as are taken on"):
        cache.get("b")
    cache.make.gate.set()
    assert first.result(_LONG) == "AKIA1"


def test_a_place_is_free_again_after_a_failure() -> None:
    cache = _Cache(most=1)
    cache.make.fault = CredentialsNotGivenError("down")
    for _ in range(3):
        with pytest.raises(CredentialsNotGivenError, match="down"):
            cache.get()
