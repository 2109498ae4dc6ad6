"""The commands for the policy author, against a real DynamoDB: what they print, what they write, and how they end."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.cli.registry import registry
from sidecar.registry.edits import Change
from sidecar.registry.table import RegistryTable
from tests.support.dynamodb import ENVIRONMENT
from tests.support.exports import write_export
from tests.support.pages import like_a_clone, run
from tests.support.processes import REPOSITORY
from tests.support.registries import sample_items

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.support.dynamodb import DynamoDb

SAMPLE = REPOSITORY / "examples" / "quickstart" / "registry.yaml"
COMMANDS = [
    "init",
    "show",
    "who",
    "which",
    "put",
    "import",
    "remove",
    "assign",
    "suspend",
    "resume",
    "export",
    "lint",
    "diff",
]


def _run(*words: str | Path, stdin: str | None = None, **environment: str | None) -> Result:
    words = ("registry", *words)
    return CliRunner().invoke(
        main, [*map(str, words)], input=stdin, env={**ENVIRONMENT, "COLUMNS": "200"} | environment
    )


class _Registry:
    """A table, and the commands that work on it."""

    def __init__(self, dynamodb: DynamoDb, name: str) -> None:
        self.table = RegistryTable(dynamodb.client, name)
        self.where = ["--table", name, "--endpoint-url", dynamodb.url]

    def run(self, *words: str | Path, stdin: str | None = None) -> Result:
        return _run(*words, *self.where, stdin=stdin)

    def put(self, *items: dict[str, Any]) -> None:
        self.table.write([Change(item) for item in items])

    def get(self, tenant: str, sk: str) -> dict[str, Any] | None:
        return self.table.get(f"TENANT#{tenant}", sk)

    def all(self) -> list[dict[str, Any]]:
        return sorted(self.table.scan(), key=lambda item: (item["pk"], item["sk"]))


@pytest.fixture
def empty(dynamodb: DynamoDb, table_name: str) -> _Registry:
    """A table without items."""
    made = _Registry(dynamodb, table_name)
    made.table.init()
    return made


@pytest.fixture
def sample(empty: _Registry) -> _Registry:
    """A table with the registry of the quickstart."""
    assert empty.run("put", SAMPLE).exit_code == 0
    return empty


def _tenant(name: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": f"TENANT#{name}", "sk": "TENANT", **attributes}


def _user(name: str, tenant: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": f"TENANT#{tenant}", "sk": f"USER#{name}", **attributes}


# ── help, and what goes wrong outside ───────────────────────────────────────────────────────────────────────────────────


def test_the_commands_are_these() -> None:
    assert list(registry.commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of(command: str, flag: str) -> None:
    ended = _run(command, flag)

    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"Usage: main registry {command}")


def test_help_lists_every_command_in_full() -> None:
    shown = _run("--help").stdout

    assert [command for command in COMMANDS if not re.search(rf"^  {command} .*\w\.$", shown, re.MULTILINE)] == []


_ON_THE_TABLE = {
    "init": ["init"],
    "show": ["show", "acme"],
    "who": ["who", "alice"],
    "which": ["which", "t"],
    "put": ["put", str(SAMPLE)],
    "import": ["import"],
    "remove": ["remove", "tenant", "acme", "--yes"],
    "assign": ["assign", "alice", "--tenant", "acme"],
    "suspend": ["suspend", "tenant", "acme"],
    "resume": ["resume", "tenant", "acme"],
}


@pytest.mark.parametrize("words", _ON_THE_TABLE.values(), ids=_ON_THE_TABLE)
def test_without_dynamodb_a_command_ends_with_2_and_one_message(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(_tenant("acme")))
    folder = [tmp_path] if words == ["import"] else []
    ended = _run(*words, *folder, "--endpoint-url", "http://127.0.0.1:1")

    assert ended.exit_code == 2
    assert ended.stderr == (
        'tenantgate: table tenantgate-registry: Could not connect to the endpoint URL: "http://127.0.0.1:1/"\n'
    )


@pytest.mark.parametrize("words", [w for n, w in _ON_THE_TABLE.items() if n not in {"init", "import"}], ids=str)
def test_without_the_table_a_command_ends_with_2_and_the_remedy(dynamodb: DynamoDb, words: list[str]) -> None:
    ended = _run(*words, "--table", "not-there", "--endpoint-url", dynamodb.url)

    assert ended.exit_code == 2
    assert ended.stderr == "tenantgate: table not-there: does not exist here; `tenantgate registry init` makes it\n"


def test_without_a_region_a_command_ends_with_2_and_the_remedy() -> None:
    ended = _run("show", "acme", AWS_DEFAULT_REGION=None)

    assert ended.exit_code == 2
    assert "in which region? --region or AWS_DEFAULT_REGION says so" in ended.stderr


def test_without_credentials_a_command_ends_with_2(dynamodb: DynamoDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    none = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_EC2_METADATA_DISABLED": "true"}
    ended = _run("show", "acme", "--endpoint-url", dynamodb.url, **none)

    assert ended.exit_code == 2
    assert "Unable to locate credentials" in ended.stderr


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    ended = _run("show", "acme", "--endpoint-url", "nonsense")

    assert ended.exit_code == 2
    assert "Invalid endpoint: nonsense" in ended.stderr


# ── init ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_init_makes_the_table_and_can_be_run_again(dynamodb: DynamoDb, table_name: str) -> None:
    made = _Registry(dynamodb, table_name)
    first = made.run("init")
    again = made.run("init", "--json")

    assert first.exit_code == again.exit_code == 0
    assert re.search(rf"^{table_name} +created", first.stdout)
    assert json.loads(again.stdout) == {
        "name": table_name,
        "table": "exists",
        "inverted index": "on",
        "stream": "on",
        "deletion protection": "on",
        "point-in-time recovery": "not available here",
    }


# ── put ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_put_tells_what_became_of_each_item(empty: _Registry) -> None:
    ended = empty.run("put", SAMPLE)

    assert ended.exit_code == 0
    assert re.search(r"created +TENANT#acme / USER#alice +1", ended.stdout)
    assert "17 created, 0 changed, 0 unchanged." in ended.stdout


def test_put_prints_json_alone_when_asked(empty: _Registry) -> None:
    ended = empty.run("put", "--json", stdin=json.dumps(_tenant("T")))

    assert json.loads(ended.stdout) == [
        {"pk": "TENANT#T", "sk": "TENANT", "outcome": "created", "version": 1, "attributes": [], "note": ""}
    ]


_SOURCES: dict[str, str] = {
    "one item in JSON": '{"pk": "TENANT#T", "sk": "TENANT"}',
    "a list in JSON": '[{"pk": "TENANT#T", "sk": "TENANT"}]',
    "one item in YAML": "pk: TENANT#T\nsk: TENANT\n",
    "a list in YAML": "- {pk: TENANT#T, sk: TENANT}\n",
    "documents in YAML": "---\npk: TENANT#T\nsk: TENANT\n---\n",
    "a map in YAML that begins like JSON": "{pk: TENANT#T, sk: TENANT}",
}


@pytest.mark.parametrize("words", [[], ["-"]], ids=["no file", "a dash"])
@pytest.mark.parametrize("text", _SOURCES.values(), ids=_SOURCES)
def test_put_reads_standard_input(empty: _Registry, text: str, words: list[str]) -> None:
    assert empty.run("put", *words, stdin=text).exit_code == 0

    assert empty.all() == [_tenant("T", version=1)]


def test_put_gives_a_bare_policy_document_its_key(empty: _Registry) -> None:
    policy = {"policyId": "P", "tenantId": "T", "rules": []}
    assert empty.run("put", stdin=json.dumps(policy)).exit_code == 0

    assert empty.all() == [{"pk": "TENANT#T", "sk": "POLICY#P", **policy, "version": 1}]


def test_put_writes_nothing_unless_everything_is_well_formed(empty: _Registry, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("- {pk: TENANT#T, sk: TENANT}\n- {pk: TENANT#T, sk: USER#alice}\n")
    (tmp_path / "bad.yaml").write_text(
        "- {pk: TENANT#T, sk: AGENT#a, status: AWAY}\n- {pk: INVOICE#1, sk: LINE#1}\n- 5\n- {pk: TENANT#T, sk: TENANT}\n"
    )
    ended = empty.run("put", tmp_path / "good.yaml", tmp_path / "bad.yaml")

    assert ended.exit_code == 2
    assert ended.stderr.splitlines() == [
        "tenantgate: 4 malformed item(s):",
        f"  {tmp_path}/bad.yaml: item 1: TENANT#T / AGENT#a: status: Invalid enum value 'AWAY'",
        f"  {tmp_path}/bad.yaml: item 2: INVOICE#1 / LINE#1: is of an unknown kind; see the table of items in docs/registry.md",
        f"  {tmp_path}/bad.yaml: item 3: an item is a map of attributes, not int",
        f"  {tmp_path}/bad.yaml: item 4: TENANT#T / TENANT: stands here twice, also at {tmp_path}/good.yaml: item 1",
    ]
    assert empty.all() == []


def test_put_warns_of_attributes_that_will_be_ignored(empty: _Registry) -> None:
    ended = empty.run("put", stdin=json.dumps(_tenant("T", colour="blue")))

    assert ended.exit_code == 0
    assert "the attribute 'colour' is unknown and will be ignored" in ended.stderr


def test_put_of_nothing_ends_with_1(empty: _Registry) -> None:
    assert empty.run("put", stdin="").exit_code == 1


def test_put_of_a_file_that_is_not_there_ends_with_2(empty: _Registry) -> None:
    assert empty.run("put", "nowhere.yaml").exit_code == 2


def test_a_dry_run_of_put_writes_nothing_and_tells_conflicts_too(sample: _Registry) -> None:
    before = sample.all()
    shown = sample.run(
        "put", "--dry-run", stdin=json.dumps([_tenant("new"), _tenant("acme", version=1, status="SUSPENDED")])
    )
    refused = sample.run("put", "--dry-run", stdin=json.dumps(_tenant("acme", status="SUSPENDED")))

    assert shown.exit_code == 0
    assert re.search(r"created +TENANT#new / TENANT +1", shown.stdout)
    assert re.search(r"changed +TENANT#acme / TENANT +2 +membership, status", shown.stdout)
    assert "1 created, 1 changed, 0 unchanged. A dry run: nothing was written." in shown.stdout
    assert refused.exit_code == 2
    assert sample.all() == before


def test_put_of_what_is_stored_already_writes_nothing(sample: _Registry) -> None:
    before = sample.all()
    ended = sample.run("put", SAMPLE)

    assert ended.exit_code == 0
    assert "0 created, 0 changed, 17 unchanged." in ended.stdout
    assert sample.all() == before


def test_show_edit_put_is_a_round_trip(sample: _Registry) -> None:
    shown = json.loads(sample.run("show", "acme", "--json").stdout)
    assert sample.run("put", stdin=json.dumps(shown)).exit_code == 0
    assert json.loads(sample.run("show", "acme", "--json").stdout) == shown
    (alice,) = (item for item in shown if item["sk"] == "USER#alice")
    alice["roles"].append("lead")
    ended = sample.run("put", stdin=json.dumps(shown, indent=1))

    assert ended.exit_code == 0
    assert "0 created, 1 changed, 6 unchanged." in ended.stdout
    after = json.loads(sample.run("show", "acme", "--json").stdout)
    assert [item for item in after if item not in shown] == [alice | {"version": 2}]


def test_of_two_authors_who_put_the_same_item_the_second_is_refused_and_nothing_is_lost(sample: _Registry) -> None:
    one = json.loads(sample.run("show", "acme", "--json").stdout)
    two = json.loads(sample.run("show", "acme", "--json").stdout)
    for item in one:
        if item["sk"] == "USER#bob":
            item["roles"] = ["lead"]
    for item in two:
        if item["sk"] in {"USER#bob", "USER#alice"}:
            item["status"] = "SUSPENDED"
    first = sample.run("put", stdin=json.dumps(one))
    second = sample.run("put", stdin=json.dumps(two))

    assert first.exit_code == 0
    assert second.exit_code == 2
    assert second.stderr.splitlines() == [
        "tenantgate: nothing was written, because 1 item(s) are in conflict:",
        "  TENANT#acme / USER#bob changed since version 1 was read, to version 2: show it again, and edit that",
    ]
    assert sample.get("acme", "USER#bob") == _user("bob", "acme", roles=["lead"], status="ACTIVE", version=2)
    alice = sample.get("acme", "USER#alice")
    assert alice is not None
    assert alice["version"] == 1


# ── import ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A registry that is kept in files."""
    folder = tmp_path / "registry"
    (folder / "acme").mkdir(parents=True)
    (folder / "acme" / "tenant.yaml").write_text("pk: TENANT#acme\nsk: TENANT\nmembership: REQUIRED\n")
    (folder / "acme" / "users.json").write_text(json.dumps([_user("alice", "acme"), _user("bob", "acme", roles=["a"])]))
    (folder / "zeta.yml").write_text("- {pk: TENANT#zeta, sk: TENANT}\n")
    (folder / "README.md").write_text("Not an item.\n")
    return folder


