"""The registry table in a real DynamoDB: nothing that another author wrote is lost, and nothing malformed is written."""

from __future__ import annotations

import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from sidecar.errors import ConflictError, MalformedItemsError, TableError
from sidecar.registry.edits import Change
from sidecar.registry.table import RegistryTable
from tests.support.dynamodb import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.dynamodb import DynamoDb

TENANT: dict[str, Any] = {"pk": "TENANT#T", "sk": "TENANT", "membership": "REQUIRED"}
POLICY: dict[str, Any] = {
    "pk": "TENANT#T",
    "sk": "POLICY#P",
    "rules": [{"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"]}],
}


def _user(name: str, tenant: str = "T", **attributes: Any) -> dict[str, Any]:
    return {"pk": f"TENANT#{tenant}", "sk": f"USER#{name}", **attributes}


def _changes(*items: dict[str, Any]) -> list[Change]:
    return [Change(item) for item in items]


@pytest.fixture
def table(dynamodb: DynamoDb, table_name: str) -> RegistryTable:
    table = RegistryTable(dynamodb.client, table_name)
    table.init()
    return table


def _create(dynamodb: DynamoDb, name: str, **overrides: Any) -> None:
    """Make a table that has pk and sk and nothing else, unless told otherwise."""
    described = {
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "AttributeDefinitions": [{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
        "BillingMode": "PAY_PER_REQUEST",
    }
    dynamodb.client.create_table(TableName=name, **described | overrides)


# ── init ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_init_makes_the_table_that_the_registry_needs(dynamodb: DynamoDb, table_name: str) -> None:
    parts = RegistryTable(dynamodb.client, table_name).init()
    made = dynamodb.client.describe_table(TableName=table_name)["Table"]
    (index,) = made["GlobalSecondaryIndexes"]

    assert parts["table"] == "created"
    assert made["KeySchema"] == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert index["IndexName"] == "inverted"
    assert index["KeySchema"] == [
        {"AttributeName": "sk", "KeyType": "HASH"},
        {"AttributeName": "pk", "KeyType": "RANGE"},
    ]
    assert index["Projection"] == {"ProjectionType": "ALL"}
    assert made["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert made["DeletionProtectionEnabled"] is True


def test_init_says_where_there_are_no_backups_and_goes_on(dynamodb: DynamoDb, table_name: str) -> None:
    assert RegistryTable(dynamodb.client, table_name).init()["point-in-time recovery"] == "not available here"


def test_init_again_changes_nothing(dynamodb: DynamoDb, table: RegistryTable) -> None:
    table.write(_changes(TENANT))
    before = dynamodb.client.describe_table(TableName=table.name)["Table"]
    parts = table.init()
    after = dynamodb.client.describe_table(TableName=table.name)["Table"]

    assert [parts[p] for p in ("table", "inverted index", "stream", "deletion protection")] == [
        "exists",
        "on",
        "on",
        "on",
    ]
    assert after["LatestStreamArn"] == before["LatestStreamArn"]
    assert table.get("TENANT#T", "TENANT") is not None


def test_init_turns_on_what_an_existing_table_lacks(dynamodb: DynamoDb, table_name: str) -> None:
    _create(dynamodb, table_name)
    table = RegistryTable(dynamodb.client, table_name)
    parts = table.init()
    again = table.init()
    named = ("inverted index", "stream", "deletion protection")

    assert [parts[part] for part in named] == ["turned on"] * 3
    assert [again[part] for part in named] == ["on"] * 3


def _index(**overrides: Any) -> list[dict[str, Any]]:
    keys = [{"AttributeName": "sk", "KeyType": "HASH"}, {"AttributeName": "pk", "KeyType": "RANGE"}]
    return [{"IndexName": "inverted", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}, **overrides}]


_OTHER_FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "one key": (
        {
            "KeySchema": [{"AttributeName": "policyId", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "policyId", "AttributeType": "S"}],
        },
        "exists with other keys: policyId (S, HASH); the registry needs pk (S, HASH) and sk (S, RANGE)",
    ),
    "a key of another type": (
        {"AttributeDefinitions": [{"AttributeName": n, "AttributeType": t} for n, t in (("pk", "S"), ("sk", "N"))]},
        "exists with other keys: pk (S, HASH), sk (N, RANGE)",
    ),
    "an index that keeps the keys alone": (
        {"GlobalSecondaryIndexes": _index(Projection={"ProjectionType": "KEYS_ONLY"})},
        "has an index 'inverted' of another form",
    ),
    "an index that is not inverted": (
        {"GlobalSecondaryIndexes": _index(KeySchema=[{"AttributeName": "sk", "KeyType": "HASH"}])},
        "has an index 'inverted' of another form",
    ),
    "a stream of keys": (
        {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}},
        "has a stream of KEYS_ONLY; turn that off",
    ),
}


