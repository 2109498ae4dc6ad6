"""Pages of a search: where one begins, and what makes a token good for the same search alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
from jwt.utils import base64url_encode
from msgspec import Meta, Struct

from sidecar.errors import InvalidRequestError
from sidecar.identity.encoding import decode_base64url
from sidecar.model import Search

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.doors.authzen.requests import Kind, Page
    from sidecar.model import Found, Json

_QUERY_BYTES = 16


class Position(Struct, frozen=True, array_like=True):
    """Where a page begins: behind a candidate. ``query`` tells the search, so that the token of one is none of another."""

    after: str
    limit: Annotated[int, Meta(ge=0)]
    query: str

    @property
    def token(self) -> str:
        """This position as callers hand it back."""
        return base64url_encode(msgspec.json.encode(self)).decode()


def fingerprint(kind: Kind, tenant: str, body: dict[str, Json]) -> str:
    """Name a search by all that it says but for the page. A token that is made up leads nowhere else, so this is no secret."""
    said = {name: value for name, value in body.items() if name != "page"}
    whole = msgspec.json.encode([kind, tenant, said], order="deterministic")
    return hashlib.sha256(whole).hexdigest()[: 2 * _QUERY_BYTES]


def position(page: Page, query: str, page_size: int) -> Position:
    """Say where a page begins. Raises ``InvalidRequestError`` for a token that is none, or of another search."""
    limit = page_size if page.limit is None else min(page.limit, page_size)
    if page.token is None:
        return Position("", limit, query)
    try:
        begin = msgspec.json.decode(decode_base64url(page.token), type=Position)
    except ValueError as fault:
        _refuse("page.token", "is none that was given out", fault)
    if begin.query != query:
        _refuse("page.token", "is of another search; repeat all of the request but for the page")
    if page.limit is not None and begin.limit != limit:
        _refuse("page.limit", "must stay as it was, or be left out")
    return begin


def turn(
    begin: Position, look: Callable[[Search], Found], *, first: int, most: int, prefix: str, properties: Json
) -> tuple[list[str], Found, Position | None]:
    """Look at candidates for a page: at the ``first`` so many, then, if these do not fill it, at all others up to ``most``.

    Gives the ids or names that were found, the last answer, and where the next page begins, if there may be one. Where a page
    ends before it is full, more may follow.
    """
    found = look(Search(begin.after, min(first, most), prefix, properties))
    ids, after = [*found.found], found.next
    if after and len(ids) < begin.limit and first < most:
        found = look(Search(after, most - first, prefix, properties))
        ids, after = [*ids, *found.found], found.next
    if len(ids) > begin.limit:
        ids = ids[: begin.limit]
        after = ids[-1] if ids else begin.after
        return ids, found, Position(after, begin.limit, begin.query)
    return ids, found, Position(after, begin.limit, begin.query) if after else None


def _refuse(field: str, fault: str, cause: Exception | None = None) -> NoReturn:
    raise InvalidRequestError(field, fault) from cause
