"""The table of what credentials are good for: what it makes, what it refuses to make, and which tables it refuses to be."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.credentials.templates import BUILT_IN, load_templates
from sidecar.errors import CredentialsUnavailableError, InvalidRequestError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

PLACE = {"tenant_tag": "TenantID", "region": "eu-west-1", "account": "123456789012", "partition": "aws-eusc"}
UNTIL = datetime(2026, 11, 24, 12, 0, 0, 999_999, tzinfo=UTC)
TEMPLATES = load_templates(None)
KINDS = TEMPLATES.kinds


def _text(kind: str, resource_id: str | None = None, action: str = "read", tenant_id: str = "acme") -> str:
    resource_id = KINDS[kind].example if resource_id is None else resource_id
    return TEMPLATES.session_policy(kind, resource_id, action, tenant_id=tenant_id, until=UNTIL, **PLACE)


def _statements(kind: str, resource_id: str | None = None, action: str = "read", tenant_id: str = "acme") -> list[Any]:
    statements: list[Any] = json.loads(_text(kind, resource_id, action, tenant_id))["Statement"]
    return statements


# ── session policies ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("action", ["read", "write"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_statement_names_the_tenant_and_the_resource_and_ends(kind: str, action: str) -> None:
    for statement in _statements(kind, action=action):
        text = json.dumps(statement)
        assert "acme" in text
        assert KINDS[kind].example.partition("/")[0] in json.dumps(statement["Resource"])
        assert statement["Condition"]["DateLessThan"] == {"aws:CurrentTime": ["2026-11-24T12:00:00Z"]}
        assert "${" not in text
        assert "<" not in text


def test_a_memory_is_reached_if_it_is_the_one_and_tagged_with_the_tenant() -> None:
    (statement,) = _statements("MEMORY")

    assert statement["Resource"] == ["arn:aws-eusc:bedrock-agentcore:eu-west-1:123456789012:memory/acme-0123456789"]
    assert statement["Condition"]["StringEquals"] == {"aws:ResourceTag/TenantID": ["acme"]}


def test_a_prefix_ends_with_the_tenants_folder() -> None:
    objects, listing = _statements("S3_PREFIX", "acme-data/documents/", tenant_id="a.b")

    assert objects["Resource"] == ["arn:aws-eusc:s3:::acme-data/documents/a.b/*"]
    assert listing["Resource"] == ["arn:aws-eusc:s3:::acme-data"]
    assert listing["Condition"]["StringLike"] == {"s3:prefix": ["documents/a.b/*"]}


def test_the_tenants_folder_may_be_at_the_root_of_a_bucket() -> None:
    objects, listing = _statements("S3_PREFIX", "acme-data/")

    assert objects["Resource"] == ["arn:aws-eusc:s3:::acme-data/acme/*"]
    assert listing["Condition"]["StringLike"] == {"s3:prefix": ["acme/*"]}


def test_the_end_is_told_in_utc_whatever_it_was_given_in() -> None:
    until = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    text = TEMPLATES.session_policy("DYNAMODB_TABLE", "orders", "read", tenant_id="acme", until=until, **PLACE)

    assert "2026-11-24T10:00:00Z" in text


@pytest.mark.parametrize("tenant_id", ["é", "テナント", "acme ltd"])
def test_a_policy_is_ascii_and_means_the_tenant_as_it_is(tenant_id: str) -> None:
    assert _text("MEMORY", tenant_id=tenant_id).isascii()
    assert _statements("MEMORY", tenant_id=tenant_id)[0]["Condition"]["StringEquals"] == {
        "aws:ResourceTag/TenantID": [tenant_id]
    }


def test_a_policy_that_sts_would_not_take_is_not_made() -> None:
    with pytest.raises(CredentialsUnavailableError, match=r"テテ.* session policy of 2059 characters.* 2048") as caught:
        _text("MEMORY", tenant_id="テ" * 256)
    assert "credentials.templates" in str(caught.value)


def test_a_type_that_is_not_in_the_table_is_named_with_those_that_are() -> None:
    with pytest.raises(
        InvalidRequestError, match="no credentials for 'TOOL'; there are some for MEMORY, KNOW"
    ) as caught:
        TEMPLATES.session_policy("TOOL", "x", "read", tenant_id="acme", until=UNTIL, **PLACE)
    assert caught.value.field == "resource.type"


def test_an_action_that_is_not_in_the_table_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidRequestError, match=r"no credentials for 'invoke' of MEMORY.* read, write") as caught:
        _text("MEMORY", action="invoke")
    assert caught.value.field == "action.name"


_BAD_IDS: dict[str, list[str]] = {
    "MEMORY": [
        "acme",
        "memory/acme-0123456789",
        "arn:aws:bedrock-agentcore:r:1:memory/acme-0123456789",
        "1a-0123456789",
    ],
    "KNOWLEDGE_BASE": ["KB0123456", "KB0123456/", "KB-0123456"],
    "S3_PREFIX": [
        "acme-data",
        "acme-data/documents",
        "acme-data//",
        "/documents/",
        "acme-data/../",
        "acme-data/./",
        "acme-data/documents/../",
        "Acme/",
        "acme-data/a b/",
        "acme-data/a:b/",
        "acme-data/\u00e9/",
    ],
    "DYNAMODB_TABLE": ["or", "orders/index/by-status", "arn:aws:dynamodb:r:1:table/orders", "orders:x"],
}
_FOR_NONE = [
    "",
    "*",
    "?",
    "a*c",
    "${aws:userid}",
    "$",
    "{",
    "}",
    '"',
    "'",
    "\\",
    "<tenant>",
    "<",
    "a\n",
    "a\x00",
    "a\x7f",
]
_OF_EACH = [(kind, bad) for kind, ids in _BAD_IDS.items() for bad in [*ids, *_FOR_NONE]]


@pytest.mark.parametrize(("kind", "resource_id"), _OF_EACH)
def test_an_id_that_could_mean_more_than_one_resource_is_refused_by_name(kind: str, resource_id: str) -> None:
    with pytest.raises(CredentialsUnavailableError, match=re.escape(f"resource {resource_id!r}")):
        _text(kind, resource_id)


@pytest.mark.parametrize("bad", ["*", "?", "$", "{", '"', "'", "\\", "<", ">", "\n", "\x00", "\x7f"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_is_one_but_for_a_single_character_is_refused(kind: str, bad: str) -> None:
    of_it = KINDS[kind].example

    for resource_id in (of_it + bad, bad + of_it, of_it[:3] + bad + of_it[4:]):
        with pytest.raises(CredentialsUnavailableError, match="resource"):
            _text(kind, resource_id)


_BAD_TENANTS = [
    *_FOR_NONE,
    ".",
    "..",
    " ",
    " a",
    "a ",
    "a#b",
    "a,b",
    "a|b",
    "a;b",
    "a%2Fb",
    "e\u0301",
    "a\u200bb",
    "a" * 257,
]


@pytest.mark.parametrize("tenant_id", _BAD_TENANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tenant_that_could_be_taken_for_another_is_refused_by_name(kind: str, tenant_id: str) -> None:
    with pytest.raises(CredentialsUnavailableError, match=re.escape(f"tenant {tenant_id!r}")):
        _text(kind, tenant_id=tenant_id)


@pytest.mark.parametrize("tenant_id", ["a/b", "a/../b", "../b", "a/", "/a", "a:b", "a b", "é"])
def test_a_tenant_that_is_more_than_a_folders_name_has_no_folder(tenant_id: str) -> None:
    with pytest.raises(CredentialsUnavailableError, match=re.escape(f"tenant {tenant_id!r}")):
        _text("S3_PREFIX", tenant_id=tenant_id)


# ── nobody else's ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _iam_matches(pattern: str, text: str) -> bool:
    """Match as IAM does: ``*`` stands for any characters, none included, and ``?`` for one, whatever they are."""
    regex = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(regex, text, re.DOTALL) is not None


_LETTERS = "abAB.-_=@+:/ #é*?$~"
_rest = st.text(_LETTERS, max_size=6)
_folders = st.sampled_from(["", "documents/", "a/", "a/b/", "ab/"])


def _pairs(kind: str) -> st.SearchStrategy[tuple[str, str]]:
    """Choose two tenants that the table accepts, one of which often begins the other."""
    letters = [c for c in _LETTERS if re.fullmatch(KINDS[kind].tenant, c)]
    tenants = st.text(st.sampled_from(letters), min_size=1, max_size=4)
    any_two = st.tuples(tenants, tenants)
    begun = any_two.map(lambda two: (two[0], two[0] + two[1]))
    pairs = any_two | begun | begun.map(lambda two: (two[1], two[0]))
    return pairs.filter(lambda two: two[0] != two[1] and not any(map(KINDS[kind].tenant_fault, two)))


@given(pair=_pairs("S3_PREFIX"), folder=_folders, rest=_rest)
@example(pair=("a", "ab"), folder="", rest="x")
@example(pair=("ab", "a"), folder="", rest="b/x")
@example(pair=("a", "b"), folder="", rest="a/x")
def test_no_object_of_another_tenant_is_in_a_tenants_prefix(pair: tuple[str, str], folder: str, rest: str) -> None:
    one, other = pair
    others_key = f"{folder}{other}/{rest}"

    for action in KINDS["S3_PREFIX"].actions:
        for statement in _statements("S3_PREFIX", f"acme-data/{folder}", action, tenant_id=one):
            if statement["Action"] == ["s3:ListBucket"]:
                patterns, asked = statement["Condition"]["StringLike"]["s3:prefix"], others_key
            else:
                patterns, asked = statement["Resource"], f"arn:aws-eusc:s3:::acme-data/{others_key}"
            assert not any(_iam_matches(pattern, asked) for pattern in patterns)


@given(pair=_pairs("DYNAMODB_TABLE"), rest=st.just("") | _rest.map("#{}".format))
@example(pair=("a", "ab"), rest="")
@example(pair=("a", "b"), rest="#a#x")
def test_no_item_of_another_tenant_has_a_key_of_a_tenant(pair: tuple[str, str], rest: str) -> None:
    one, other = pair

    for action in KINDS["DYNAMODB_TABLE"].actions:
        (statement,) = _statements("DYNAMODB_TABLE", action=action, tenant_id=one)
        patterns = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
        assert any(_iam_matches(pattern, one + rest) for pattern in patterns)
        assert not any(_iam_matches(pattern, other + rest) for pattern in patterns)


# ── the role's policy ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_role_reaches_every_tagged_resource_and_those_that_are_named() -> None:
    policy = TEMPLATES.permission_policy(
        {"MEMORY": [], "KNOWLEDGE_BASE": ["KB01234567", "KB76543210"], "S3_PREFIX": ["one/", "two/x/"]}, **PLACE
    )
    resources = {statement["Sid"]: statement["Resource"] for statement in policy["Statement"]}

    assert resources == {
        "MemoryRead1": ["arn:aws-eusc:bedrock-agentcore:eu-west-1:123456789012:memory/*"],
        "MemoryWrite1": ["arn:aws-eusc:bedrock-agentcore:eu-west-1:123456789012:memory/*"],
        "KnowledgeBaseRead1": [
            "arn:aws-eusc:bedrock:eu-west-1:123456789012:knowledge-base/KB01234567",
            "arn:aws-eusc:bedrock:eu-west-1:123456789012:knowledge-base/KB76543210",
        ],
        "KnowledgeBaseWrite1": [
            "arn:aws-eusc:bedrock:eu-west-1:123456789012:knowledge-base/KB01234567",
            "arn:aws-eusc:bedrock:eu-west-1:123456789012:knowledge-base/KB76543210",
        ],
        "S3PrefixRead1": [
            "arn:aws-eusc:s3:::one/${aws:PrincipalTag/TenantID}/*",
            "arn:aws-eusc:s3:::two/x/${aws:PrincipalTag/TenantID}/*",
        ],
        "S3PrefixRead2": ["arn:aws-eusc:s3:::one"],
        "S3PrefixRead3": ["arn:aws-eusc:s3:::two"],
        "S3PrefixWrite1": [
            "arn:aws-eusc:s3:::one/${aws:PrincipalTag/TenantID}/*",
            "arn:aws-eusc:s3:::two/x/${aws:PrincipalTag/TenantID}/*",
        ],
    }


@pytest.mark.parametrize("kind", ["S3_PREFIX", "DYNAMODB_TABLE"])
def test_where_names_tell_tenants_apart_the_resources_must_be_named(kind: str) -> None:
    with pytest.raises(SettingsError, match=f"{kind}: name the resources, such as {kind}={KINDS[kind].example}"):
        TEMPLATES.permission_policy({kind: []}, **PLACE)


def test_a_prefix_inside_another_is_refused_as_a_tenant_could_have_its_name() -> None:
    with pytest.raises(
        SettingsError, match="'one/x/' is inside 'one/', where a tenant called 'x' would reach all of it"
    ):
        TEMPLATES.permission_policy({"S3_PREFIX": ["one/x/", "one/"]}, **PLACE)


def test_a_table_whose_name_begins_another_is_not_inside_it() -> None:
    policy = TEMPLATES.permission_policy({"DYNAMODB_TABLE": ["orders", "orders-2"]}, **PLACE)

    assert len(policy["Statement"][0]["Resource"]) == 2


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"TOOL": []}, "TOOL: no statements for this type; there are some for MEMORY"),
        ({"DYNAMODB_TABLE": ["*"]}, "DYNAMODB_TABLE: '*' cannot be put into a policy: it holds '*'"),
        ({"S3_PREFIX": ["one"]}, "S3_PREFIX: 'one' cannot be put into a policy: it is not of the form of"),
        ({"DYNAMODB_TABLE": [f"table-{n}" for n in range(200)]}, "where IAM takes 10240; name fewer resources"),
    ],
)
def test_the_role_reaches_nothing_that_cannot_be(resources: dict[str, list[str]], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        TEMPLATES.permission_policy(resources, **PLACE)


# ── one's own table ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(folder: Path, text: str) -> Path:
    (folder / "templates.yaml").write_text(text)
    return folder / "templates.yaml"


_SECRET = """
SECRET:
  id: "[a-z]+"
  example: api
  tenant: "[a-z]"
  actions:
    read:
      - Action: ["secretsmanager:GetSecretValue"]
        Resource: ["arn:<partition>:secretsmanager:<region>:<account>:secret:<tenant>/<id>"]
