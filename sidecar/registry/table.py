"""The registry table, live in DynamoDB: made, read, and edited without losing what another author wrote.

Items go in and out as plain JSON. A change is written only if the item is still as it was when it was read, and in
transactions. Source of their limits:
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from sidecar.errors import ConflictError, MalformedItemsError, TableError
from sidecar.registry import edits, items
from sidecar.registry.attribute_values import plain, typed
from sidecar.registry.edits import VERSION, Change, Item, Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

INDEX = "inverted"
"""The index from sort key to partition keys: in which tenants a user is."""

_KEY_SCHEMA = {"HASH": "pk", "RANGE": "sk"}
_INDEX_SCHEMA = {"HASH": "sk", "RANGE": "pk"}
_STREAM = "NEW_AND_OLD_IMAGES"
_ATTEMPTS = 10
_BATCH = 100  # the most keys that BatchGetItem takes
_WAITING = {"Delay": 1, "MaxAttempts": 600}


class RegistryTable:
    """The table of a name. ``client`` is boto3's client of DynamoDB.

    Items are given with their ``version``, which is 0 where none is stored. Every method raises ``TableError`` if the table is
    not there or cannot be reached.
    """

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    # ── making it ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def init(self) -> dict[str, str]:
        """Make the table, or turn on what an existing one lacks. Gives the state of each part, and whether it was changed.

        Raises ``TableError``, having changed nothing, if the table exists with other keys, index or stream.
        """
        with self._telling():
            try:
                table = self.client.describe_table(TableName=self.name)["Table"]
            except self.client.exceptions.ResourceNotFoundException:
                table = None
            if table is None:
                self._create()
                parts = dict.fromkeys(("table", "inverted index", "stream", "deletion protection"), "created")
            else:
                self._check(table)
                parts = {"table": "exists", **self._turn_on(table)}
            return {**parts, "point-in-time recovery": self._keep_backups()}

    def _create(self) -> None:
        self.client.create_table(
            TableName=self.name,
            KeySchema=_schema(_KEY_SCHEMA),
            AttributeDefinitions=_DEFINITIONS,
            BillingMode="PAY_PER_REQUEST",
            GlobalSecondaryIndexes=[_INDEX_DEFINITION],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": _STREAM},
            DeletionProtectionEnabled=True,
        )
        self._wait()

    def _check(self, table: Mapping[str, Any]) -> None:
        types = {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}
        if _read_schema(table) != _KEY_SCHEMA or types["pk"] != "S" or types["sk"] != "S":
            keys = ", ".join(f"{name} ({types[name]}, {kind})" for kind, name in _read_schema(table).items())
            raise _fault(
                self.name, f"exists with other keys: {keys}; the registry needs pk (S, HASH) and sk (S, RANGE)"
            )
        index = _index(table)
        if index and (_read_schema(index) != _INDEX_SCHEMA or index["Projection"]["ProjectionType"] != "ALL"):
            raise _fault(
                self.name, f"has an index {INDEX!r} of another form; it must be sk, pk and project ALL attributes"
            )
        view = table.get("StreamSpecification", {}).get("StreamViewType", _STREAM)
        if view != _STREAM:
            raise _fault(self.name, f"has a stream of {view}; turn that off, so that one of {_STREAM} can be turned on")

    def _turn_on(self, table: Mapping[str, Any]) -> dict[str, str]:
        parts = dict.fromkeys(("inverted index", "stream", "deletion protection"), "on")
        if not table.get("StreamSpecification", {}).get("StreamEnabled"):
            parts["stream"] = self._update(StreamSpecification={"StreamEnabled": True, "StreamViewType": _STREAM})
        if not table.get("DeletionProtectionEnabled"):
            parts["deletion protection"] = self._update(DeletionProtectionEnabled=True)
        if not _index(table):
            parts["inverted index"] = self._update(
                AttributeDefinitions=_DEFINITIONS, GlobalSecondaryIndexUpdates=[{"Create": _INDEX_DEFINITION}]
            )
        return parts

    def _update(self, **change: Any) -> str:
        self.client.update_table(TableName=self.name, **change)
        self._wait()
        return "turned on"

    def _wait(self) -> None:
        self.client.get_waiter("table_exists").wait(TableName=self.name, WaiterConfig=_WAITING)

    def _keep_backups(self) -> str:
        """Turn point-in-time recovery on. DynamoDB Local does not have it."""
        for attempt in count(1):
            try:
                described = self.client.describe_continuous_backups(TableName=self.name)["ContinuousBackupsDescription"]
                if described["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED":
                    return "on"
                self.client.update_continuous_backups(
                    TableName=self.name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
                )
            except ClientError as fault:
                code = fault.response["Error"]["Code"]
                if code == "UnknownOperationException":
                    return "not available here"
                # a table that has just been made does not take it for some seconds
                if code != "ContinuousBackupsUnavailableException" or attempt > _ATTEMPTS * _ATTEMPTS:
                    raise
                time.sleep(1)
            else:
                return "turned on"
        raise AssertionError

    # ── reading it ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, pk: str, sk: str) -> Item | None:
        """Read one item as it is now."""
        with self._telling():
            answer = self.client.get_item(TableName=self.name, Key=typed({"pk": pk, "sk": sk}), ConsistentRead=True)
        return _read(answer["Item"]) if "Item" in answer else None

    def get_all(self, keys: Sequence[Key]) -> dict[Key, Item]:
        """Read the items of these keys that there are, as they are now."""
        found: dict[Key, Item] = {}
        wanted = [typed({"pk": pk, "sk": sk}) for pk, sk in keys]
        attempts = 0
        while wanted:
            request = {self.name: {"Keys": wanted[:_BATCH], "ConsistentRead": True}}
            with self._telling():
                answer = self.client.batch_get_item(RequestItems=request)
            for attributes in answer["Responses"].get(self.name, ()):
                item = _read(attributes)
                found[edits.key(item)] = item
            left = answer["UnprocessedKeys"].get(self.name, {}).get("Keys", [])
            attempts = 0 if len(left) < len(wanted[:_BATCH]) else attempts + 1
            if attempts == _ATTEMPTS:
                raise _fault(self.name, "is too busy to be read; try again later")
            if attempts:
                _pause(attempts)
            wanted = left + wanted[_BATCH:]
        return found

    def partition(self, pk: str) -> list[Item]:
        """Read all items of a tenant, or those that are shared, as they are now, in the order of their sort keys."""
        condition: dict[str, Any] = {
            "KeyConditionExpression": "pk = :it",
            "ExpressionAttributeValues": typed({":it": pk}),
        }
        return [*self._pages("query", **condition, ConsistentRead=True)]

    def holders(self, sk: str) -> list[Item]:
        """Read the items of all tenants that have a sort key, in the order of the tenants.

        An index lags behind the table by some milliseconds, so what was written this moment may be missing.
        """
        condition: dict[str, Any] = {
            "KeyConditionExpression": "sk = :it",
            "ExpressionAttributeValues": typed({":it": sk}),
        }
        return [*self._pages("query", **condition, IndexName=INDEX)]

    def scan(self, begins: str = "", progress: Callable[[int], None] = lambda _count: None) -> Iterator[Item]:
        """Yield all items whose sort key begins so, in no order. ``progress`` is told how many more were looked at."""
        condition: dict[str, Any] = {}
        if begins:
            values = typed({":it": begins})
            condition = {"FilterExpression": "begins_with(sk, :it)", "ExpressionAttributeValues": values}
        yield from self._pages("scan", progress, **condition, ConsistentRead=True)

    def count(self) -> int:
        """Tell about how many items there are: DynamoDB counts every six hours or so."""
        with self._telling():
            number: int = self.client.describe_table(TableName=self.name)["Table"]["ItemCount"]
        return number

    def _pages(
        self, operation: str, progress: Callable[[int], None] = lambda _count: None, **parameters: Any
    ) -> Iterator[Item]:
        pages = iter(self.client.get_paginator(operation).paginate(TableName=self.name, **parameters))
        while True:
            with self._telling():
                page = next(pages, None)
            if page is None:
                return
            yield from map(_read, page["Items"])
            progress(page["ScannedCount"])

    # ── editing it ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, changes: Sequence[Change], progress: Callable[[int], None] = lambda _count: None) -> list[Item]:
        """Write and remove items, each only if it is as it was when it was read. Gives the written ones with their new version.

        Up to a hundred are written all or none; more, or more than 4 MB, in such groups, in order. Raises ``MalformedItemsError``
        before anything is written, and ``ConflictError``; where groups had been written before, the message says which.
        """
        faults = [
            f"{items.item_name(change.item)}: {reason}"
            for change in changes
            if not change.remove and (reason := edits.fault(change.item))
        ]
        if faults:
            raise MalformedItemsError(faults)
        written: list[Item] = []
        done = 0
        for group in edits.groups(changes):
            after = [_next(change) for change in group]
            try:
                self._transact(group, after)
            except ConflictError as fault:
                raise ConflictError(fault.conflicts, f"{_outcome(changes, done)}:") from fault
            except TableError as fault:
                outcome = _outcome(changes, done, in_doubt=len(group) if _in_doubt(fault.__cause__) else 0)
                msg = f"{fault}\n{outcome}"
                raise TableError(msg) from fault.__cause__
            written += [item for change, item in zip(group, after, strict=True) if not change.remove]
            done += len(group)
            progress(len(group))
        return written

    def edit(self, pk: str, sk: str, change: Callable[[Item | None], Item | None]) -> tuple[Item | None, Item | None]:
        """Read an item, have it changed, and write it; again if another author came in between. Gives it before and after.

        ``change`` takes the item, or ``None`` if there is none, and gives what it is to become; ``None`` leaves it alone.
        """
        for attempt in count(1):
            before = self.get(pk, sk)
            after = change(before)
            if after is None or (before is not None and not edits.changed_attributes(before, after)):
                return before, before
            try:
                return before, self.write([Change(after)])[0]
            except ConflictError:
                if attempt == _ATTEMPTS:
                    raise
                _pause(attempt)
        raise AssertionError

    def _transact(self, group: Sequence[Change], after: Sequence[Item]) -> None:
        actions = [self._action(change, item) for change, item in zip(group, after, strict=True)]
        try:
            with self._telling():
                self.client.transact_write_items(TransactItems=actions)
        except TableError as fault:
            response = fault.__cause__.response if isinstance(fault.__cause__, ClientError) else {}
            conflicts = [*_conflicts(group, response.get("CancellationReasons", ()))]
            if not conflicts:
                raise
            raise ConflictError(conflicts, "nothing was written:") from fault

    def _action(self, change: Change, after: Item) -> dict[str, Any]:
        condition: dict[str, Any] = {
            "TableName": self.name,
            "ConditionExpression": "attribute_not_exists(pk)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if VERSION in change.item:
            version = change.item[VERSION]
            unversioned = " OR (attribute_exists(pk) AND attribute_not_exists(#version))" if version == 0 else ""
            condition |= {
                "ConditionExpression": f"#version = :version{unversioned}",
                "ExpressionAttributeNames": {"#version": VERSION},
                "ExpressionAttributeValues": typed({":version": version}),
            }
        if change.remove:
            pk, sk = edits.key(change.item)
            return {"Delete": {"Key": typed({"pk": pk, "sk": sk}), **condition}}
        return {"Put": {"Item": typed(after), **condition}}

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell the errors of boto3 in words."""
        try:
            yield
        except ClientError as fault:
            error = fault.response["Error"]
            if error["Code"] == "ResourceNotFoundException":
                raise _fault(self.name, "does not exist here; `tenantgate registry init` makes it") from fault
            raise _fault(self.name, f"{fault.operation_name}: {error['Code']}: {error['Message']}") from fault
        except BotoCoreError as fault:
            raise _fault(self.name, str(fault)) from fault


