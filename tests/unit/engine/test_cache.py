"""The rules of the decision cache, one after the other."""

from __future__ import annotations

import itertools

import pytest

from sidecar.engine.cache import ALWAYS, DecisionCache, Held, Lease, boot_clock, may_be_given, together
from tests.support.clock import Clock

ROOM = 1 << 20
SECONDS = 0.2


@pytest.fixture
def clock() -> Clock:
    """The clock of the cache."""
    return Clock(100.0)


@pytest.fixture
def cache(clock: Clock) -> DecisionCache:
    """A cache that knows revision r1."""
    made = DecisionCache(ROOM, SECONDS, clock)
    hear(made, "r1")
    return made


def hear(cache: DecisionCache, revision: str) -> None:
    """Have OPA answer at once."""
    cache.heard(cache.epoch, cache.clock(), revision)


def get(cache: DecisionCache, key: str) -> object:
    """Ask at this moment."""
    return cache.get(key, cache.clock())


def put(cache: DecisionCache, key: str, value: str = "kept", size: int = 0) -> None:
    """Keep something under the revision that is known."""
    cache.put(cache.epoch.number, key, value, size)


# ── rule 1: equal in all that counts ────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_given_to_an_equal_key_alone(cache: DecisionCache) -> None:
    put(cache, "a", "of a")

    assert (get(cache, "a"), get(cache, "b")) == ("of a", None)


def test_what_is_kept_last_under_a_key_is_given(cache: DecisionCache) -> None:
    put(cache, "a", "first")
    put(cache, "a", "second")

    assert get(cache, "a") == "second"


# ── rule 2: one revision ────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_revision_in_any_answer_ends_all_that_is_kept(cache: DecisionCache) -> None:
    put(cache, "a")
    hear(cache, "r2")

    assert get(cache, "a") is None


def test_a_revision_that_comes_back_brings_nothing_back(cache: DecisionCache) -> None:
    put(cache, "a")
    hear(cache, "r2")
    hear(cache, "r1")

    assert get(cache, "a") is None


def test_nothing_is_given_after_it_was_said_that_opa_has_another(cache: DecisionCache) -> None:
    put(cache, "a")
    cache.forget()
    before = get(cache, "a")
    hear(cache, "r1")

    assert (before, get(cache, "a")) == (None, None)


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_to_what_was_asked_before_the_revision_changed_does_not_bring_the_old_one_back(
    cache: DecisionCache, *, known: bool
) -> None:
    if not known:
        cache.forget()
    asked, began = cache.epoch, cache.clock()
    hear(cache, "r2")
    put(cache, "a")
    cache.heard(asked, began, "r1")

    assert (cache.epoch.revision, get(cache, "a")) == ("r2", "kept")


# ── rule 3: OPA was asked only now ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_given_until_opa_was_asked_too_long_ago(cache: DecisionCache, clock: Clock) -> None:
    put(cache, "a")
    clock.now += SECONDS - 0.001
    before = get(cache, "a")
    clock.now += 0.001

    assert (before, get(cache, "a")) == ("kept", None)


def test_every_answer_under_the_same_revision_counts(cache: DecisionCache, clock: Clock) -> None:
    put(cache, "a")
    for _ in range(5):
        clock.now += SECONDS / 2
        hear(cache, "r1")

    assert get(cache, "a") == "kept"


def test_the_moment_before_opa_was_asked_counts_and_not_the_one_of_its_answer(
    cache: DecisionCache, clock: Clock
) -> None:
    put(cache, "a")
    epoch, began = cache.epoch, cache.clock()
    clock.now += 10
    cache.heard(epoch, began, "r1")

    assert get(cache, "a") is None


def test_a_slow_answer_does_not_take_back_what_a_quick_one_gave(cache: DecisionCache, clock: Clock) -> None:
    put(cache, "a")
    epoch, early = cache.epoch, cache.clock()
    clock.now += SECONDS
    hear(cache, "r1")
    cache.heard(epoch, early, "r1")

    assert get(cache, "a") == "kept"