@pytest.mark.parametrize(("form", "said"), _OTHER_FORMS.values(), ids=_OTHER_FORMS)
def test_init_refuses_a_table_of_another_form_and_leaves_it(
    dynamodb: DynamoDb, table_name: str, form: dict[str, Any], said: str
) -> None:
    _create(dynamodb, table_name, **form)
    with pytest.raises(TableError) as refused:
        RegistryTable(dynamodb.client, table_name).init()

    assert str(refused.value).startswith(f"table {table_name}: {said}")
    assert not dynamodb.client.describe_table(TableName=table_name)["Table"].get("DeletionProtectionEnabled")


# ── what is written is what is read ─────────────────────────────────────────────────────────────────────────────────────


def test_an_item_comes_back_as_it_was_written_with_its_version(table: RegistryTable) -> None:
    attributes = {"limit": 0.1, "big": 10**30, "none": None, "on": True, "list": [1, "1", {}], "text": "", "é": "☃"}
    item = _user("alice", roles=["support"], attributes=attributes)
    table.write(_changes(item))

    assert table.get("TENANT#T", "USER#alice") == {**item, "version": 1}


def test_what_is_not_there_is_none(table: RegistryTable) -> None:
    assert table.get("TENANT#T", "USER#nobody") is None


def test_a_tenant_is_read_whole_and_alone_in_the_order_of_its_keys(table: RegistryTable) -> None:
    padding = "x" * 100_000  # so that a query takes more than one page
    table.write(_changes(TENANT, *(_user(f"u{n:02}", attributes={"padding": padding}) for n in range(25))))
    table.write(_changes(_user("alice", "T2")))

    assert [item["sk"] for item in table.partition("TENANT#T")] == ["TENANT", *(f"USER#u{n:02}" for n in range(25))]


def test_the_inverted_index_gives_a_user_in_all_tenants(table: RegistryTable) -> None:
    table.write(_changes(_user("alice", "T2", roles=["x"]), _user("alice", "T1"), _user("alice2", "T3")))

    assert [(item["pk"], item.get("roles")) for item in table.holders("USER#alice")] == [
        ("TENANT#T1", None),
        ("TENANT#T2", ["x"]),
    ]


def test_a_scan_gives_everything_and_counts_it(table: RegistryTable) -> None:
    padding = "x" * 100_000
    users = [_user(f"u{n}", f"T{n}", attributes={"padding": padding}) for n in range(25)]
    table.write(_changes(*users, POLICY))
    looked_at: list[int] = []

    assert {item["sk"] for item in table.scan("POLICY#", looked_at.append)} == {"POLICY#P"}
    assert len(looked_at) > 1
    assert sum(looked_at) == table.count() == 26
    assert len([*table.scan()]) == 26


def test_many_items_are_read_by_their_keys(table: RegistryTable) -> None:
    users = [_user(f"u{n}", f"T{n}") for n in range(250)]
    table.write(_changes(*users))
    keys = [(user["pk"], user["sk"]) for user in users]

    assert {*table.get_all([*keys, ("TENANT#T", "USER#nobody")])} == {*keys}
    assert table.get_all([]) == {}


def test_an_item_that_was_stored_without_a_version_has_version_0_and_can_be_edited(
    dynamodb: DynamoDb, table: RegistryTable
) -> None:
    dynamodb.client.put_item(TableName=table.name, Item={"pk": {"S": "TENANT#T"}, "sk": {"S": "TENANT"}})
    item = table.get("TENANT#T", "TENANT")
    assert item == {"pk": "TENANT#T", "sk": "TENANT", "version": 0}
    (written,) = table.write(_changes(item | {"status": "SUSPENDED"}))

    assert table.get("TENANT#T", "TENANT") == written == item | {"status": "SUSPENDED", "version": 1}


def test_a_number_that_json_cannot_keep_is_an_error_that_names_the_item(
    dynamodb: DynamoDb, table: RegistryTable
) -> None:
    item = {"pk": {"S": "TENANT#T"}, "sk": {"S": "TENANT"}, "n": {"N": "0.12345678901234567890"}}
    dynamodb.client.put_item(TableName=table.name, Item=item)
    with pytest.raises(TableError, match=r"TENANT#T / TENANT: n: the number 0\.1234567890123456789 has more digits"):
        table.get("TENANT#T", "TENANT")


