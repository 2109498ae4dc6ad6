"""Which tenants change: the stream of the table, followed from shard to shard.

A record is taken as word that something changed, and the tenant is then read from the table as it is now. So the order of records
across shards does not matter, nor does a record that comes twice; all that must not happen is that one is missed.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct, field

from sidecar.errors import PositionLostError, TableError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RESOLUTION = 60_000_000
"""How coarse the moments of changes are, in microseconds: AWS gives whole seconds, DynamoDB Local whole minutes."""

_READ_TO_THE_END = "end"
_TURNED_OFF = {"DISABLING", "DISABLED"}
_RETRYABLE = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "InternalServerError",
}


class Position(Struct):
    """Where a stream has been read to: the last sequence number of each shard that was begun, or ``end``.

    ``pending`` are the partitions that records were about which have not become part of a bundle yet.
    """

    stream: str = ""
    shards: dict[str, str] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)


class StreamReader:
    """Reads a stream from a position on. ``client`` is boto3's client of DynamoDB Streams.

    Shards that the position does not know are read from their beginning. New ones are looked for every ``discover_seconds``, and
    when one ends.
    """

    def __init__(self, client: Any, stream: str, position: Position, discover_seconds: float = 5.0) -> None:
        self._client = client
        self._discover_seconds = discover_seconds
        self._discovered = -float("inf")
        self._iterators: dict[str, str] = {}
        self.position = position if position.stream == stream else Position(stream)

    def poll(self, now: int) -> tuple[list[dict[str, Any]], int]:
        """Read once from every open shard; give the records, and the moment up to which all that appeared has been read.

        Moments are in microseconds since 1970. ``now`` is one that had come before the call; what is given is not after it, and 0
        when a shard could not be read.

        Raises ``PositionLostError`` when records were trimmed before they were read or are not written any more, and
        ``TableError``.
        """
        if time.monotonic() - self._discovered > self._discover_seconds:
            self._discover()
        records: list[dict[str, Any]] = []
        reached = now
        for shard, iterator in list(self._iterators.items()):
            answer = self._call("get_records", shard, ShardIterator=iterator)
            if answer is None:
                reached = 0
                continue
            records += answer["Records"]
            if answer["Records"]:
                last = answer["Records"][-1]["dynamodb"]
                reached = min(reached, created(last))
                self.position.shards[shard] = last["SequenceNumber"]
            if following := answer.get("NextShardIterator"):
                self._iterators[shard] = following
            else:
                del self._iterators[shard]
                self.position.shards[shard] = _READ_TO_THE_END
                self._discovered = -float("inf")
                reached = 0  # what follows it is in shards that are not known yet
        return records, reached

    def _discover(self) -> None:
        shards = {shard["ShardId"] for shard in self._shards()}
        gone = {shard: place for shard, place in self.position.shards.items() if shard not in shards}
        for shard, place in gone.items():
            if place != _READ_TO_THE_END:
                msg = f"the stream no longer has shard {shard}, which was not read to its end: 24 hours have passed"
                raise PositionLostError(msg)
            del self.position.shards[shard]
        for shard in sorted(shards - self._iterators.keys()):
            at = self.position.shards.get(shard)
            if at != _READ_TO_THE_END:
                self._open(shard, at)
        self._discovered = time.monotonic()

    def _open(self, shard: str, at: str | None) -> None:
        where: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if at is not None:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": at}
        answer = self._call("get_shard_iterator", shard, StreamArn=self.position.stream, ShardId=shard, **where)
        if answer is not None:
            self._iterators[shard] = answer["ShardIterator"]

    def _shards(self) -> Iterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            described = self._call("describe_stream", "", StreamArn=self.position.stream, **start)
            if described is None:
                return
            description = described["StreamDescription"]
            if description["StreamStatus"] in _TURNED_OFF:
                msg = "the stream was turned off, so that changes since are not in it"
                raise PositionLostError(msg)
            yield from description["Shards"]
            last = description.get("LastEvaluatedShardId")
            if last is None:
                return
            start = {"ExclusiveStartShardId": last}

    def _call(self, operation: str, shard: str, **parameters: Any) -> dict[str, Any] | None:
        """Call the service; ``None`` when the call is to be made again at the next poll."""
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except ClientError as fault:
            code = fault.response["Error"]["Code"]
            if code == "TrimmedDataAccessException":
                msg = f"the stream no longer has what follows the position in shard {shard}: more than 24 hours have passed"
                raise PositionLostError(msg) from fault
            if code == "ExpiredIteratorException":
                self._iterators.pop(shard, None)
                self._discovered = -float("inf")
                return None
            if code in _RETRYABLE:
                log.info("stream_busy", operation=operation, shard=shard, code=code)
                return None
            msg = f"stream {self.position.stream}: {operation}: {code}: {fault.response['Error']['Message']}"
            raise TableError(msg) from fault
        except BotoCoreError as fault:
            msg = f"stream {self.position.stream}: {operation}: {fault}"
            raise TableError(msg) from fault
        return answer


def created(change: dict[str, Any]) -> int:
    """Give the moment of a change, in microseconds since 1970. It may have been up to ``RESOLUTION`` later."""
    moment: datetime = change["ApproximateCreationDateTime"]
    return (moment - _EPOCH) // timedelta(microseconds=1)


def partition_of(record: dict[str, Any]) -> str:
    """Give the partition key of the item that a record is about."""
    key: str = record["dynamodb"]["Keys"]["pk"]["S"]
    return key
