"""What STS can carry: every value is held against its limits before a call is made.

Source: botocore's model ``sts/2011-06-15``; where its text is narrower than its patterns (names are ASCII), the text. What AWS
keeps for itself and what would be trimmed is refused besides.
"""

from __future__ import annotations

import math
import re
import unicodedata

from sidecar.errors import CredentialsUnavailableError

SHORTEST_SECONDS = 900
LONGEST_SECONDS = 43_200
LONGEST_POLICY = 2048

_SHOWN = 40
_NAME_LENGTHS = (2, 64)
_NAME_CHARACTER = re.compile(r"[A-Za-z0-9_+=,.@-]")
_TAG_KEY_LENGTHS = (1, 128)
_TAG_VALUE_LENGTHS = (1, 256)  # STS takes an empty value too, which would be no tenant
_TAG_PUNCTUATION = "_.:/=+-@"
_POLICY_CHARACTER = re.compile(r"[\t\n\r\u0020-\u00ff]")
_RESERVED = "aws:"

_NAME_REMEDY = "STS takes 2 to 64 of the characters A-Z a-z 0-9 _ + = , . @ -"
_TAG_REMEDY = "STS takes letters, digits, spaces and _ . : / = + - @"


def session_name(text: str) -> str:
    """Check a RoleSessionName. Raises ``CredentialsUnavailableError``."""
    return _check(f"decision id {_show(text)}", "RoleSessionName", _name_fault(text), _NAME_REMEDY, text)


def source_identity(subject: str) -> str:
    """Check the subject as a SourceIdentity. Raises ``CredentialsUnavailableError``."""
    remedy = f"{_NAME_REMEDY}; let claims.subject of the issuer name a claim that is made of them"
    fault = "is empty: credentials are for an agent that acts for a user" if not subject else _name_fault(subject)
    if fault is None and subject.lower().startswith(_RESERVED):
        fault = _reserved_fault(subject)
    return _check(f"subject {_show(subject)}", "SourceIdentity", fault, remedy, subject)


def tag_key(text: str) -> str:
    """Check the key of a session tag, which TransitiveTagKeys holds too. Raises ``CredentialsUnavailableError``."""
    return _check(f"tag {_show(text)}", "tag key", _tag_fault(text, _TAG_KEY_LENGTHS), _TAG_REMEDY, text)


def tenant_tag(tenant: str) -> str:
    """Check the tenant as the value of a session tag. Raises ``CredentialsUnavailableError``."""
    remedy = f"{_TAG_REMEDY}; give the tenant an id that is made of them"
    return _check(f"tenant {_show(tenant)}", "session tag", _tag_fault(tenant, _TAG_VALUE_LENGTHS), remedy, tenant)


def session_policy(text: str) -> str:
    """Check a session policy. Raises ``CredentialsUnavailableError``."""
    fault = _length_fault(text, (1, LONGEST_POLICY)) or next(
        (_character_fault(text, at) for at, c in enumerate(text) if not _POLICY_CHARACTER.match(c)), None
    )
    remedy = "shorten the resource's id, or the statements in credentials.templates"
    return _check("the policy", "session policy", fault, remedy, text)


def duration(seconds: float) -> int:
    """Give the DurationSeconds of a session that is to last at least so long, or as near to it as STS can come."""
    return min(max(math.ceil(seconds), SHORTEST_SECONDS), LONGEST_SECONDS)


def _check(what: str, field: str, fault: str | None, remedy: str, text: str) -> str:
    if fault is not None:
        msg = f"{what} cannot be an STS {field}: it {fault}; {remedy}"
        raise CredentialsUnavailableError(msg)
    return text


def _name_fault(text: str) -> str | None:
    return _length_fault(text, _NAME_LENGTHS) or next(
        (_character_fault(text, at) for at, c in enumerate(text) if not _NAME_CHARACTER.match(c)), None
    )


def _tag_fault(text: str, lengths: tuple[int, int]) -> str | None:
    if text.lower().startswith(_RESERVED):
        return _reserved_fault(text)
    if text != text.strip():
        return "begins or ends with a space"
    return _length_fault(text, lengths) or next(
        (_character_fault(text, at) for at, c in enumerate(text) if not _fits_tag(c)), None
    )


def _fits_tag(character: str) -> bool:
    # Of the separators (\p{Z}) only the space: the others look like it and are not.
    return character in _TAG_PUNCTUATION or character == " " or unicodedata.category(character)[0] in "LN"


def _length_fault(text: str, lengths: tuple[int, int]) -> str | None:
    fewest, most = lengths
    length = len(text.encode("utf-16-le", "surrogatepass")) // 2  # the longer of the two ways in which AWS may count
    if length < fewest:
        return f"has {length} characters, and at least {fewest} are needed"
    if length > most:
        return f"has {length} characters, and at most {most} fit"
    return None


def _character_fault(text: str, at: int) -> str:
    return f"has the character {text[at]!a} at position {at + 1}"


def _reserved_fault(text: str) -> str:
    return f"begins with {text[: len(_RESERVED)]}, which AWS keeps for itself"


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