# ── two authors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_authors_who_edit_an_item_the_second_is_refused_and_nothing_is_lost(table: RegistryTable) -> None:
    table.write(_changes(TENANT))
    one = table.get("TENANT#T", "TENANT")
    two = table.get("TENANT#T", "TENANT")
    assert one is not None
    assert two is not None
    table.write(_changes(one | {"status": "SUSPENDED"}))
    with pytest.raises(ConflictError) as refused:
        table.write(_changes(two | {"description": "mine"}))

    assert refused.value.conflicts == (
        "TENANT#T / TENANT changed since version 1 was read, to version 2: show it again, and edit that",
    )
    assert str(refused.value).startswith("nothing was written:")
    assert table.get("TENANT#T", "TENANT") == one | {"status": "SUSPENDED", "version": 2}


def test_an_item_without_version_is_new_or_refused(table: RegistryTable) -> None:
    table.write(_changes(TENANT))
    with pytest.raises(ConflictError, match="TENANT exists already, in version 1: show it, and edit that"):
        table.write(_changes(TENANT | {"status": "SUSPENDED"}))


@pytest.mark.parametrize("version", [0, 1])
def test_an_item_that_has_been_removed_is_not_written_again(table: RegistryTable, version: int) -> None:
    with pytest.raises(ConflictError, match=f"has been removed since version {version} was read"):
        table.write(_changes(TENANT | {"version": version}))

    assert table.get("TENANT#T", "TENANT") is None


def test_an_item_is_removed_only_as_it_was_read(table: RegistryTable) -> None:
    (read,) = table.write(_changes(TENANT))
    (newer,) = table.write(_changes(read))
    with pytest.raises(ConflictError, match="changed since version 1 was read"):
        table.write([Change(read, remove=True)])
    assert table.get("TENANT#T", "TENANT") == newer
    assert table.write([Change(newer, remove=True)]) == []

    assert table.get("TENANT#T", "TENANT") is None


def test_items_that_go_together_are_written_all_or_none(table: RegistryTable) -> None:
    table.write(_changes(TENANT))
    users = [_user(f"u{n}") for n in range(99)]
    with pytest.raises(ConflictError):
        table.write(_changes(*users, TENANT))

    assert len(table.partition("TENANT#T")) == 1


def test_an_edit_is_made_again_when_another_author_comes_in_between(table: RegistryTable) -> None:
    table.write(_changes(_user("alice", roles=["a"])))
    interruptions = ["b", "c"]

    def change(before: dict[str, Any] | None) -> dict[str, Any]:
        assert before is not None
        if interruptions:
            table.write(_changes(before | {"roles": [*before["roles"], interruptions.pop(0)]}))
        return before | {"status": "SUSPENDED"}

    _, after = table.edit("TENANT#T", "USER#alice", change)

    assert after == _user("alice", roles=["a", "b", "c"], status="SUSPENDED", version=4)
    assert table.get("TENANT#T", "USER#alice") == after


def test_an_edit_gives_up_after_a_bounded_number_of_conflicts(
    table: RegistryTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.registry.table._pause", lambda _attempt: None)
    table.write(_changes(_user("alice")))

    def change(before: dict[str, Any] | None) -> dict[str, Any]:
        assert before is not None
        table.write(_changes(before))
        return before | {"status": "SUSPENDED"}

    with pytest.raises(ConflictError, match="changed since version 10 was read"):
        table.edit("TENANT#T", "USER#alice", change)


def test_edits_by_many_at_once_all_take_effect(table: RegistryTable) -> None:
    table.write(_changes(_user("alice")))
    together = threading.Barrier(4)

    def add(role: str) -> None:
        def change(before: dict[str, Any] | None) -> dict[str, Any]:
            assert before is not None
            return before | {"roles": [*before.get("roles", []), role]}

        together.wait()
        table.edit("TENANT#T", "USER#alice", change)

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(add, "abcd")] == [None] * 4
    item = table.get("TENANT#T", "USER#alice")

    assert item is not None
    assert sorted(item["roles"]) == ["a", "b", "c", "d"]
    assert item["version"] == 5


def test_an_edit_that_changes_nothing_is_not_written(table: RegistryTable) -> None:
    table.write(_changes(TENANT))

    assert table.edit("TENANT#T", "TENANT", lambda before: before)[1] == {**TENANT, "version": 1}
    assert table.edit("TENANT#T", "USER#x", lambda before: before) == (None, None)


# ── many items ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_written_unless_everything_is_well_formed(table: RegistryTable) -> None:
    bad = [_user("bob", status="AWAY"), {"pk": "INVOICE#1", "sk": "LINE#1"}, _user("é" * 512)]
    with pytest.raises(MalformedItemsError) as refused:
        table.write(_changes(*(_user(f"u{n}") for n in range(150)), *bad))

    assert len(refused.value.faults) == 3
    assert refused.value.faults[0].startswith("TENANT#T / USER#bob: status: Invalid enum value 'AWAY'")
    assert "INVOICE#1 / LINE#1: is of an unknown kind" in refused.value.faults[1]
    assert "sk: has 1029 bytes; a key can have 1024" in refused.value.faults[2]
    assert table.partition("TENANT#T") == []