def test_import_writes_the_items_of_all_files_in_order(empty: _Registry, files: Path) -> None:
    ended = empty.run("import", files, "--json")

    assert ended.exit_code == 0
    assert [(found["pk"], found["sk"]) for found in json.loads(ended.stdout)] == [
        ("TENANT#acme", "TENANT"),
        ("TENANT#acme", "USER#alice"),
        ("TENANT#acme", "USER#bob"),
        ("TENANT#zeta", "TENANT"),
    ]
    assert len(empty.all()) == 4


def test_import_again_writes_only_what_is_new_or_changed(empty: _Registry, files: Path) -> None:
    empty.run("import", files)
    (files / "acme" / "users.json").write_text(json.dumps([_user("alice", "acme"), _user("bob", "acme", roles=["b"])]))
    (files / "new.yaml").write_text("{pk: TENANT#new, sk: TENANT}")
    dry = empty.run("import", files, "--dry-run")
    before = {(item["pk"], item["sk"]): item["version"] for item in empty.all()}
    ended = empty.run("import", files)

    assert "1 created, 1 changed, 3 unchanged. A dry run: nothing was written." in dry.stdout
    assert len(before) == 4
    assert {*before.values()} == {1}
    assert re.search(r"changed +TENANT#acme / USER#bob +2 +roles", ended.stdout)
    assert "1 created, 1 changed, 3 unchanged." in ended.stdout
    versions = {(item["pk"], item["sk"]): item["version"] for item in empty.all()}
    assert versions == before | {("TENANT#acme", "USER#bob"): 2, ("TENANT#new", "TENANT"): 1}