def _fault(table: str, fault: str) -> TableError:
    return TableError(f"table {table}: {fault}")


def _read(attributes: dict[str, Any]) -> Item:
    try:
        item = plain(attributes)
    except ValueError as fault:
        name = " / ".join(str(attributes.get(part, {}).get("S")) for part in ("pk", "sk"))
        msg = f"{name}: {fault}"
        raise TableError(msg) from fault
    item.setdefault(VERSION, 0)
    return item


def _next(change: Change) -> Item:
    """Give an item as it will be stored: its version counts on."""
    version = change.item.get(VERSION, 0)
    return {**change.item, VERSION: version + 1} if isinstance(version, int) else change.item


def _conflicts(group: Sequence[Change], reasons: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for change, reason in zip(group, reasons, strict=False):
        name = items.item_name(change.item)
        if reason.get("Code") == "ConditionalCheckFailed":
            stored = _read(reason["Item"]) if reason.get("Item") else None
            yield f"{name} {edits.conflict(change.item, stored)}"
        elif reason.get("Code") == "TransactionConflict":
            yield f"{name} is being written by someone else at this moment: try again"


def _outcome(changes: Sequence[Change], done: int, *, in_doubt: int = 0) -> str:
    """Say which changes had been made when one could not be."""
    rest = done + in_doubt
    parts = [f"{done} of {len(changes)} items had been written, up to {_name(changes[done - 1])}"] if done else []
    if in_doubt:
        parts.append(f"it is not known whether {in_doubt} from {_name(changes[done])} on were written")
    if rest < len(changes):
        parts.append(
            f"{len(changes) - rest} from {_name(changes[rest])} on were not" if parts else "nothing was written"
        )
    return "; ".join(parts)


def _name(change: Change) -> str:
    return items.item_name(change.item)


def _in_doubt(cause: BaseException | None) -> bool:
    """Tell whether a transaction may have been made though its answer did not arrive, or was no answer."""
    if isinstance(cause, ClientError):
        return bool(cause.response["ResponseMetadata"]["HTTPStatusCode"] >= HTTPStatus.INTERNAL_SERVER_ERROR)
    return isinstance(cause, HTTPClientError)


def _pause(attempt: int) -> None:
    time.sleep(min(0.01 * 2**attempt, 1))


def _schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for kind, name in keys.items()]


def _read_schema(described: Mapping[str, Any]) -> dict[str, str]:
    return {entry["KeyType"]: entry["AttributeName"] for entry in described["KeySchema"]}


def _index(table: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((index for index in table.get("GlobalSecondaryIndexes", ()) if index["IndexName"] == INDEX), None)


_DEFINITIONS = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
_INDEX_DEFINITION = {
    "IndexName": INDEX,
    "KeySchema": _schema(_INDEX_SCHEMA),
    "Projection": {"ProjectionType": "ALL"},
}