def test_more_than_a_transaction_takes_is_written_in_groups(table: RegistryTable) -> None:
    done: list[int] = []
    written = table.write(_changes(*(_user(f"u{n:03}") for n in range(250))), done.append)

    assert done == [100, 100, 50]
    assert [item["sk"] for item in written] == [item["sk"] for item in table.partition("TENANT#T")]


def test_more_bytes_than_a_transaction_takes_are_written_in_groups(table: RegistryTable) -> None:
    done: list[int] = []
    padding = {"padding": "x" * 390_000}
    table.write(_changes(*(_user(f"u{n:02}", attributes=padding) for n in range(21))), done.append)

    assert done == [10, 10, 1]


def test_a_failure_between_groups_says_which_were_written_and_which_not(table: RegistryTable) -> None:
    users = [_user(f"u{n:03}") for n in range(250)]
    table.write(_changes(users[120]))
    with pytest.raises(ConflictError) as refused:
        table.write(_changes(*users))

    assert str(refused.value).splitlines() == [
        "100 of 250 items had been written, up to TENANT#T / USER#u099; 150 from TENANT#T / USER#u100 on were not:",
        "  TENANT#T / USER#u120 exists already, in version 1: show it, and edit that",
    ]
    assert len(table.partition("TENANT#T")) == 101


def test_the_largest_item_that_is_let_through_is_one_that_dynamodb_takes(table: RegistryTable) -> None:
    def item(length: int) -> dict[str, Any]:
        return _user("alice", attributes={"a": ["x" * length, 1, True, None, {"é": -1.5}]})

    low, high = 0, 409_600
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(item(middle)) else (low, middle)
    table.write(_changes(item(low)))

    assert low > 409_400


def _fits(item: dict[str, Any]) -> bool:
    from sidecar.registry.edits import fault  # noqa: PLC0415 - used here alone

    return fault(item) is None


# ── when things fail ────────────────────────────────────────────────────────────────────────────────────────────────────

_USES: dict[str, Callable[[RegistryTable], Any]] = {
    "get": lambda table: table.get("a", "b"),
    "get_all": lambda table: table.get_all([("a", "b")]),
    "partition": lambda table: table.partition("a"),
    "holders": lambda table: table.holders("a"),
    "scan": lambda table: [*table.scan()],
    "count": lambda table: table.count(),
    "write": lambda table: table.write(_changes(TENANT)),
}


@pytest.mark.parametrize("use", _USES.values(), ids=_USES)
def test_a_table_that_is_not_there_is_an_error_with_the_remedy(
    dynamodb: DynamoDb, table_name: str, use: Callable[[RegistryTable], Any]
) -> None:
    said = f"table {table_name}: does not exist here; `tenantgate registry init` makes it"
    with pytest.raises(TableError, match=said):
        use(RegistryTable(dynamodb.client, table_name))


@pytest.mark.parametrize("use", [*_USES.values(), RegistryTable.init], ids=[*_USES, "init"])
def test_a_dynamodb_that_is_not_there_is_an_error_that_names_the_address(use: Callable[[RegistryTable], Any]) -> None:
    config = Config(retries={"total_max_attempts": 1})
    client: Any = boto3.client("dynamodb", endpoint_url="http://127.0.0.1:1", config=config, **CREDENTIALS)  # type: ignore[call-overload]
    with (
        closing(client),
        pytest.raises(TableError, match=r'Could not connect to the endpoint URL: "http://127\.0\.0\.1:1/"'),
    ):
        use(RegistryTable(client, "registry"))


class _HangUp(socketserver.StreamRequestHandler):
    """Takes a request and hangs up instead of answering."""

    def handle(self) -> None:
        self.rfile.readline()


def test_of_a_transaction_whose_answer_does_not_arrive_it_is_said_that_it_may_have_been_made() -> None:
    config = Config(retries={"total_max_attempts": 1})
    with socketserver.TCPServer(("127.0.0.1", 0), _HangUp) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        client: Any = boto3.client("dynamodb", endpoint_url=url, config=config, **CREDENTIALS)  # type: ignore[call-overload]
        try:
            with closing(client), pytest.raises(TableError) as failed:
                RegistryTable(client, "registry").write(_changes(*(_user(f"u{n:03}") for n in range(150))))
        finally:
            server.shutdown()
            serving.join()

    assert str(failed.value).splitlines()[-1] == (
        "it is not known whether 100 from TENANT#T / USER#u000 on were written; 50 from TENANT#T / USER#u100 on were not"
    )
