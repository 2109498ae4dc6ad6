"""From the live table to an export: by DynamoDB, as far as moto plays it, and by a scan of a real DynamoDB Local."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner
from moto.server import ThreadedMotoServer

from sidecar.cli import main
from sidecar.errors import ExportError, TableError
from sidecar.registry import table_export
from sidecar.registry.export_writer import BucketSink
from sidecar.registry.exports import Export
from sidecar.registry.table import RegistryTable
from sidecar.registry.table_export import TableExport, Window, follow_export, scan_export, start_export
from tests.support.dynamodb import ENVIRONMENT
from tests.support.exports import attributes
from tests.support.registries import sample_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

    from tests.support.dynamodb import DynamoDb

START = datetime(2026, 11, 24, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(hours=1))
WINDOW_OPTIONS = ["--incremental-from", "2026-11-24T00:00:00Z", "--incremental-to", "2026-11-24T01:00:00Z"]


def _run(*words: str | Path, **environment: str | None) -> Result:
    return CliRunner().invoke(main, [*map(str, words)], env={**ENVIRONMENT, "COLUMNS": "200"} | environment)


# ── a scan ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Table:
    """A table in DynamoDB Local."""

    def __init__(self, dynamodb: DynamoDb, name: str) -> None:
        self.client = dynamodb.client
        self.name = name
        self.where = ["--table", name, "--endpoint-url", dynamodb.url]
        RegistryTable(self.client, name).init()

    def put(self, *items: dict[str, Any]) -> None:
        """Store items, each attribute as DynamoDB has it."""
        for item in items:
            self.client.put_item(TableName=self.name, Item=item)

    def scan(self, place: Path | str) -> TableExport:
        return scan_export(self.client, self.name, str(place))


@pytest.fixture
def table(dynamodb: DynamoDb, table_name: str) -> _Table:
    """A table that is empty."""
    return _Table(dynamodb, table_name)


@pytest.fixture
def sample(table: _Table) -> _Table:
    """A table with the sample registry."""
    table.put(*map(attributes, sample_items()))
    return table


def _sorted(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def _records(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "data").iterdir())
    return [json.loads(line)["Item"] for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def test_a_scan_is_read_back_as_it_is(sample: _Table, tmp_path: Path) -> None:
    exported = sample.scan(tmp_path / "export")

    assert _sorted(Export(exported.location).items()) == _sorted(sample_items())
    assert _sorted(Export(str(tmp_path / "export")).items()) == _sorted(sample_items())
    assert exported.items == len(sample_items())


def test_a_scan_keeps_every_type_of_value(table: _Table, tmp_path: Path) -> None:
    item: dict[str, Any] = {
        "pk": {"S": "TENANT#T"},
        "sk": {"S": "TENANT"},
        "number": {"N": "12345678901234567890.123456789"},
        "truth": {"BOOL": False},
        "nothing": {"NULL": True},
        "texts": {"SS": ["a", "ü"]},
        "numbers": {"NS": ["1", "2.5"]},
        "nested": {"M": {"list": {"L": [{"S": ""}, {"M": {}}]}}},
    }
    binary = {"binary": {"B": b"\0\xff"}, "binaries": {"BS": [b"\1", b"\2"]}}
    table.put({**item, **binary})
    exported = table.scan(tmp_path / "export")
    (record,) = _records(Path(exported.location))
    for name in ("texts", "numbers", "binaries"):
        ((kind, values),) = record[name].items()
        record[name] = {kind: sorted(values)}

    assert record == {**item, "binary": {"B": "AP8="}, "binaries": {"BS": ["AQ==", "Ag=="]}}


def test_a_scan_has_the_layout_that_dynamodb_writes(sample: _Table, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    folder = Path(sample.scan(tmp_path / "export").location)
    summary = json.loads((folder / "manifest-summary.json").read_text())
    described = sample.client.describe_table(TableName=sample.name)["Table"]
    (entry,) = [json.loads(line) for line in (folder / "manifest-files.json").read_text().splitlines()]
    data = (tmp_path / "export" / entry["dataFileS3Key"]).read_bytes()

    assert folder.parent == tmp_path / "export" / "AWSDynamoDB"
    assert {path.name for path in folder.iterdir()} == {
        "data",
        "manifest-files.json",
        "manifest-files.md5",
        "manifest-summary.json",
        "manifest-summary.md5",
    }
    for name in ("manifest-files", "manifest-summary"):
        assert (folder / f"{name}.md5").read_text() == _md5((folder / f"{name}.json").read_bytes())
    assert (entry["itemCount"], entry["md5Checksum"]) == (len(sample_items()), _md5(data))
    assert entry["etag"] == hashlib.md5(hashlib.md5(data).digest()).hexdigest() + "-1"
    assert entry["dataFileS3Key"].startswith(f"AWSDynamoDB/{folder.name}/data/")
    assert summary["itemCount"] == len(sample_items())
    assert summary["manifestFilesS3Key"] == f"AWSDynamoDB/{folder.name}/manifest-files.json"
    assert (summary["version"], summary["outputFormat"]) == ("2020-06-30", "DYNAMODB_JSON")
    assert summary["tableArn"] == described["TableArn"]
    assert summary["exportArn"] == f"{described['TableArn']}/export/{folder.name}"
    times = [datetime.fromisoformat(summary[name]) for name in ("exportTime", "startTime", "endTime")]
    assert before - timedelta(milliseconds=1) <= times[0] == times[1] <= times[2]


def test_a_scan_has_as_many_files_as_are_needed(
    sample: _Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_export, "_FILE_BYTES", 2000)
    exported = sample.scan(tmp_path / "export")

    assert len([*(Path(exported.location) / "data").iterdir()]) > 2
    assert _sorted(Export(exported.location).items()) == _sorted(sample_items())


def test_a_scan_of_an_empty_table_has_one_empty_file(table: _Table, tmp_path: Path) -> None:
    exported = table.scan(tmp_path / "export")

    assert [*Export(exported.location).items()] == []
    assert len([*(Path(exported.location) / "data").iterdir()]) == 1


def test_a_scan_tells_its_progress(sample: _Table, tmp_path: Path) -> None:
    told: list[int] = []
    scan_export(sample.client, sample.name, str(tmp_path / "export"), told.append)

    assert sum(told) == len(sample_items())


class _FailsLater:
    """A client whose scan breaks off."""

    def __init__(self, client: Any) -> None:
        self.describe_table = client.describe_table

    def get_paginator(self, _operation: str) -> _FailsLater:
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        yield {"Items": [attributes(item) for item in sample_items()], "Count": len(sample_items())}
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "too much"}}, "Scan")


def test_nothing_is_left_of_a_scan_that_breaks_off(table: _Table, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=f"table {table.name}: Scan: ThrottlingException: too much"):
        scan_export(_FailsLater(table.client), table.name, str(tmp_path / "export"))

    assert [*(tmp_path / "export").rglob("*")] == []


def test_a_place_that_is_no_directory_is_named(sample: _Table, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match=f"{tmp_path}/file: cannot be written: File exists"):
        sample.scan(tmp_path / "file")


def test_two_scans_to_one_place_are_two_exports(sample: _Table, tmp_path: Path) -> None:
    places = {sample.scan(tmp_path / "export").location for _ in range(2)}

    assert {str(path) for path in (tmp_path / "export" / "AWSDynamoDB").iterdir()} == places
    with pytest.raises(ExportError, match="2 exports here; name one of them"):
        Export(str(tmp_path / "export"))


def test_a_bundle_is_built_from_what_the_command_scanned(sample: _Table, tmp_path: Path) -> None:
    ended = _run("registry", "export", "--scan", "--to", tmp_path / "export", *sample.where)
    location = ended.stdout.strip()
    built = _run("bundle", "build", "--export", location, "--out", tmp_path / "bundle.tar.gz", "--json")

    assert (ended.exit_code, built.exit_code) == (0, 0), ended.output + built.output
    assert ended.stderr == f"{len(sample_items())} items\n"
    assert json.loads(built.stdout)["tenants"] == 3


def test_the_command_prints_json(sample: _Table, tmp_path: Path) -> None:
    ended = _run("registry", "export", "--scan", "--to", tmp_path / "export", "--json", *sample.where)
    (folder,) = (tmp_path / "export" / "AWSDynamoDB").iterdir()

    assert json.loads(ended.stdout) == {"location": str(folder), "arn": None, "items": len(sample_items())}


def test_a_table_that_is_not_there_is_named(dynamodb: DynamoDb, table_name: str, tmp_path: Path) -> None:
    where = ["--table", table_name, "--endpoint-url", dynamodb.url]
    ended = _run("registry", "export", "--scan", "--to", tmp_path / "export", *where)

    assert ended.exit_code == 2
    assert ended.stderr.startswith(
        f"tenantgate: table {table_name}: does not exist here; `tenantgate registry init` makes"
    )
    assert not (tmp_path / "export").exists()


def test_a_dynamodb_that_does_not_export_is_told(sample: _Table) -> None:
    ended = _run("registry", "export", "--to", "s3://exports/daily", *sample.where)

    assert ended.exit_code == 2
    assert f"table {sample.name}: is not in a DynamoDB that exports; --scan does without" in ended.stderr


# ── s3 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket; the environment leads boto3 to it."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": moto_server}.items():
        monkeypatch.setenv(name, value)
    resource = boto3.session.Session().resource("s3")
    made = resource.create_bucket(Bucket="registry-exports")
    yield made
    made.objects.all().delete()
    made.delete()
    resource.meta.client.close()


@pytest.mark.parametrize("prefix", ["", "/exports/daily/"], ids=["the bucket", "a prefix"])
def test_a_scan_goes_to_a_bucket_and_is_read_back(sample: _Table, bucket: Any, prefix: str) -> None:
    assert bucket.name == "registry-exports"
    exported = sample.scan(f"s3://registry-exports{prefix}")

    assert exported.location.startswith(f"s3://registry-exports{prefix.rstrip('/')}/AWSDynamoDB/")
    assert _sorted(Export(f"s3://registry-exports{prefix}").items()) == _sorted(sample_items())
    summary = json.load(
        bucket.Object(f"{exported.location.partition('exports/')[2]}/manifest-summary.json").get()["Body"]
    )
    assert (summary["s3Bucket"], summary["s3Prefix"]) == ("registry-exports", prefix.strip("/") or None)


def test_the_summary_comes_last_so_that_an_export_in_a_bucket_is_whole_or_none(
    sample: _Table, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[str] = []
    original = BucketSink.put

    def recording(sink: BucketSink, key: str, body: Any) -> str:
        put.append(key.rpartition("/")[2])
        return original(sink, key, body)

    monkeypatch.setattr(BucketSink, "put", recording)
    sample.scan(f"s3://{bucket.name}")

    assert put[0].endswith(".json.gz")
    assert put[1:] == ["manifest-files.md5", "manifest-files.json", "manifest-summary.md5", "manifest-summary.json"]


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there_is_named(sample: _Table) -> None:
    with pytest.raises(ExportError, match=r"s3://nobodys-bucket/AWSDynamoDB/.*: cannot be written: .*NoSuchBucket"):
        sample.scan("s3://nobodys-bucket")


@pytest.mark.usefixtures("bucket")
def test_an_endpoint_of_s3_that_is_none_is_told(sample: _Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nowhere")
    with pytest.raises(ExportError, match="s3://registry-exports: Invalid endpoint: nowhere"):
        sample.scan("s3://registry-exports")


def test_a_place_without_a_bucket_is_refused(sample: _Table) -> None:
    with pytest.raises(ExportError, match="s3:///daily: names no bucket; write s3://BUCKET/PREFIX"):
        sample.scan("s3:///daily")


# ── by DynamoDB, as moto plays it ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def recoverable(bucket: Any, moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A table in moto, with point-in-time recovery; gives a client."""
    assert bucket.name == "registry-exports"
    monkeypatch.setattr(table_export, "_FIRST_WAIT", 0.0)
    client = boto3.client("dynamodb", endpoint_url=moto_server)
    RegistryTable(client, "tenantgate-registry").init()
    client.put_item(TableName="tenantgate-registry", Item=attributes(sample_items()[0]))
    yield client
    client.update_table(TableName="tenantgate-registry", DeletionProtectionEnabled=False)
    client.delete_table(TableName="tenantgate-registry")
    client.close()