def test_import_does_not_end_a_suspension(empty: _Registry, files: Path) -> None:
    empty.run("import", files)
    empty.run("suspend", "user", "bob", "--tenant", "acme")
    (files / "acme" / "users.json").write_text(json.dumps([_user("bob", "acme", roles=["b"], status="ACTIVE")]))
    ended = empty.run("import", files)

    assert ended.exit_code == 0
    assert "roles, status; stays suspended" not in ended.stdout
    assert "roles; stays suspended; `tenantgate registry resume` ends that" in ended.stdout
    assert empty.get("acme", "USER#bob") == _user("bob", "acme", roles=["b"], status="SUSPENDED", version=3)


def test_import_of_a_file_with_a_version_is_as_strict_as_put(empty: _Registry, files: Path) -> None:
    empty.run("import", files)
    empty.run("assign", "bob", "--tenant", "acme", "--role", "x")
    (files / "acme" / "users.json").write_text(json.dumps([_user("bob", "acme", roles=["b"], version=1)]))

    assert empty.run("import", files).exit_code == 2


def test_import_names_every_file_that_cannot_be_read(empty: _Registry, files: Path) -> None:
    (files / "bad.json").write_text('{"pk": "TENANT#T", "sk": "TENANT", "sk": "TENANT"}')
    (files / "bad.yaml").write_text("a: [1\n")
    ended = empty.run("import", files)

    assert ended.exit_code == 2
    assert f"{files}/bad.json: cannot be read: 'sk' stands twice in one object" in ended.stderr
    assert f"{files}/bad.yaml: cannot be read: " in ended.stderr
    assert empty.all() == []