def test_the_moment_at_which_the_question_came_counts_and_not_how_long_it_took_to_ask_opa(
    cache: DecisionCache, clock: Clock
) -> None:
    put(cache, "a")
    came = clock.now = clock.now + 10
    epoch, began = cache.epoch, cache.clock()
    clock.now += 5
    cache.heard(epoch, began, "r1")

    assert (cache.get("a", came), get(cache, "a")) == ("kept", None)


def test_opa_is_to_be_asked_when_what_is_kept_could_not_be_given_otherwise(cache: DecisionCache, clock: Clock) -> None:
    clock.now += SECONDS
    nothing_kept = cache.must_ask(clock.now)
    put(cache, "a")
    late = cache.must_ask(clock.now)
    hear(cache, "r1")

    assert (nothing_kept, late, cache.must_ask(clock.now)) == (False, True, False)


def test_the_clock_goes_on_while_nothing_runs() -> None:
    first = boot_clock()

    assert boot_clock() >= first


# ── rule 4: asked, answered and kept under one revision ─────────────────────────────────────────────────────────────────


def test_nothing_is_kept_of_a_revision_that_is_over(cache: DecisionCache) -> None:
    asked = cache.epoch.number
    hear(cache, "r2")
    cache.put(asked, "a", "of r1", 0)

    assert get(cache, "a") is None


def test_nothing_is_kept_before_a_revision_is_known(clock: Clock) -> None:
    cache = DecisionCache(ROOM, SECONDS, clock)
    asked = cache.epoch.number
    hear(cache, "r1")
    cache.put(asked, "a", "asked before", 0)

    assert get(cache, "a") is None


# ── rule 5: its time ────────────────────────────────────────────────────────────────────────────────────────────────────

_LEASE = Lease(1, as_of=50, since=100, until=200)
_MOMENTS: dict[str, tuple[Lease | None, int, int, bool]] = {
    "while it holds": (_LEASE, 150, 50, True),
    "at the moment that it was made for": (_LEASE, 100, 0, True),
    "when the clock has gone back before that": (_LEASE, 99, 0, False),
    "just before its end": (_LEASE, 199, 0, True),
    "at its end": (_LEASE, 200, 0, False),
    "under an older registry than is wanted": (_LEASE, 150, 51, False),
    "without a lease": (None, 150, 0, False),
    "when no time limits it": (Lease(1, 50, 100), ALWAYS - 1, 0, True),
}


@pytest.mark.parametrize(("lease", "now", "oldest", "given"), _MOMENTS.values(), ids=_MOMENTS)
def test_an_answer_is_given_in_its_time_alone(lease: Lease | None, now: int, oldest: int, *, given: bool) -> None:
    assert may_be_given(lease, now, oldest) is given


def test_answers_together_are_given_while_all_may_be() -> None:
    lease = together([Lease(1, 50, 100, 300), Lease(1, 50, 120, 400), Lease(1, 50, 110)])

    assert lease == Lease(1, 50, 120, 300)


@pytest.mark.parametrize("leases", [[], [None], [_LEASE, None], [None, _LEASE], [_LEASE, Lease(2, 50, 100)]], ids=repr)
def test_answers_together_are_not_given_again_if_one_may_not_or_they_are_of_two_revisions(
    leases: list[Lease | None],
) -> None:
    assert together(leases) is None


# ── rule 6: its room ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_not_asked_for_the_longest_makes_room(cache: DecisionCache) -> None:
    third = ROOM // 3 - 1000
    for key in ("a", "b", "c"):
        put(cache, key, size=third)
    get(cache, "a")
    put(cache, "d", size=third)

    assert [get(cache, key) for key in ("a", "b", "c", "d")] == ["kept", None, "kept", "kept"]
    assert cache.evictions == 1