@pytest.mark.usefixtures("recoverable")
def test_the_command_follows_the_export_and_prints_where_it_is() -> None:
    ended = _run("registry", "export", "--to", "s3://registry-exports/daily", "--json")
    told = json.loads(ended.stdout)

    assert ended.exit_code == 0, ended.output
    assert told["location"] == f"s3://registry-exports/daily/AWSDynamoDB/{told['arn'].rpartition('/')[2]}"
    assert told["items"] == 1
    assert ended.stderr.startswith("DynamoDB exports tenantgate-registry to s3://registry-exports/daily/AWSDynamoDB/")


@pytest.mark.usefixtures("recoverable")
def test_an_export_whose_manifest_is_missing_is_refused_by_the_build(tmp_path: Path) -> None:
    _run("registry", "export", "--to", "s3://registry-exports/daily")
    built = _run("bundle", "build", "--export", "s3://registry-exports/daily", "--out", tmp_path / "bundle.tar.gz")

    assert built.exit_code == 2
    assert "no export here: there is no manifest-summary.json" in built.stderr


@pytest.mark.usefixtures("recoverable")
def test_an_export_that_fails_is_told_with_the_reason() -> None:
    ended = _run("registry", "export", "--to", "s3://nobodys-bucket/daily")

    assert ended.exit_code == 2
    assert "failed: S3NoSuchBucket: The specified bucket does not exist" in ended.stderr


