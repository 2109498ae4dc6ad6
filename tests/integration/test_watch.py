"""From a change in the table to the overlay: nothing missed, nothing resurrected, never backwards."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import closing
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from structlog.testing import capture_logs

from sidecar.bundles.build import Recipe
from sidecar.bundles.bundle import read_manifest
from sidecar.bundles.overlay import Overlay
from sidecar.bundles.watch import BASE, OVERLAY, POSITION, Timing, Watcher
from sidecar.registry.attribute_values import typed
from sidecar.registry.streams import Position, StreamReader
from sidecar.registry.table import RegistryTable
from tests.support.dynamodb import CREDENTIALS, ENVIRONMENT
from tests.support.processes import POLICIES, wait_until
from tests.support.registries import compiled, in_force, sample_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.dynamodb import DynamoDb

AT_ONCE = Timing(heartbeat=0.0, lag=0.0)
TENANT_A = {"pk": "TENANT#Tenant-A", "sk": "TENANT"}


class Table:
    """A table with the sample registry, changed behind the back of our own commands."""

    def __init__(self, dynamodb: DynamoDb, name: str) -> None:
        self.name = name
        self.url = dynamodb.url
        self.client = dynamodb.client
        RegistryTable(self.client, name).init()
        for item in sample_items():
            self.put(item)

    def put(self, item: dict[str, Any]) -> None:
        """Write an item."""
        self.client.put_item(TableName=self.name, Item=typed(item))

    def delete(self, pk: str, sk: str) -> None:
        """Remove an item."""
        self.client.delete_item(TableName=self.name, Key=typed({"pk": pk, "sk": sk}))

    def items(self) -> list[dict[str, Any]]:
        """Give all items as they are now."""
        return [*RegistryTable(self.client, self.name).scan()]


@pytest.fixture
def table(dynamodb: DynamoDb, table_name: str) -> Table:
    """A fresh table."""
    return Table(dynamodb, table_name)


@pytest.fixture
def streams(dynamodb: DynamoDb) -> Iterator[Any]:
    """boto3's client of DynamoDB Streams."""
    client: Any = boto3.client("dynamodbstreams", endpoint_url=dynamodb.url, **CREDENTIALS)  # type: ignore[call-overload]
    with closing(client):
        yield client


def watcher(table: Table, streams: Any, folder: Path, timing: Timing = AT_ONCE) -> Watcher:
    """Make a watcher that has started."""
    made = Watcher(table.name, table.client, streams, folder, Recipe(POLICIES), timing=timing)
    made.start()
    return made


def published(folder: Path) -> dict[str, Any]:
    """Give what the bundles of a folder say together, tenant by tenant, as Rego would take it."""
    return in_force(folder / BASE, folder / OVERLAY)


def catch_up(made: Watcher, table: Table, folder: Path) -> None:
    """Step until what is published is what the table holds."""

    def current() -> bool:
        made.step()
        return published(folder) == expected(table)

    wait_until(current)


def service_time(table: Table) -> int:
    """Ask the service for the time, in microseconds since 1970."""
    date = table.client.describe_table(TableName=table.name)["ResponseMetadata"]["HTTPHeaders"]["date"]
    return int(parsedate_to_datetime(date).timestamp()) * 1_000_000


def expected(table: Table) -> dict[str, Any]:
    """Give what a fresh compile of the table says."""
    document = compiled(table.items())
    return {"tenants": document["tenants"], "shared": document["shared"]}


def test_it_begins_with_a_base_of_the_whole_table(table: Table, streams: Any, tmp_path: Path) -> None:
    watcher(table, streams, tmp_path)
    assert published(tmp_path) == expected(table)
    assert read_manifest(tmp_path / BASE)[0].metadata.counts["tenants"] == 3


