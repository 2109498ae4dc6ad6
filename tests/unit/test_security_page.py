"""The threat model names the tests that carry its attacks out: they are there."""

from __future__ import annotations

import re

import pytest

from tests.support.processes import REPOSITORY

_PAGE = (REPOSITORY / "docs" / "security.md").read_text()
_NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", _PAGE)))


def test_the_page_names_a_test_for_every_attack() -> None:
    attacks = _PAGE.partition("## Attacks tried")[2].partition("\n## ")[0]
    rows = [row for row in attacks.splitlines() if row.startswith("|") and not row.startswith(("| attack", "|---"))]

    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"\| `tests/[^`]+` \|$", row)] == []


@pytest.mark.parametrize(("file", "name"), _NAMED)
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    assert f"def {name}(" in (REPOSITORY / file).read_text() if name else (REPOSITORY / file).is_file()