def test_without_point_in_time_recovery_the_remedy_is_told(recoverable: Any) -> None:
    recoverable.update_continuous_backups(
        TableName="tenantgate-registry", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )
    ended = _run("registry", "export", "--to", "s3://registry-exports/daily")

    assert ended.exit_code == 2
    assert (
        "has no point-in-time recovery, by which DynamoDB exports; `tenantgate registry init` turns it on"
        in ended.stderr
    )


@pytest.mark.usefixtures("recoverable")
def test_an_incremental_export_is_asked_for() -> None:
    ended = _run("registry", "export", "--to", "s3://registry-exports/daily", *WINDOW_OPTIONS)

    assert ended.exit_code == 0, ended.output


def test_an_interrupt_leaves_the_export_alone_and_says_how_to_find_it(
    recoverable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table_export, "follow_export", interrupt)
    ended = _run("registry", "export", "--to", "s3://registry-exports/daily")
    arn = ended.stderr.split()[-1]

    assert ended.exit_code == 130
    assert (
        "The export goes on without this command. To look at it: aws dynamodb describe-export --export-arn "
        in ended.stderr
    )
    assert recoverable.describe_export(ExportArn=arn)["ExportDescription"]["S3Prefix"] == "daily"


_MISUSES: dict[str, tuple[list[str], str]] = {
    "to a directory": (
        ["--to", "exports"],
        "DynamoDB exports to s3://BUCKET/PREFIX; add --scan to write to a directory",
    ),
    "to no bucket": (["--to", "s3:///daily"], "names no bucket"),
    "of a window without an end": (["--to", "s3://b", *WINDOW_OPTIONS[:2]], "go together"),
    "of a window without a beginning": (["--to", "s3://b", *WINDOW_OPTIONS[2:]], "go together"),
    "of a window by a scan": (["--to", "s3://b", "--scan", *WINDOW_OPTIONS], "--scan reads the whole table"),
    "of a moment that is none": (["--to", "s3://b", "--incremental-from", "now"], "'now' is not a moment such as"),
    "of a moment without a zone": (
        ["--to", "s3://b", "--incremental-from", "2026-11-24T00:00:00"],
        "'2026-11-24T00:00:00' is not a moment such as 2026-11-24T00:00:00Z",
    ),
    "of a window that is too short": (
        ["--to", "s3://b", *WINDOW_OPTIONS[:3], "2026-11-24T00:14:59Z"],
        "an incremental export lasts from 15 minutes to 24 hours; this one would last 0:14:59",
    ),
    "of a window that is too long": (["--to", "s3://b", *WINDOW_OPTIONS[:3], "2026-11-25T00:00:01Z"], "1 day, 0:00:01"),
    "of a window that ends first": (["--to", "s3://b", *WINDOW_OPTIONS[:3], "2026-11-23T23:00:00Z"], "24 hours"),
    "of parts of seconds": (["--to", "s3://b", *WINDOW_OPTIONS[:3], "2026-11-24T01:00:00.5Z"], "whole seconds"),
}