CHANGES: dict[str, Any] = {
    "a tenant is suspended": lambda t: t.put({**TENANT_A, "status": "SUSPENDED"}),
    "a policy is removed": lambda t: t.delete("TENANT#Tenant-A", "POLICY#POL-TENANT-A"),
    "a user is removed": lambda t: t.delete("TENANT#Tenant-A", "USER#alice"),
    "a tenant is removed": lambda t: t.delete("TENANT#Tenant-A", "TENANT"),
    "a tenant is added": lambda t: t.put({"pk": "TENANT#Tenant-D", "sk": "TENANT"}),
    "a shared tool is suspended": lambda t: t.put(
        {"pk": "SHARED", "sk": "RESOURCE#TOOL#agent:tool:order-lookup", "access": "READ", "status": "SUSPENDED"}
    ),
    "an item of no kind of ours is added": lambda t: t.put({"pk": "NOTE#1", "sk": "x"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_becomes_part_of_the_overlay(table: Table, streams: Any, tmp_path: Path, change: str) -> None:
    made = watcher(table, streams, tmp_path)
    CHANGES[change](table)
    catch_up(made, table, tmp_path)


def test_it_publishes_when_something_changes_and_not_before_the_heartbeat_otherwise(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path, Timing(heartbeat=3600))
    while made.step():
        pass
    assert not made.step()
    table.put({**TENANT_A, "status": "SUSPENDED"})
    wait_until(made.step)
    assert published(tmp_path)["tenants"]["Tenant-A"]["terms"]["status"] == "SUSPENDED"


def test_the_heartbeat_moves_the_as_of_when_nothing_changes(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    first = Overlay.read(tmp_path / OVERLAY).meta.as_of

    def moved() -> bool:
        made.step()
        table.client.describe_table(TableName=table.name)  # an answer, from which it learns the service's time
        return Overlay.read(tmp_path / OVERLAY).meta.as_of > first

    wait_until(moved)


def test_another_watcher_goes_on_where_one_left_off(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    catch_up(made, table, tmp_path)
    table.delete("TENANT#Tenant-B", "TENANT")
    base = read_manifest(tmp_path / BASE)[0].revision
    again = watcher(table, streams, tmp_path)
    catch_up(again, table, tmp_path)
    assert read_manifest(tmp_path / BASE)[0].revision == base


@pytest.mark.parametrize(
    "lost", [[POSITION], [OVERLAY], [POSITION, OVERLAY], [BASE], [BASE, OVERLAY, POSITION]], ids=str
)
def test_files_that_are_gone_cost_time_and_no_change(
    table: Table, streams: Any, tmp_path: Path, lost: list[str]
) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    catch_up(made, table, tmp_path)
    table.delete("TENANT#Tenant-B", "TENANT")
    for name in lost:
        (tmp_path / name).unlink()
    catch_up(watcher(table, streams, tmp_path), table, tmp_path)


@pytest.mark.parametrize("name", [POSITION, OVERLAY, BASE])
def test_files_that_are_damaged_are_made_anew(table: Table, streams: Any, tmp_path: Path, name: str) -> None:
    catch_up(watcher(table, streams, tmp_path), table, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    catch_up(watcher(table, streams, tmp_path), table, tmp_path)


def test_a_new_base_takes_in_the_overlay(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    catch_up(made, table, tmp_path)
    assert Overlay.read(tmp_path / OVERLAY).tenants
    newest = max(document["terms"]["version"] for document in Overlay.read(tmp_path / OVERLAY).tenants.values())
    wait_until(lambda: service_time(table) > newest)  # the service tells it in whole seconds
    other = tmp_path / "other"
    other.mkdir()
    watcher(table, streams, other)
    (other / BASE).replace(tmp_path / BASE)
    made.step()
    assert not Overlay.read(tmp_path / OVERLAY).tenants
    assert published(tmp_path) == expected(table)


def test_what_a_new_base_may_not_hold_stays_in_the_overlay(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    watcher(table, streams, other)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    catch_up(made, table, tmp_path)
    (other / BASE).replace(tmp_path / BASE)
    made.step()
    assert "Tenant-A" in Overlay.read(tmp_path / OVERLAY).tenants
    assert published(tmp_path) == expected(table)


def test_a_base_that_is_too_old_is_replaced(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    old = (tmp_path / BASE).read_bytes()
    (tmp_path / BASE).unlink()
    table.put({**TENANT_A, "status": "SUSPENDED"})
    wait_until(lambda: _as_of_new_base(table, streams, tmp_path) > made._overlay.meta.since)
    made = watcher(table, streams, tmp_path)
    made.step()
    (tmp_path / BASE).write_bytes(old)
    with capture_logs() as lines:
        made.step()
    assert "base_too_old" in {line["event"] for line in lines}
    assert published(tmp_path) == expected(table)


def _as_of_new_base(table: Table, streams: Any, folder: Path) -> int:
    (folder / BASE).unlink(missing_ok=True)
    return watcher(table, streams, folder)._overlay.meta.since


def test_a_malformed_item_keeps_the_last_good_state_and_says_so_until_it_is_mended(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    good = published(tmp_path)["tenants"]["Tenant-A"]
    bad: dict[str, Any] = {"pk": "TENANT#Tenant-A", "sk": "POLICY#bad", "rules": [{"effect": "MAYBE"}]}
    table.put(bad)
    table.put({"pk": "TENANT#Tenant-B", "sk": "TENANT", "status": "SUSPENDED"})
    with capture_logs() as lines:
        wait_until(lambda: made.step() and made._malformed)
    (line,) = [line for line in lines if line["event"] == "malformed"]
    assert "TENANT#Tenant-A / POLICY#bad: rules[0]" in line["reason"]
    made.step()
    assert published(tmp_path)["tenants"]["Tenant-A"] == good
    assert published(tmp_path)["tenants"]["Tenant-B"]["terms"]["status"] == "SUSPENDED"
    again = watcher(table, streams, tmp_path)
    again.step()
    assert again._malformed, "a restart does not forget it"
    table.delete(bad["pk"], bad["sk"])
    catch_up(again, table, tmp_path)
    assert not again._malformed


def test_an_as_of_does_not_claim_what_a_malformed_tenant_lacks(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({"pk": "TENANT#Tenant-A", "sk": "POLICY#bad", "rules": []} | {"rules": [{"effect": "MAYBE"}]})
    wait_until(lambda: made.step() and made._malformed)
    as_of = Overlay.read(tmp_path / OVERLAY).meta.as_of
    table.put({"pk": "TENANT#Tenant-D", "sk": "TENANT"})
    wait_until(lambda: made.step() and "Tenant-D" in published(tmp_path)["tenants"])
    assert Overlay.read(tmp_path / OVERLAY).meta.as_of - as_of < 1000  # each publication is a microsecond later


def test_a_tenant_that_is_shut_off_is_so_whatever_else_is_malformed(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({"pk": "TENANT#Tenant-A", "sk": "POLICY#bad", "rules": [{"effect": "MAYBE"}]})
    table.put({**TENANT_A, "status": "SUSPENDED"})
    wait_until(lambda: made.step() and published(tmp_path)["tenants"]["Tenant-A"]["terms"]["status"] == "SUSPENDED")


def test_a_change_is_not_lost_when_the_table_does_not_answer(
    table: Table, streams: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sidecar.errors import TableError  # noqa: PLC0415 - used here alone

    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    reading = RegistryTable.partition

    def failing(_table: RegistryTable, _pk: str) -> Any:
        msg = "the table does not answer"
        raise TableError(msg)

    monkeypatch.setattr(RegistryTable, "partition", failing)
    wait_until(partial(_fails, made))
    monkeypatch.setattr(RegistryTable, "partition", reading)
    catch_up(made, table, tmp_path)


def _fails(made: Watcher) -> bool:
    from sidecar.errors import TableError  # noqa: PLC0415 - used here alone

    try:
        made.step()
    except TableError:
        return True
    return False


def test_a_position_that_the_stream_no_longer_has_leads_to_a_new_base(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    position = json.loads((tmp_path / POSITION).read_text())
    position["shards"]["shardId-of-long-ago"] = "000000000000000000001"
    (tmp_path / POSITION).write_text(json.dumps(position))
    table.put({**TENANT_A, "status": "SUSPENDED"})
    made = watcher(table, streams, tmp_path)
    with capture_logs() as lines:
        made.step()
    assert "position_lost" in {line["event"] for line in lines}
    assert published(tmp_path) == expected(table)


def test_a_reader_takes_up_the_children_of_a_shard_that_ended(table: Table, streams: Any) -> None:
    stream = table.client.describe_table(TableName=table.name)["Table"]["LatestStreamArn"]
    reader = StreamReader(streams, stream, Position(), discover_seconds=3600)
    seen: list[Any] = []

    def all_seen() -> bool:
        seen.extend(reader.poll(0)[0])
        return len(seen) >= len(sample_items())

    wait_until(all_seen)
    again = StreamReader(streams, stream, reader.position)
    assert again.poll(7) == ([], 7), "what was read is not read again"


def test_only_one_watcher_keeps_a_folder(table: Table, tmp_path: Path) -> None:
    with _process(table, tmp_path) as first:
        wait_until((tmp_path / OVERLAY).exists)
        second = subprocess.run(
            _command(table, tmp_path), env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert "another watcher keeps this folder" in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_resurrected_when_it_is_killed_at_random_points(table: Table, tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(6):
        with _process(table, tmp_path) as process:
            for _ in range(chance.randint(5, 40)):
                _change_something(table, chance)
            if chance.random() < 0.5:
                wait_until((tmp_path / OVERLAY).exists, 20)
            process.kill()
            process.wait(10)
    before = Overlay.read(tmp_path / OVERLAY).meta.as_of if (tmp_path / OVERLAY).exists() else 0
    with _process(table, tmp_path) as process:
        wait_until(lambda: (tmp_path / OVERLAY).exists() and published(tmp_path) == expected(table), 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert Overlay.read(tmp_path / OVERLAY).meta.as_of >= before


def _change_something(table: Table, chance: random.Random) -> None:
    tenant = f"TENANT#T{chance.randint(1, 4)}"
    item: dict[str, Any] = chance.choice(
        [
            {"pk": tenant, "sk": "TENANT", "status": chance.choice(["ACTIVE", "SUSPENDED"])},
            {"pk": tenant, "sk": f"USER#{chance.choice('ab')}", "roles": [chance.choice("xyz")]},
            {"pk": tenant, "sk": "AGENT#bot", "scopes": [chance.choice("xyz")]},
            {"pk": "SHARED", "sk": "RESOURCE#TOOL#t", "access": chance.choice(["READ", "WRITE"])},
            {
                "pk": tenant,
                "sk": f"POLICY#{chance.choice('ab')}",
                "rules": [{"effect": chance.choice(["ALLOW", "DENY"]), "resourceType": "TOOL", "resources": ["t"]}],
            },
        ]
    )
    if chance.random() < 0.3:
        table.delete(item["pk"], item["sk"])
    else:
        table.put(item)


def _command(table: Table, folder: Path) -> list[str | Path]:
    tenantgate = Path(sys.executable).with_name("tenantgate")
    return [
        tenantgate,
        "bundle",
        "watch",
        "--out",
        folder,
        "--table",
        table.name,
        "--endpoint-url",
        table.url,
        "--poll",
        "0.05",
    ]


def _process(table: Table, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_command(table, folder), env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