def test_import_of_an_empty_folder_ends_with_1(empty: _Registry, tmp_path: Path) -> None:
    assert empty.run("import", tmp_path).exit_code == 1


# ── show, who, which ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_show_shows_all_that_belongs_to_a_tenant(sample: _Registry) -> None:
    ended = sample.run("show", "acme")
    shown = ended.stdout

    assert ended.exit_code == 0
    assert re.search(r"^membership +REQUIRED", shown, re.MULTILINE)
    assert re.search(
        r"support +MEMBERS +small-refunds +ALLOW +TOOL +agent:tool:refund-\* +/arguments/amount lte 500", shown
    )
    assert re.search(r"alice +ACTIVE +support +support +1", shown)
    assert re.search(r"agent:order-bot +ACTIVE +tools:read, tools:write +1", shown)
    assert "globex" not in shown


def test_show_shows_what_is_shared(sample: _Registry) -> None:
    assert re.search(r"TOOL +agent:tool:order-lookup +ACTIVE +READ +1", sample.run("show", "SHARED").stdout)


def test_show_says_when_a_tenant_does_not_exist_though_it_has_items(empty: _Registry) -> None:
    empty.put(_user("alice", "ghost"))

    assert "does not exist: it has no TENANT item" in empty.run("show", "ghost").stdout


def test_show_warns_of_what_it_cannot_read_and_shows_the_rest(dynamodb: DynamoDb, sample: _Registry) -> None:
    for sk in ("USER#eve", "COLOUR#1"):
        item = {"pk": {"S": "TENANT#acme"}, "sk": {"S": sk}, "status": {"S": "AWAY"}}
        dynamodb.client.put_item(TableName=sample.table.name, Item=item)
    ended = sample.run("show", "acme")

    assert ended.exit_code == 0
    assert "warning: passed over: TENANT#acme / USER#eve: status: Invalid enum value 'AWAY'" in ended.stderr
    assert "warning: passed over: TENANT#acme / COLOUR#1: is of an unknown kind" in ended.stderr
    assert "alice" in ended.stdout