@pytest.mark.parametrize(("options", "words"), _MISUSES.values(), ids=_MISUSES)
def test_an_export_is_refused(options: list[str], words: str) -> None:
    ended = _run("registry", "export", *options, "--endpoint-url", "http://127.0.0.1:1")

    assert ended.exit_code == 2
    assert words in " ".join(ended.stderr.split())


@pytest.mark.parametrize("options", [["--to", "s3://b"], ["--to", "exports", "--scan"]], ids=["export", "scan"])
def test_a_dynamodb_out_of_reach_is_an_error_in_words(options: list[str]) -> None:
    ended = _run("registry", "export", *options, "--endpoint-url", "http://127.0.0.1:1")

    assert ended.exit_code == 2
    assert ended.stderr.startswith("tenantgate: table tenantgate-registry: Could not connect to the endpoint URL")


@pytest.mark.parametrize("length", [timedelta(minutes=15), timedelta(hours=24)], ids=str)
def test_the_shortest_and_the_longest_window_are_taken(length: timedelta) -> None:
    assert Window(START, START + length).fault() is None


# ── by DynamoDB, as its API is documented ───────────────────────────────────────────────────────────────────────────────

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/registry"


class _FakeClient:
    """DynamoDB's part in an export: gives one status after the other, and takes down what it is asked."""

    def __init__(self, *statuses: str) -> None:
        self._statuses = iter(statuses)
        self.requests: list[dict[str, Any]] = []

    def describe_table(self, **_: Any) -> dict[str, Any]:
        return {"Table": {"TableArn": ARN}}

    def export_table_to_point_in_time(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        return self.describe_export()

    def describe_export(self, **_: Any) -> dict[str, Any]:
        described = {"ExportArn": f"{ARN}/export/1", "S3Bucket": "b", "ExportStatus": next(self._statuses)}
        return {"ExportDescription": described}


def test_a_window_is_asked_for_in_the_words_of_the_api() -> None:
    client = _FakeClient("IN_PROGRESS")
    start_export(client, "registry", "b", "daily", WINDOW)
    (request,) = client.requests
    token = request.pop("ClientToken")

    assert len(token) == 36
    assert request == {
        "TableArn": ARN,
        "S3Bucket": "b",
        "S3Prefix": "daily",
        "ExportFormat": "DYNAMODB_JSON",
        "ExportType": "INCREMENTAL_EXPORT",
        "IncrementalExportSpecification": {
            "ExportFromTime": WINDOW.begin,
            "ExportToTime": WINDOW.end,
            "ExportViewType": "NEW_AND_OLD_IMAGES",
        },
    }


def _token(prefix: str, window: Window | None) -> str:
    client = _FakeClient("IN_PROGRESS")
    start_export(client, "registry", "b", prefix, window)
    return str(client.requests[0]["ClientToken"])


def test_the_same_window_is_the_same_request_in_whatever_time_zone() -> None:
    zone = datetime.fromisoformat("2026-11-24T01:00:00+01:00").tzinfo
    elsewhere = Window(*(moment.astimezone(zone) for moment in WINDOW))

    assert _token("daily", WINDOW) == _token("daily", WINDOW) == _token("daily", elsewhere)


def test_another_window_or_place_and_every_full_export_is_another_request() -> None:
    other = Window(START, START + timedelta(hours=2))
    tokens = [_token("daily", WINDOW), _token("weekly", WINDOW), _token("daily", other)]
    tokens += [_token("daily", None), _token("daily", None)]

    assert len({*tokens}) == len(tokens)


def test_a_window_whose_export_failed_is_asked_for_anew() -> None:
    client = _FakeClient("FAILED", "IN_PROGRESS")

    assert start_export(client, "registry", "b", "", WINDOW).status == "IN_PROGRESS"
    assert len({request["ClientToken"] for request in client.requests}) == 2
    assert "S3Prefix" not in client.requests[0]


def test_an_export_is_looked_at_less_and_less_often_until_it_is_there() -> None:
    client = _FakeClient(*["IN_PROGRESS"] * 12, "COMPLETED")
    waits: list[float] = []
    told: list[TableExport] = []
    started = start_export(client, "registry", "b", "")
    ended = follow_export(client, "registry", started, told.append, waits.append)

    assert (ended.status, ended.location) == ("COMPLETED", "s3://b/AWSDynamoDB/1")
    assert [seen.status for seen in told] == ["IN_PROGRESS"] * 12 + ["COMPLETED"]
    assert waits[0] == 2
    assert all(one <= other <= 30 for one, other in itertools.pairwise(waits))
    assert waits[-1] == 30


def test_an_export_that_is_there_already_is_not_waited_for() -> None:
    def never(_seconds: float) -> None:
        raise AssertionError

    client = _FakeClient("COMPLETED")
    started = start_export(client, "registry", "b", "", WINDOW)

    assert follow_export(client, "registry", started, wait=never).status == "COMPLETED"


def test_a_failure_without_a_reason_is_a_failure() -> None:
    client = _FakeClient("IN_PROGRESS", "FAILED")
    started = start_export(client, "registry", "b", "")
    with pytest.raises(TableError, match=f"table registry: the export {ARN}/export/1 failed: no reason is given"):
        follow_export(client, "registry", started, wait=lambda _seconds: None)


def _raising(code: str) -> Callable[..., Any]:
    def raised(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "said DynamoDB"}}, "ExportTableToPointInTime")

    return raised


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InvalidExportTimeException", "does not reach back so far, or the time is still to come"),
        ("LimitExceededException", "has as many exports at once as DynamoDB allows"),
        ("TableNotFoundException", "does not exist here"),
        ("ExportConflictException", "table registry: ExportTableToPointInTime: ExportConflictException: said DynamoDB"),
        ("AccessDeniedException", "AccessDeniedException: said DynamoDB"),
    ],
)
def test_an_answer_of_dynamodb_is_told_in_words(code: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _FakeClient()
    monkeypatch.setattr(client, "export_table_to_point_in_time", _raising(code))
    with pytest.raises(TableError) as failed:
        start_export(client, "registry", "b", "")

    assert words in str(failed.value)
    assert "said DynamoDB" in str(failed.value)
