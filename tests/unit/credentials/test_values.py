"""What STS can carry, held against botocore's own model of STS."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.credentials import values
from sidecar.errors import CredentialsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_MODEL = botocore.session.Session().get_service_model("sts")
_CATEGORIES = {"L": "\ue000", "Z": "\ue001", "N": "\ue002"}
r"""Characters that stand for ``\p{L}``, ``\p{Z}`` and ``\p{N}``, which Python's regular expressions do not have."""

_SHAPES: dict[Callable[[str], str], str] = {
    values.session_name: "roleSessionNameType",
    values.source_identity: "sourceIdentityType",
    values.tag_key: "tagKeyType",
    values.tenant_tag: "tagValueType",
    values.session_policy: "sessionPolicyDocumentType",
}
_CHECKS = pytest.mark.parametrize("check", _SHAPES, ids=lambda check: check.__name__)

_NAMES = "abZ019_+=,.@-"
_TAGS = "abZ019_.:/=+-@é漢٣"
_OTHERS = "|*?${}#, \u00a0\u2028\u200b\n\0\\\"'ä漢\U00020000"
_TEXTS = st.text(_NAMES + _TAGS + _OTHERS, max_size=12) | st.text(_NAMES, max_size=70) | st.text(max_size=300)


def _limits(shape: str) -> dict[str, Any]:
    limits: dict[str, Any] = _MODEL.shape_for(shape).metadata
    return limits


def _fits(shape: str, text: str) -> bool:
    """Tell whether a shape of the model takes a text."""
    limits = _limits(shape)
    pattern = limits["pattern"]
    if r"\p{" in pattern:
        pattern = re.sub(r"\\p\{(\w)\}", lambda found: _CATEGORIES[found[1]], pattern)
        text = "".join(_CATEGORIES.get(unicodedata.category(c)[0], c) for c in text)
    return limits["min"] <= len(text) <= limits["max"] and re.fullmatch(pattern, text, re.ASCII) is not None


def _taken(check: Callable[[str], str], text: str) -> bool:
    try:
        assert check(text) == text
    except CredentialsUnavailableError:
        return False
    return True


@_CHECKS
@given(text=_TEXTS)
def test_what_is_taken_is_what_the_model_of_sts_takes(check: Callable[[str], str], text: str) -> None:
    assert not _taken(check, text) or _fits(_SHAPES[check], text)


@pytest.mark.parametrize("check", [values.session_name, values.session_policy], ids=lambda check: check.__name__)
@given(text=_TEXTS)
def test_what_the_model_of_sts_takes_is_taken(check: Callable[[str], str], text: str) -> None:
    assert _taken(check, text) or not _fits(_SHAPES[check], text)


@given(text=st.text(_NAMES, min_size=2, max_size=64).filter(lambda text: not text.lower().startswith("aws:")))
@example("alice@example.com")
@example("a-" * 32)
def test_a_subject_that_is_a_name_of_iam_is_taken(text: str) -> None:
    assert _taken(values.source_identity, text)


@given(text=st.text(_TAGS, min_size=1, max_size=256).filter(lambda text: not text.lower().startswith("aws:")))
@example("Tenant A/eu-west_1:2=b+c@d.e")
@example("ü" * 256)
def test_a_tenant_that_is_a_tag_of_iam_is_taken(text: str) -> None:
    assert _taken(values.tenant_tag, text)


_REFUSED: dict[str, tuple[Callable[[str], str], str, str]] = {
    "a subject with a bar": (
        values.source_identity,
        "auth0|alice",
        "subject 'auth0|alice' cannot be an STS SourceIdentity: it has the character '|' at position 6; STS takes 2 to 64 ",
    ),
    "a subject with a space": (values.source_identity, "al ice", "it has the character ' ' at position 3; "),
    "a subject beyond ASCII": (values.source_identity, "zoë", r"it has the character '\xeb' at position 3; "),
    "a subject with a digit beyond ASCII": (values.source_identity, "al٣", r"it has the character '\u0663' at"),
    "a subject with a line break at its end": (values.source_identity, "alice\n", r"it has the character '\n' at"),
    "a subject of one letter": (values.source_identity, "a", "it has 1 characters, and at least 2 are needed"),
    "a subject of 65 letters": (
        values.source_identity,
        "a" * 65,
        f"subject '{'a' * 40}…' cannot be an STS SourceIdentity: it has 65 characters, and at most 64 fit",
    ),
    "no subject": (values.source_identity, "", "it is empty: credentials are for an agent that acts for a user"),
    "a tenant with a star": (
        values.tenant_tag,
        "tenant*",
        "tenant 'tenant*' cannot be an STS session tag: it has the character '*' at position 7; STS takes letters, ",
    ),
    "a tenant with a variable": (values.tenant_tag, "${aws:username}", "it has the character '$' at position 1"),
    "a tenant with a question mark": (values.tenant_tag, "tenant?", "it has the character '?' at position 7"),
    "a tenant with a hash": (values.tenant_tag, "TENANT#a", "it has the character '#' at position 7"),
    "a tenant with a space that is none": (values.tenant_tag, "a\u00a0b", r"it has the character '\xa0' at position 2"),
    "a tenant with a space at its end": (values.tenant_tag, "acme ", "it begins or ends with a space"),
    "a tenant with a space at its begin": (values.tenant_tag, " acme", "it begins or ends with a space"),
    "a tenant of 257 letters": (values.tenant_tag, "a" * 257, "it has 257 characters, and at most 256 fit"),
    "a tenant of 129 letters that count twice": (
        values.tenant_tag,
        "\U00020000" * 129,
        "it has 258 characters, and at most 256",
    ),
    "no tenant": (values.tenant_tag, "", "it has 0 characters, and at least 1 are needed"),
    "a tenant of AWS": (values.tenant_tag, "AWS:acme", "it begins with AWS:, which AWS keeps for itself"),
    "a tag of AWS": (values.tag_key, "aws:TenantID", "it begins with aws:, which AWS keeps for itself"),
    "a tag of 129 letters": (values.tag_key, "a" * 129, "it has 129 characters, and at most 128 fit"),
    "a session name with a colon": (values.session_name, "a:b", "it has the character ':' at position 2"),
    "a policy of 2049 letters": (
        values.session_policy,
        "a" * 2049,
        "the policy cannot be an STS session policy: it has 2049 characters, and at most 2048 fit; shorten the resource's id",
    ),
    "a policy beyond Latin-1": (values.session_policy, '{"€"}', r"it has the character '\u20ac' at position 3"),
    "no policy": (values.session_policy, "", "it has 0 characters, and at least 1 are needed"),
}


@pytest.mark.parametrize(("check", "text", "told"), _REFUSED.values(), ids=_REFUSED)
def test_what_cannot_be_carried_is_named_with_its_fault(check: Callable[[str], str], text: str, told: str) -> None:
    with pytest.raises(CredentialsUnavailableError) as refused:
        check(text)

    assert told in str(refused.value)


def test_a_session_lasts_as_long_as_is_wanted_within_what_sts_gives() -> None:
    limits = _limits("roleDurationSecondsType")

    assert [values.duration(seconds) for seconds in (60, 899.1, 900, 3599.001, 43_200, 50_000)] == [
        limits["min"],
        limits["min"],
        900,
        3600,
        43_200,
        limits["max"],
    ]