def test_show_takes_no_text_for_markup(empty: _Registry) -> None:
    empty.put(_tenant("T"), _user("[red]alice[/red]", "T"))

    assert "[red]alice[/red]" in empty.run("show", "T").stdout


def test_show_of_a_tenant_that_is_not_there_ends_with_1(sample: _Registry) -> None:
    ended = sample.run("show", "Acme")

    assert ended.exit_code == 1
    assert "has nothing of tenant 'Acme'" in ended.stderr


def test_who_shows_every_tenant_of_a_user_with_roles_status_and_policies(sample: _Registry) -> None:
    sample.put(_user("alice", "globex", roles=["x", "y"], status="SUSPENDED"))
    ended = sample.run("who", "alice")
    listed = json.loads(sample.run("who", "alice", "--json").stdout)

    assert ended.exit_code == 0
    assert re.search(r"acme +ACTIVE +support +support +1\s+globex +SUSPENDED +x, y +1", ended.stdout)
    assert [(item["pk"], item["roles"]) for item in listed] == [
        ("TENANT#acme", ["support"]),
        ("TENANT#globex", ["x", "y"]),
    ]


def test_who_of_a_user_in_no_tenant_ends_with_1(sample: _Registry) -> None:
    assert sample.run("who", "ali").exit_code == 1


def test_which_shows_whose_rules_are_about_a_tool_and_what_narrows_them(sample: _Registry) -> None:
    ended = sample.run("which", "agent:tool:refund-create")
    listed = json.loads(sample.run("which", "agent:tool:refund-create", "--json").stdout)

    assert ended.exit_code == 0
    assert re.search(
        r"globex +DENY +everyone +TENANT +large-refunds +agent:tool:refund-create +/arg\S+ gt 100", ended.stdout
    )
    assert [(found["tenantId"], found["policyId"], found["ruleId"], found["effect"]) for found in listed] == [
        ("acme", "support", "small-refunds", "ALLOW"),
        ("globex", "everyone", "all-tools", "ALLOW"),
        ("globex", "everyone", "large-refunds", "DENY"),
        ("initech", "everyone", "rule-1", "ALLOW"),
    ]
    assert listed[0]["conditions"] == [{"path": "/arguments/amount", "op": "lte", "value": 500}]


def test_which_is_about_one_type_of_resource(sample: _Registry) -> None:
    assert sample.run("which", "agent:tool:refund-create", "--type", "MEMORY").exit_code == 1


# ── assign ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_assign_gives_policies_and_roles_and_keeps_the_rest(sample: _Registry) -> None:
    ended = sample.run("assign", "bob", "--tenant", "acme", "--policy", "support", "--role", "lead", "--role", "viewer")

    assert ended.exit_code == 0
    assert sample.get("acme", "USER#bob") == _user(
        "bob", "acme", roles=["viewer", "lead"], policyIds=["support"], status="ACTIVE", version=2
    )


def test_assign_makes_a_membership_that_is_not_there(sample: _Registry) -> None:
    ended = sample.run("assign", "carol", "--tenant", "acme", "--role", "viewer", "--json")

    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == _user("carol", "acme", roles=["viewer"], version=1)
    assert sample.get("acme", "USER#carol") == _user("carol", "acme", roles=["viewer"], version=1)


def test_assign_takes_away(sample: _Registry) -> None:
    words = ["--tenant", "acme", "--policy", "support", "--role", "support", "--role", "never-had"]
    ended = sample.run("assign", "alice", *words, "--remove")

    assert ended.exit_code == 0
    assert sample.get("acme", "USER#alice") == _user("alice", "acme", status="ACTIVE", version=2)


def test_assign_of_what_a_user_has_is_not_written(sample: _Registry) -> None:
    ended = sample.run("assign", "alice", "--tenant", "acme", "--role", "support")

    assert ended.exit_code == 0
    assert ended.stdout.startswith("unchanged")
    assert (sample.get("acme", "USER#alice") or {})["version"] == 1