def test_no_more_is_kept_than_there_is_room_for_whatever_revisions_come(clock: Clock) -> None:
    cache = DecisionCache(100_000, SECONDS, clock)
    seen = []
    for number in range(3000):
        if number % 70 == 0:
            hear(cache, f"r{number}")
        put(cache, f"key {number}", size=number % 5000)
        seen.append(cache.bytes)

    assert 50_000 < max(seen) <= 100_000


def test_what_is_larger_than_the_room_is_not_kept_and_drives_nothing_out(cache: DecisionCache) -> None:
    put(cache, "a")
    put(cache, "b", size=ROOM)

    assert (get(cache, "a"), get(cache, "b"), cache.evictions) == ("kept", None, 0)


def test_what_is_replaced_gives_its_room_back(cache: DecisionCache) -> None:
    for size in (5000, 70_000, 10):
        put(cache, "a", size=size)
    once = cache.bytes
    put(cache, "b", size=10)

    assert cache.bytes == 2 * once


def test_the_room_of_a_revision_that_is_over_comes_back(cache: DecisionCache) -> None:
    for number in range(100):
        put(cache, f"old {number}")
    hear(cache, "r2")
    for number in range(100):
        put(cache, f"new {number % 2}")

    assert cache.bytes < 2000


# ── questions under way ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_who_asks_has_the_flight_and_others_wait_for_what_it_brings(cache: DecisionCache) -> None:
    flight, own = cache.board(cache.epoch, "a")
    same, others = cache.board(cache.epoch, "a")
    held = Held("answer")
    flight.held = held
    cache.land(cache.epoch, "a", flight)

    assert (own, others, same) == (True, False, flight)
    assert same.wait(0) is held


def test_who_waits_for_a_flight_that_brings_nothing_is_let_go(cache: DecisionCache) -> None:
    flight, _ = cache.board(cache.epoch, "a")
    still_under_way = flight.wait(0)
    cache.land(cache.epoch, "a", flight)

    assert (still_under_way, flight.wait(0)) == (None, None)


def test_nobody_boards_a_flight_that_has_landed(cache: DecisionCache) -> None:
    flight, _ = cache.board(cache.epoch, "a")
    cache.land(cache.epoch, "a", flight)

    assert cache.board(cache.epoch, "a")[1]


def test_nobody_boards_a_flight_of_another_revision(cache: DecisionCache) -> None:
    cache.board(cache.epoch, "a")
    hear(cache, "r2")

    assert cache.board(cache.epoch, "a")[1]


def test_nobody_boards_a_flight_that_began_too_long_ago(cache: DecisionCache, clock: Clock) -> None:
    cache.board(cache.epoch, "a")
    clock.now += SECONDS - 0.001
    in_time = cache.board(cache.epoch, "a")[1]
    clock.now += 0.001

    assert (in_time, cache.board(cache.epoch, "a")[1]) == (False, True)


def test_a_flight_that_lands_late_leaves_the_one_that_took_its_place(cache: DecisionCache, clock: Clock) -> None:
    late, _ = cache.board(cache.epoch, "a")
    clock.now += SECONDS
    flight, _ = cache.board(cache.epoch, "a")
    cache.land(cache.epoch, "a", late)

    assert cache.board(cache.epoch, "a") == (flight, False)


# ── what comes again ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_comes_again_the_second_time(cache: DecisionCache) -> None:
    assert [cache.comes_again(key) for key in ("a", "a", "a")] == [False, True, True]


def test_what_is_remembered_of_keys_does_not_grow(cache: DecisionCache) -> None:
    for number in range(100_000):
        cache.comes_again(number)

    assert len(cache._seen) < 20_000


def test_it_tells_once_whether_it_was_asked(cache: DecisionCache) -> None:
    get(cache, "a")

    assert [cache.was_asked() for _ in itertools.repeat(None, 2)] == [True, False]
