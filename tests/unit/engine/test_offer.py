"""What OPA is offered, whatever it says and however late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.engine.offer import Kept, Offer
from sidecar.seal import Sealed

if TYPE_CHECKING:
    from pathlib import Path


def _kept(number: int) -> Kept:
    return Kept(Sealed("base", f"r{number}", number, 0, "", "ours"), f"digest-{number}")


def _read(path: Path) -> Kept | None:
    return _kept(int(path.read_text()))


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    """An offer of nothing yet."""
    return Offer(tmp_path, "base.tar.gz")


def _put(offer: Offer, number: int, active: str = "") -> None:
    scratch = offer.file.with_name("scratch")
    scratch.write_text(str(number))
    offer.put(scratch, _kept(number), active)


def _offered(offer: Offer) -> int:
    return int(offer.offered.read_text())


def test_what_opa_refuses_is_not_offered_again_while_it_has_what_was_before(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    _put(offer, 2, "r1")
    refused = offer.hear("r1", "digest-2", complains=True)
    unchanged = offer.hear("r1", "digest-2", complains=False)
    restarted = offer.hear("", "digest-2", complains=False)

    assert (refused, unchanged, restarted) == (True, False, False)
    assert (_offered(offer), offer.instead, offer.refused) == (1, "r1", True)


def test_a_complaint_about_another_file_than_the_one_that_is_offered_is_late(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    _put(offer, 2, "r1")
    _put(offer, 3, "r1")
    offer.hear("r1", "digest-2", complains=True)

    assert (_offered(offer), offer.refused) == (3, False)


def test_what_turns_out_to_be_in_force_was_not_refused(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    _put(offer, 2, "r1")
    offer.hear("r1", "digest-2", complains=True)
    offer.hear("r2", "digest-2", complains=False)

    assert (_offered(offer), offer.refused, offer.before) == (2, False, None)
    assert [path.name for path in offer.file.parent.iterdir()] == ["base.tar.gz"]


def test_opa_is_not_led_back_from_what_there_is_no_copy_of(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    _put(offer, 2, "r1")
    _put(offer, 3, "r1")  # before OPA has said that it has the second one
    offer.hear("r2", "digest-3", complains=True)

    assert (_offered(offer), offer.refused) == (3, True)


def test_when_opa_can_have_neither_it_is_offered_both_in_turn(offer: Offer) -> None:
    _put(offer, 1)
    _put(offer, 2)
    offered = []
    for _ in range(3):
        offer.hear("", f"digest-{_offered(offer)}", complains=True)
        offered.append(_offered(offer))

    assert offered == [1, 2, 1]


def test_what_was_refused_is_not_kept(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("", "digest-1", complains=True)
    _put(offer, 2)

    assert offer.before is None
    assert offer.oldest == _kept(2).sealed


def test_what_was_in_force_is_kept_while_one_after_the_other_is_refused(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    for number in (2, 3):
        _put(offer, number, "r1")
        offer.hear("r1", f"digest-{number}", complains=True)

    assert (_offered(offer), offer.oldest) == (1, _kept(1).sealed)


def test_both_are_there_after_a_restart_and_the_newest_has_its_chance(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    _put(offer, 2, "r1")
    offer.hear("r1", "digest-2", complains=True)
    again = Offer(offer.file.parent, offer.file.name)
    again.load(_read)
    first = _offered(again)
    again.hear("", "digest-2", complains=True)

    assert (first, _offered(again)) == (2, 1)


def test_what_was_before_takes_the_place_of_a_file_that_is_lost(offer: Offer) -> None:
    _put(offer, 1)
    _put(offer, 2)
    offer.file.unlink()
    again = Offer(offer.file.parent, offer.file.name)
    again.load(_read)

    assert (again.newest, again.before, _offered(again)) == (_kept(1), None, 1)


def test_a_file_that_cannot_be_kept_leaves_the_one_before_on_offer(offer: Offer) -> None:
    _put(offer, 1)
    offer.hear("r1", "digest-1", complains=False)
    with pytest.raises(FileNotFoundError):
        offer.put(offer.file.with_name("gone"), _kept(2), "r1")
    meanwhile = _offered(offer)
    _put(offer, 2, "r1")

    assert (meanwhile, _offered(offer), offer.before) == (1, 2, _kept(1))