_ASSIGN_NOTHING: dict[str, tuple[list[str], int, str]] = {
    "a tenant that is not there": (["alice", "--tenant", "Acme"], 1, "has no tenant 'Acme'"),
    "a policy that is not there": (["alice", "--tenant", "acme", "--policy", "x"], 1, "has no policy 'x'"),
    "a membership that is not there": (
        ["carol", "--tenant", "acme", "--role", "x", "--remove"],
        1,
        "'carol' is not in tenant 'acme'",
    ),
    "nothing to take away": (["alice", "--tenant", "acme", "--remove"], 2, "--remove needs --policy or --role"),
    "no tenant": (["alice"], 2, "Missing option '--tenant'"),
    "an id that cannot be one": (["a\nb", "--tenant", "acme"], 2, "must not contain the unprintable character"),
}


@pytest.mark.parametrize(("words", "status", "said"), _ASSIGN_NOTHING.values(), ids=_ASSIGN_NOTHING)
def test_assign_writes_nothing_for(sample: _Registry, words: list[str], status: int, said: str) -> None:
    before = sample.all()
    ended = sample.run("assign", *words)

    assert ended.exit_code == status
    assert said in ended.stderr
    assert sample.all() == before


def test_assign_warns_of_a_policy_that_is_for_everyone_and_of_a_suspension(sample: _Registry) -> None:
    sample.run("suspend", "user", "alice", "--tenant", "acme")
    ended = sample.run("assign", "alice", "--tenant", "acme", "--policy", "everyone")

    assert "policy 'everyone' is for all members of tenant 'acme' anyway" in ended.stderr
    assert "the membership of 'alice' is suspended" in ended.stderr


# ── suspend, resume ─────────────────────────────────────────────────────────────────────────────────────────────────────

_SWITCHES: dict[str, tuple[list[str], str, str]] = {
    "a tenant": (["tenant", "acme"], "TENANT#acme", "TENANT"),
    "a user": (["user", "alice", "--tenant", "acme"], "TENANT#acme", "USER#alice"),
    "an agent": (["agent", "agent:order-bot", "--tenant", "acme"], "TENANT#acme", "AGENT#agent:order-bot"),
    "a tool of all": (["tool", "agent:tool:refund-create"], "SHARED", "RESOURCE#TOOL#agent:tool:refund-create"),
    "a tool of a tenant": (
        ["tool", "agent:tool:globex-forecast", "--tenant", "globex"],
        "TENANT#globex",
        "RESOURCE#TOOL#agent:tool:globex-forecast",
    ),
}


@pytest.mark.parametrize(("words", "pk", "sk"), _SWITCHES.values(), ids=_SWITCHES)
def test_suspend_and_resume_change_the_status_alone(sample: _Registry, words: list[str], pk: str, sk: str) -> None:
    before = sample.table.get(pk, sk)
    assert before is not None
    suspended = sample.run("suspend", *words)
    assert suspended.exit_code == 0, suspended.output
    assert re.search(r"^status +SUSPENDED", suspended.stdout, re.MULTILINE)
    assert sample.table.get(pk, sk) == before | {"status": "SUSPENDED", "version": 2}
    resumed = sample.run("resume", *words)

    assert resumed.exit_code == 0
    assert sample.table.get(pk, sk) == before | {"status": "ACTIVE", "version": 3}


def test_suspend_of_what_is_suspended_is_well_and_not_written(sample: _Registry) -> None:
    ended = sample.run("suspend", "tenant", "initech")

    assert ended.exit_code == 0
    assert ended.stdout.startswith("unchanged")


def test_suspend_catalogues_a_tool_that_is_not(sample: _Registry) -> None:
    ended = sample.run("suspend", "tool", "agent:tool:new", "--json")
    suspended = {"pk": "SHARED", "sk": "RESOURCE#TOOL#agent:tool:new", "version": 1, "status": "SUSPENDED"}

    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == suspended
    assert sample.table.get("SHARED", "RESOURCE#TOOL#agent:tool:new") == suspended


def test_a_tenants_own_entry_of_a_shared_tool_is_made_from_the_shared_one(sample: _Registry) -> None:
    sk = "RESOURCE#TOOL#agent:tool:order-lookup"
    shared = sample.table.get("SHARED", sk)
    assert shared is not None
    sample.run("suspend", "tool", "agent:tool:order-lookup", "--tenant", "acme")

    assert sample.get("acme", sk) == shared | {"pk": "TENANT#acme", "status": "SUSPENDED", "version": 1}
    assert sample.table.get("SHARED", sk) == shared


def test_suspend_of_a_knowledge_base(sample: _Registry) -> None:
    sample.run("suspend", "tool", "kb-1", "--type", "KNOWLEDGE_BASE", "--tenant", "acme")

    assert (sample.get("acme", "RESOURCE#KNOWLEDGE_BASE#kb-1") or {})["status"] == "SUSPENDED"