"""


def test_a_table_of_ones_own_is_used_in_place_of_the_built_in_one(tmp_path: Path) -> None:
    templates = load_templates(_table(tmp_path, _SECRET))
    text = templates.session_policy("SECRET", "api", "read", tenant_id="acme", until=UNTIL, **PLACE)

    assert list(templates.kinds) == ["SECRET"]
    assert json.loads(text)["Statement"][0]["Resource"] == [
        "arn:aws-eusc:secretsmanager:eu-west-1:123456789012:secret:acme/api"
    ]


def test_the_built_in_table_with_more_is_a_table(tmp_path: Path) -> None:
    assert [*load_templates(_table(tmp_path, BUILT_IN.read_text() + _SECRET)).kinds] == [*KINDS, "SECRET"]


_DECRYPT = """
      - Action: ["kms:Decrypt"]
        Resource: ["arn:<partition>:kms:<region>:<account>:key/*"]
        Condition: {StringEquals: {"kms:EncryptionContext:SecretARN": ["<tenant>/<id>"]}}
"""


def test_a_condition_may_bind_a_statement_to_the_resource_too(tmp_path: Path) -> None:
    (kind,) = load_templates(_table(tmp_path, _SECRET.rstrip() + _DECRYPT)).kinds.values()

    assert [statement.action for statement in kind.statements()] == [
        ("secretsmanager:GetSecretValue",),
        ("kms:Decrypt",),
    ]


_REFUSED: dict[str, tuple[str, str, str]] = {
    "what is not YAML": (_SECRET, "{", "not YAML"),
    "nothing": (_SECRET, "", "Expected `object`, got `null`"),
    "no types": (_SECRET, "{}", "length >= 1"),
    "a list": (_SECRET, "[]", "Expected `object`, got `array`"),
    "a misspelt field": ("Resource:", "Resources:", "unknown field `Resources`"),
    "an effect": ('- Action: ["secre', '- Effect: Deny\n        Action: ["secre', "unknown field `Effect`"),
    "an action without statements": (_SECRET, _SECRET.partition("read:")[0] + "read: []\n", "length >= 1"),
    "a text for a list": ('["secretsmanager:GetSecretValue"]', "secretsmanager:GetSecretValue", "Expected `array`"),
    "an id that is no expression": ('id: "[a-z]+"', 'id: "[a-z"', "not a regular expression"),
    "an example that is no id": ("example: api", "example: API", "'API' is no id"),
    "an id that matches everything": ("example: api", "example: '*'", "'*' is no id: it holds '*'"),
    "tenants of a pattern": ('tenant: "[a-z]"', 'tenant: "[a-z]+"', "is not a class of characters"),
    "an unknown placeholder": ("<account>", "<acount>", "there is no placeholder <acount>"),
    "a resource of everyone": ("<tenant>/<id>", "<id>", "nothing binds it to <tenant>"),
    "one resource of everyone": ('<id>"]', '<id>", "arn:aws:s3:::<id>"]', "nothing binds it to <tenant>"),
    "any resource of the tenant": ("<tenant>/<id>", "<tenant>/*", "nothing binds it to <id> or a part of it"),
    "a tenant that others begin with": ("<tenant>/<id>", "<tenant>*<id>", "it matches longer ids too"),
    "a tenant that goes on in an id": ("<tenant>/<id>", "<tenant><id>", "it matches longer ids too"),
    "a letter that tenants have too": ("<tenant>/<id>", "<tenant>x<id>", "it matches longer ids too"),
    "a tenant anywhere": ("<tenant>/<id>", "*/<tenant>/<id>", "a wildcard before <tenant>"),
}


@pytest.mark.parametrize(("old", "new", "said"), _REFUSED.values(), ids=_REFUSED)
def test_a_table_is_refused_with(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in _SECRET
    file = _table(tmp_path, _SECRET.replace(old, new))

    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        load_templates(file)
    assert str(caught.value).startswith(f"credentials.templates: {file}: ")


_NOT_BOUND: dict[str, dict[str, dict[str, list[str]]]] = {
    "nothing": {},
    "who asks": {"StringEquals": {"aws:PrincipalTag/<tag>": ["<tenant>"]}},
    "one of several values": {"StringEquals": {"aws:ResourceTag/<tag>": ["<tenant>", "shared"]}},
    "what it is not": {"StringNotEquals": {"aws:ResourceTag/<tag>": ["<tenant>"]}},
    "what may be missing": {"StringEqualsIfExists": {"aws:ResourceTag/<tag>": ["<tenant>"]}},
    "letters of any case": {"StringEqualsIgnoreCase": {"aws:ResourceTag/<tag>": ["<tenant>"]}},
    "one key of a batch": {"ForAnyValue:StringEquals": {"dynamodb:LeadingKeys": ["<tenant>"]}},
    "all keys of none": {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["<tenant>"]}},
    "all keys where there must be none": {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["<tenant>"]},
        "Null": {"dynamodb:LeadingKeys": ["true"]},
    },
}


@pytest.mark.parametrize("condition", _NOT_BOUND.values(), ids=_NOT_BOUND)
def test_a_statement_is_not_bound_to_the_tenant_by(tmp_path: Path, condition: dict[str, Any]) -> None:
    tree = yaml.safe_load(_SECRET)
    tree["SECRET"]["actions"]["read"][0] |= {"Resource": ["arn:aws:x:::<id>"], "Condition": condition}

    with pytest.raises(SettingsError, match="SECRET: read, statement 1: nothing binds it to <tenant>"):
        load_templates(_table(tmp_path, yaml.safe_dump(tree)))


def test_a_statement_has_no_end_of_its_own(tmp_path: Path) -> None:
    tree = yaml.safe_load(_SECRET)
    tree["SECRET"]["actions"]["read"][0]["Condition"] = {"DateLessThan": {"aws:CurrentTime": ["2099-01-01T00:00:00Z"]}}

    with pytest.raises(SettingsError, match="DateLessThan: the end is that of the decision"):
        load_templates(_table(tmp_path, yaml.safe_dump(tree)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"credentials.templates: {tmp_path}/none.yaml: cannot be read")):
        load_templates(str(tmp_path / "none.yaml"))
