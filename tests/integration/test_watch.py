"""From a change in the table to the overlay: nothing missed, nothing resurrected, never backwards."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
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
from sidecar.errors import BundleError, TableError
from sidecar.registry.attribute_values import typed
from sidecar.registry.streams import Position, StreamReader
from sidecar.registry.table import RegistryTable
from sidecar.seal import canonical
from tests.support.bundles import pack, read
from tests.support.dynamodb import CREDENTIALS, ENVIRONMENT
from tests.support.processes import POLICIES, wait_until
from tests.support.registries import compiled, in_force, layers, sample_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.dynamodb import DynamoDb
    from tests.support.processes import PolicyOpa

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
    return in_force(layers(folder / BASE, folder / OVERLAY))


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
    return compiled_of(table.items())


def compiled_of(some_items: list[dict[str, Any]]) -> dict[str, Any]:
    """Give what a compile of items says."""
    document = compiled(some_items)
    return {"tenants": document["tenants"], "shared": document["shared"]}


def test_it_begins_with_a_base_of_the_whole_table(table: Table, streams: Any, tmp_path: Path) -> None:
    watcher(table, streams, tmp_path)
    assert published(tmp_path) == expected(table)
    assert read_manifest(tmp_path / BASE).metadata.counts["tenants"] == 3


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
    first = _meta(tmp_path).as_of

    def moved() -> bool:
        made.step()
        table.client.describe_table(TableName=table.name)  # an answer, from which it learns the service's time
        return bool(_meta(tmp_path).as_of > first)

    wait_until(moved)


def test_another_watcher_goes_on_where_one_left_off(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    catch_up(made, table, tmp_path)
    table.delete("TENANT#Tenant-B", "TENANT")
    base = read_manifest(tmp_path / BASE).revision
    again = watcher(table, streams, tmp_path)
    catch_up(again, table, tmp_path)
    assert read_manifest(tmp_path / BASE).revision == base


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


def another_base(table: Table, streams: Any, folder: Path) -> None:
    """Put another base of the table into a folder, newer than all that its overlay holds."""
    overlay = Overlay.read(folder / OVERLAY)
    newest = max([overlay.meta.base_as_of, *(document["terms"]["version"] for document in overlay.tenants.values())])
    wait_until(lambda: service_time(table) > newest)  # the service tells it in whole seconds
    other = Path(tempfile.mkdtemp(dir=folder))
    watcher(table, streams, other)
    (other / BASE).replace(folder / BASE)


def test_the_base_after_the_next_one_takes_a_change_out_of_the_overlay(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    catch_up(made, table, tmp_path)
    kept = []
    for _ in range(2):
        another_base(table, streams, tmp_path)
        made.step()
        kept.append("Tenant-A" in Overlay.read(tmp_path / OVERLAY).tenants)
        assert published(tmp_path) == expected(table)
    assert kept == [True, False]
    assert not Overlay.read(tmp_path / OVERLAY).tenants


def test_a_base_and_the_overlay_that_follows_it_may_be_activated_in_either_order(
    table: Table, streams: Any, tmp_path: Path, policy_opa: PolicyOpa
) -> None:
    made = watcher(table, streams, tmp_path)
    for number in range(3):
        table.put({**TENANT_A, "maxStalenessSeconds": 100 + number})
        catch_up(made, table, tmp_path)
        before = layers(tmp_path / BASE, tmp_path / OVERLAY)
        another_base(table, streams, tmp_path)
        table.delete("TENANT#Tenant-B", "USER#bob")
        table.put({"pk": f"TENANT#New-{number}", "sk": "TENANT"})
        catch_up(made, table, tmp_path)
        wait_until(lambda: made.step() and _meta(tmp_path).as_of >= _meta(tmp_path).base_as_of)
        after = layers(tmp_path / BASE, tmp_path / OVERLAY)

        overlay_first, base_first = before | {"overlay": after["overlay"]}, after | {"overlay": before["overlay"]}
        assert in_force(overlay_first) == in_force(after) == expected(table)
        assert in_force(base_first)["tenants"]["Tenant-A"] == expected(table)["tenants"]["Tenant-A"]
        moments = [as_of(policy_opa, registry) for registry in (before, base_first, after)]
        assert moments == sorted(moments)
        assert as_of(policy_opa, overlay_first) == moments[-1] == after["overlay"]["meta"]["as_of"]


def as_of(opa: PolicyOpa, registry: dict[str, Any]) -> int:
    """Ask the Rego which moment a registry of two layers reflects."""
    opa.put("registry", registry)
    state: dict[str, Any] = opa.ask("tenantgate/registry/state", {"tenant": {"id": "Tenant-A"}})
    return int(state["as_of"])


def _meta(folder: Path) -> Any:
    return Overlay.read(folder / OVERLAY).meta


def test_an_as_of_is_not_ahead_of_the_stream_when_a_base_is(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path, Timing(heartbeat=0.0, lag=3600.0))
    another_base(table, streams, tmp_path)
    made.step()
    meta = _meta(tmp_path)
    assert meta.base == read_manifest(tmp_path / BASE).revision
    assert meta.since <= meta.as_of < meta.base_as_of


@pytest.mark.parametrize(("what", "renewed"), [("base_as_of", True), ("since", False)])
def test_a_base_is_made_anew_when_it_is_old_however_far_the_overlay_goes_back(
    table: Table, streams: Any, tmp_path: Path, what: str, *, renewed: bool
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    first = read_manifest(tmp_path / BASE).revision
    setattr(made._overlay.meta, what, made._overlay.meta.as_of - 13 * 3600 * 1_000_000)
    made.step()
    assert (read_manifest(tmp_path / BASE).revision > first) == renewed
    assert published(tmp_path) == expected(table)


def test_a_new_base_is_not_hidden_by_what_the_overlay_has_read_before(
    table: Table, streams: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    monkeypatch.setattr(StreamReader, "poll", lambda *_: ([], 0))  # the stream has not brought it yet
    made._base_wanted = True
    made.step()
    assert _meta(tmp_path).base == read_manifest(tmp_path / BASE).revision
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


def _older(folder: Path, old: bytes) -> None:
    (folder / BASE).write_bytes(old)


def _of_the_same_moment(folder: Path, _old: bytes) -> None:
    files = read(folder / BASE)
    manifest = json.loads(files[".manifest"])
    files[".manifest"] = canonical({**manifest, "revision": f"{manifest['revision']}-other"})
    (folder / BASE).write_bytes(pack(files))


def _damaged(folder: Path, _old: bytes) -> None:
    (folder / BASE).write_bytes((folder / BASE).read_bytes()[:100])


def _gone(folder: Path, _old: bytes) -> None:
    (folder / BASE).unlink()


@pytest.mark.parametrize("change", [_older, _of_the_same_moment, _damaged, _gone])
def test_a_base_that_is_of_no_use_is_replaced(
    table: Table, streams: Any, tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    made = watcher(table, streams, tmp_path)
    old = (tmp_path / BASE).read_bytes()
    another_base(table, streams, tmp_path)
    made.step()
    followed = read_manifest(tmp_path / BASE)
    table.put({**TENANT_A, "status": "SUSPENDED"})
    change(tmp_path, old)
    with capture_logs() as lines:
        made.step()
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["base_refused"]
    assert read_manifest(tmp_path / BASE).revision > followed.revision, "revisions sort by time"
    catch_up(made, table, tmp_path)


def test_a_base_that_could_not_be_put_elsewhere_is_put_there_later(
    table: Table, streams: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    put: list[str] = []
    failing = False

    def published(path: Path) -> None:
        if failing and path.name == BASE:
            msg = "the bucket does not answer"
            raise BundleError(msg)
        put.append(path.name)

    made = Watcher(table.name, table.client, streams, tmp_path, Recipe(POLICIES), timing=AT_ONCE, published=published)
    made.start()
    another_base(table, streams, tmp_path)
    put.clear()
    failing = True
    for _ in range(2):
        with pytest.raises(BundleError, match="does not answer"):
            made.step()
    assert put == [OVERLAY, OVERLAY]
    failing = False
    made.step()
    made.step()
    assert put[2:] == [OVERLAY, BASE, OVERLAY]
    assert not recwarn


BAD: dict[str, Any] = {"pk": "TENANT#Tenant-A", "sk": "POLICY#bad", "rules": [{"effect": "MAYBE"}]}


def test_a_malformed_item_keeps_the_last_good_state_and_says_so_until_it_is_mended(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    good = published(tmp_path)["tenants"]["Tenant-A"]
    table.put(BAD)
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
    table.delete(BAD["pk"], BAD["sk"])
    catch_up(again, table, tmp_path)
    assert not again._malformed


def test_an_as_of_does_not_claim_what_a_malformed_tenant_lacks(table: Table, streams: Any, tmp_path: Path) -> None:
    made = watcher(table, streams, tmp_path)
    table.put(BAD)
    wait_until(lambda: made.step() and made._malformed)
    as_of = _meta(tmp_path).as_of
    table.put({"pk": "TENANT#Tenant-D", "sk": "TENANT"})
    wait_until(lambda: made.step() and "Tenant-D" in published(tmp_path)["tenants"])
    assert _meta(tmp_path).as_of - as_of < 1000  # each publication is a microsecond later


SUSPENSIONS: dict[str, dict[str, Any]] = {
    "the tenant": {**TENANT_A, "tenantId": "Tenant-A", "membership": "REQUIRED"},
    "a user": {"pk": "TENANT#Tenant-A", "sk": "USER#bob", "policyIds": ["POL-TENANT-A"], "roles": ["viewer"]},
    "a user who is new": {"pk": "TENANT#Tenant-A", "sk": "USER#eve"},
    "an agent": {"pk": "TENANT#Tenant-A", "sk": "AGENT#agent:report-bot", "scopes": ["tools:read"]},
    "a resource of its own": {"pk": "TENANT#Tenant-A", "sk": "RESOURCE#TOOL#agent:tool:order-lookup", "access": "READ"},
    "a shared resource": {"pk": "SHARED", "sk": "RESOURCE#TOOL#agent:tool:order-lookup", "access": "READ"},
}
WAITING: list[dict[str, Any]] = [
    {"pk": "TENANT#Tenant-A", "sk": "USER#carol", "status": "ACTIVE", "roles": ["support"]},
    {"pk": "TENANT#Tenant-A", "sk": "USER#mallory", "roles": ["support"]},
    {"pk": "TENANT#Tenant-A", "sk": "AGENT#agent:new-bot", "scopes": ["tools:read"]},
    {
        "pk": "TENANT#Tenant-A",
        "sk": "POLICY#all",
        "rules": [{"effect": "ALLOW", "resourceType": "TOOL", "resources": ["**"]}],
    },
    {"pk": "SHARED", "sk": "RESOURCE#TOOL#agent:tool:refund-create", "access": "READ"},
]
"""What would let more through, and waits until the tenant, or what is shared, is mended."""


@pytest.mark.parametrize("layer", ["base", "overlay"])
@pytest.mark.parametrize("what", SUSPENSIONS)
def test_what_is_suspended_is_shut_off_whatever_else_is_malformed(
    table: Table, streams: Any, tmp_path: Path, what: str, layer: str
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    for _ in range(2 if layer == "base" else 0):
        another_base(table, streams, tmp_path)
        made.step()
    made.step()
    overlay = Overlay.read(tmp_path / OVERLAY)
    assert bool(overlay.tenants) == bool(overlay.shared) == (layer == "overlay"), "where the last good state stands"

    good = table.items()
    bad = [BAD, {"pk": "SHARED", "sk": "RESOURCE#TOOL#bad", "access": "MAYBE"}]
    for item in [*bad, *WAITING]:
        table.put(item)
    wait_until(lambda: made.step() and len(made._malformed) == len(bad))
    assert published(tmp_path) == compiled_of(good)
    suspended = {**SUSPENSIONS[what], "status": "SUSPENDED"}
    table.put(suspended)
    shut_off = compiled_of([*(i for i in good if (i["pk"], i["sk"]) != (suspended["pk"], suspended["sk"])), suspended])
    wait_until(lambda: made.step() and published(tmp_path) == shut_off)

    # It stays so after a restart, and when it is taken back, until all is mended.
    table.put({**suspended, "status": "ACTIVE"})
    again = watcher(table, streams, tmp_path)
    for _ in range(3):
        again.step()
        assert published(tmp_path) == shut_off
    for item in bad:
        table.delete(item["pk"], item["sk"])
    catch_up(again, table, tmp_path)


def test_the_last_good_state_is_that_of_the_base_where_the_overlay_has_an_older_one(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    catch_up(watcher(table, streams, tmp_path), table, tmp_path)
    assert "Tenant-A" in Overlay.read(tmp_path / OVERLAY).tenants
    wait_until(lambda: service_time(table) > _meta(tmp_path).as_of)
    table.put({**TENANT_A, "membership": "OPTIONAL"})
    another_base(table, streams, tmp_path)
    user = {**SUSPENSIONS["a user"], "status": "SUSPENDED"}
    table.put(user)
    shut_off = expected(table)
    table.put(BAD)
    made = watcher(table, streams, tmp_path)
    wait_until(lambda: made.step() and published(tmp_path) == shut_off)


def test_a_tenant_that_never_was_well_formed_has_nothing_to_shut_off(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    before = published(tmp_path)
    for item in (
        {"pk": "TENANT#New", "sk": "TENANT"},
        {"pk": "TENANT#New", "sk": "USER#eve", "status": "SUSPENDED"},
        {**BAD, "pk": "TENANT#New"},
    ):
        table.put(item)
    wait_until(lambda: made.step() and "New" in Overlay.read(tmp_path / OVERLAY).tenants)
    assert published(tmp_path) == before


def test_without_the_last_good_state_what_is_suspended_waits_and_others_do_not(
    table: Table, streams: Any, tmp_path: Path
) -> None:
    made = watcher(table, streams, tmp_path)
    for _ in range(2):
        catch_up(made, table, tmp_path)
        another_base(table, streams, tmp_path)
    made.step()
    table.put(BAD)
    table.put({**SUSPENSIONS["a user"], "status": "SUSPENDED"})
    table.put({"pk": "TENANT#Tenant-B", "sk": "TENANT", "status": "SUSPENDED"})
    (tmp_path / BASE).write_bytes(b"")
    with capture_logs() as lines:
        wait_until(lambda: made.step() and "Tenant-B" in Overlay.read(tmp_path / OVERLAY).tenants)
    (line,) = [line for line in lines if line["event"] == "malformed"]
    assert "what is suspended is not shut off, for lack of the last good state" in line["reason"]


def test_a_change_is_not_lost_when_the_table_does_not_answer(
    table: Table, streams: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_what_changes_while_the_stream_is_off_comes_with_a_new_base(
    table: Table, streams: Any, tmp_path: Path, *, running: bool
) -> None:
    made = watcher(table, streams, tmp_path)
    catch_up(made, table, tmp_path)
    table.client.update_table(TableName=table.name, StreamSpecification={"StreamEnabled": False})
    table.put({**TENANT_A, "status": "SUSPENDED"})
    if running:
        wait_until(partial(_fails, made))
        as_of = _meta(tmp_path).as_of
        assert _fails(made)
        assert _meta(tmp_path).as_of == as_of
    RegistryTable(table.client, table.name).init()
    catch_up(made if running else watcher(table, streams, tmp_path), table, tmp_path)
    table.delete("TENANT#Tenant-B", "TENANT")
    catch_up(made if running else watcher(table, streams, tmp_path), table, tmp_path)


@pytest.mark.parametrize("why", ["an item is malformed", "too many tenants are removed"])
def test_what_was_missed_is_not_claimed_while_no_base_can_be_made(
    table: Table, streams: Any, tmp_path: Path, why: str
) -> None:
    catch_up(watcher(table, streams, tmp_path), table, tmp_path)
    position = json.loads((tmp_path / POSITION).read_text())
    position["shards"]["shardId-of-long-ago"] = "000000000000000000001"
    (tmp_path / POSITION).write_text(json.dumps(position))
    if why == "an item is malformed":
        table.put(BAD)
    else:
        table.delete("TENANT#Tenant-C", "TENANT")
    before, base = _meta(tmp_path).as_of, read_manifest(tmp_path / BASE).revision
    for number in range(2):
        table.put({"pk": f"TENANT#New-{number}", "sk": "TENANT"})
        wait_until(lambda: service_time(table) > before + 2_000_000)
        made = Watcher(
            table.name, table.client, streams, tmp_path, Recipe(POLICIES, max_removals=0), timing=AT_ONCE
        )  # another one each time, so that the gap is known after a restart
        made.start()
        wait_until(partial(_publishes, made, tmp_path, f"New-{number}"))
        made.step()  # which finds nothing more in the stream
        assert _meta(tmp_path).as_of - before < 1000  # each publication is a microsecond later
        assert read_manifest(tmp_path / BASE).revision == base
    table.delete(BAD["pk"], BAD["sk"])
    made = watcher(table, streams, tmp_path)
    made.step()
    assert published(tmp_path) == expected(table)
    assert read_manifest(tmp_path / BASE).revision > base
    meta = _meta(tmp_path)
    assert meta.since == meta.base_as_of > before


def _publishes(made: Watcher, folder: Path, tenant: str) -> bool:
    made.step()
    return tenant in published(folder)["tenants"]


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
    before = _meta(tmp_path).as_of if (tmp_path / OVERLAY).exists() else 0
    with _process(table, tmp_path) as process:
        wait_until(lambda: (tmp_path / OVERLAY).exists() and published(tmp_path) == expected(table), 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert _meta(tmp_path).as_of >= before


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