@pytest.mark.parametrize("command", ["suspend", "resume"])
@pytest.mark.parametrize(
    "words",
    [["tenant", "x"], ["user", "x", "--tenant", "acme"], ["agent", "x", "--tenant", "acme"], ["tool", "x"]],
    ids=["tenant", "user", "agent", "tool"],
)
def test_what_is_not_there_ends_with_1(sample: _Registry, command: str, words: list[str]) -> None:
    before = sample.all()
    ended = sample.run(command, *words)

    assert ended.exit_code == (0 if (command, words[0]) == ("suspend", "tool") else 1)
    assert (sample.all() == before) is (ended.exit_code == 1)


def test_suspend_warns_where_a_suspended_membership_counts_as_none(sample: _Registry) -> None:
    sample.put(_user("dora", "globex"))
    optional = sample.run("suspend", "user", "dora", "--tenant", "globex")
    required = sample.run("suspend", "user", "bob", "--tenant", "acme")

    assert optional.exit_code == 0
    assert "membership is OPTIONAL in tenant 'globex', where a suspended one counts as none" in optional.stderr
    assert required.stderr == ""


@pytest.mark.parametrize(
    "words", [["user", "alice"], ["agent", "a"], ["tenant", "acme", "--tenant", "acme"], ["planet", "x"]], ids=" ".join
)
def test_suspend_is_told_what_it_needs(sample: _Registry, words: list[str]) -> None:
    assert sample.run("suspend", *words).exit_code == 2


def test_suspend_wins_against_others_who_write_the_item(sample: _Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    get = RegistryTable.get
    interruptions = [["a"], ["a", "b"], ["a", "b", "c"]]

    def get_and_interrupt(table: RegistryTable, pk: str, sk: str) -> dict[str, Any] | None:
        item = get(table, pk, sk)
        if item is not None and interruptions:
            table.write([Change(item | {"roles": interruptions.pop(0)})])
        return item

    monkeypatch.setattr(RegistryTable, "get", get_and_interrupt)
    ended = sample.run("suspend", "user", "bob", "--tenant", "acme")
    monkeypatch.undo()

    assert ended.exit_code == 0
    assert sample.get("acme", "USER#bob") == _user("bob", "acme", roles=["a", "b", "c"], status="SUSPENDED", version=5)


# ── remove ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

_REMOVALS = _SWITCHES | {"a policy": (["policy", "everyone", "--tenant", "acme"], "TENANT#acme", "POLICY#everyone")}


@pytest.mark.parametrize(("words", "pk", "sk"), _REMOVALS.values(), ids=_REMOVALS)
def test_remove_removes_that_and_nothing_else(sample: _Registry, words: list[str], pk: str, sk: str) -> None:
    before = sample.all()
    ended = sample.run("remove", *words, "--yes")
    gone = [item for item in before if item["pk"] == pk and sk in {item["sk"], "TENANT"}]

    assert ended.exit_code == 0
    assert f"removed  {pk} / {sk}" in ended.stdout
    assert sample.all() == [item for item in before if item not in gone]


def test_remove_asks_and_does_nothing_on_no(sample: _Registry) -> None:
    refused = sample.run("remove", "tenant", "acme", stdin="n\n")
    assert refused.exit_code == 1
    assert "Remove TENANT#acme and all that belongs to it (1 TENANT, 2 AGENT, 2 POLICY, 2 USER)?" in refused.stderr
    assert sample.get("acme", "TENANT") is not None
    agreed = sample.run("remove", "user", "bob", "--tenant", "acme", stdin="y\n")

    assert agreed.exit_code == 0
    assert sample.get("acme", "USER#bob") is None


def test_remove_prints_what_was_removed_so_that_it_can_be_put_back(sample: _Registry) -> None:
    before = sample.all()
    removed = json.loads(sample.run("remove", "tenant", "acme", "--yes", "--json").stdout)
    assert removed[0]["sk"] == "TENANT"
    for item in removed:
        del item["version"]
    sample.run("put", stdin=json.dumps(removed))

    assert sample.all() == before


def test_remove_of_what_is_not_there_ends_with_1(sample: _Registry) -> None:
    assert sample.run("remove", "user", "eve", "--tenant", "acme", "--yes").exit_code == 1


def test_remove_warns_when_memberships_list_the_policy(sample: _Registry) -> None:
    assert (
        "1 memberships list this policy, such as 'alice'"
        in sample.run("remove", "policy", "support", "--tenant", "acme", "--yes").stderr
    )


# ── diff ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _exports(folder: Path, *registries: list[dict[str, Any]]) -> list[Path]:
    return [write_export(folder / str(number), items) for number, items in enumerate(registries)]


def test_diff_of_the_same_registry_ends_with_0(tmp_path: Path) -> None:
    spelled_out = [item | {"version": 7} for item in reversed(sample_items())]
    ended = _run("diff", *_exports(tmp_path, sample_items(), spelled_out))

    assert ended.exit_code == 0, ended.output
    assert ended.stdout == "no differences\n"


_BEFORE: list[dict[str, Any]] = [
    _tenant("A"),
    {
        "pk": "TENANT#A",
        "sk": "POLICY#P",
        "rules": [{"ruleId": n, "effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"]} for n in ("r1", "r2")],
    },
    _user("alice", "A", roles=["x"]),
    _tenant("B"),
    _tenant("C"),
]
_AFTER: list[dict[str, Any]] = [
    _tenant("A", status="SUSPENDED"),
    {
        "pk": "TENANT#A",
        "sk": "POLICY#P",
        "rules": [{"ruleId": n, "effect": "DENY", "resourceType": "TOOL", "resources": ["t"]} for n in ("r2", "r3")],
    },
    _user("bob", "A"),
    _tenant("C"),
    _tenant("D"),
    {"pk": "SHARED", "sk": "RESOURCE#TOOL#t"},
]


def test_diff_tells_what_differs_tenant_by_tenant(tmp_path: Path) -> None:
    ended = _run("diff", *_exports(tmp_path, _BEFORE, _AFTER))

    assert ended.exit_code == 1
    assert ended.stdout.splitlines() == [
        "SHARED",
        "  + resource TOOL t",
        "A",
        '  ~ tenant: status: none → "SUSPENDED"',
        "  ~ policy P: rules: added r3, removed r1, changed r2",
        "  - user alice",
        "  + user bob",
        "B",
        "  - tenant",
        "D",
        "  + tenant",
        "3 added, 2 removed, 2 changed, in 4 tenants",
    ]


def test_diff_prints_json_lines_alone_when_asked(tmp_path: Path) -> None:
    ended = _run("diff", *_exports(tmp_path, _BEFORE, _AFTER), "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]

    assert ended.exit_code == 1
    assert lines[1] == {
        "tenant": "A",
        "kind": "TENANT",
        "id": "",
        "change": "changed",
        "attributes": {"status": {"after": "SUSPENDED"}},
    }
    assert [(line["tenant"], line["change"]) for line in lines[-2:]] == [("B", "removed"), ("D", "added")]


def test_diff_ends_with_2_on_what_cannot_be_read(tmp_path: Path) -> None:
    good, bad = _exports(tmp_path, [], [_tenant("A", status="AWAY")])

    assert _run("diff", good, tmp_path / "nowhere").exit_code == 2
    assert "TENANT#A / TENANT: status: Invalid enum value 'AWAY'" in _run("diff", good, bad).stderr


def test_diff_warns_of_items_that_it_does_not_compare(tmp_path: Path) -> None:
    ended = _run("diff", *_exports(tmp_path, [], [{"pk": "INVOICE#1", "sk": "LINE#1"}]))

    assert ended.exit_code == 0
    assert "1 items of unknown kinds are not compared, such as INVOICE#1 / LINE#1" in ended.stderr


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_PAGE = (REPOSITORY / "docs" / "registry.md").read_text()
_BLOCKS = re.findall(r"^```console\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of the page in their order, with the lines that it shows below each."""
    for block in _BLOCKS:
        command = ""
        shown: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, shown
                command, shown = line.removeprefix("$ "), []
            else:
                shown.append(line)
        yield command, shown


def test_the_commands_of_the_page_print_what_it_shows(dynamodb: DynamoDb, tmp_path: Path) -> None:
    like_a_clone(tmp_path, (".venv", "examples"))
    environment = {**os.environ, **ENVIRONMENT, "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url, "COLUMNS": "120"}
    for command, shown in _commands():
        refused = any(line.startswith("tenantgate: ") for line in shown)
        told = run(command, tmp_path, environment, status=2 if refused else 0)
        # what is shown of point-in-time recovery is what AWS answers; DynamoDB Local has none
        printed = [line.rstrip() for line in told.replace("not available here", "turned on").splitlines()]

        assert not shown or [line for line in printed if line] == shown, command


def test_the_page_names_every_command() -> None:
    section = _PAGE.partition("## The table and its commands")[2].partition("\n## ")[0]

    assert [command for command in COMMANDS if f"`{command}" not in section] == []
