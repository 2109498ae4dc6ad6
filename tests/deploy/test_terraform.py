"""The Terraform example parses, refers to what is there, and makes what the program and its roles need, and no more.

Terraform's own validation needs the schemas of the AWS provider, which only its registry has. In its place, what the example says
is given to what knows it: DynamoDB Local, the program, the models of AWS's APIs, and the simulator of IAM.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pytest
from botocore.validate import ParamValidator
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from msgspec import UNSET

from sidecar.bundles.build import Recipe
from sidecar.bundles.publish import S3Publisher
from sidecar.bundles.watch import Timing, Watcher
from sidecar.cli import main
from sidecar.registry.attribute_values import typed
from sidecar.registry.edits import Change
from sidecar.registry.table import RegistryTable
from tests.support import dynamodb, iam
from tests.support.deploying import DEPLOY, terraform_blocks
from tests.support.dynamodb import CREDENTIALS, JARS, running_dynamodb
from tests.support.iam import ACCOUNT, Request, simulate
from tests.support.processes import POLICIES
from tests.support.registries import sample_items

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.dynamodb import DynamoDb

ISSUER = "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}"
TABLE_ARN = f"arn:aws:dynamodb:eu-west-1:{ACCOUNT}:table/tenantgate-registry"
BUCKET_ARN = "arn:aws:s3:::bundles"
DATA_KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/data"
RELEASE_KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/release"

# what AWS gives, and what is chosen where there is no default
GIVEN = {
    "aws_dynamodb_table.registry.arn": TABLE_ARN,
    "aws_s3_bucket.bundles.arn": BUCKET_ARN,
    "aws_kms_key.data.arn": DATA_KEY,
    "aws_kms_key.release.arn": RELEASE_KEY,
    "data.aws_partition.current.partition": "aws",
    "data.aws_caller_identity.current.account_id": ACCOUNT,
    "var.bucket": "bundles",
    "var.oidc_provider": PROVIDER,
    "local.issuer": ISSUER,
}

# what a key has whose policy is not said: the account decides, by the policies of its roles
KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "kms:*",
            "Resource": "*",
        }
    ],
}

without_simulator = pytest.mark.skipif(iam.why_missing() is not None, reason=iam.why_missing() or "")


@cache
def blocks() -> dict[str, dict[str, Any]]:
    """Give the blocks of the example, by what they are referred to by."""
    return terraform_blocks(DEPLOY / "terraform")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    else:
        yield str(value)


def _resolve(value: Any) -> Any:
    """Put values in place of references."""
    if isinstance(value, list):
        return [_resolve(entry) for entry in value]

    def found(reference: re.Match[str]) -> str:
        name = reference[1]
        if name in GIVEN:
            return GIVEN[name]
        block = blocks()[name]
        return str(_resolve(block["value"] if name.startswith("local.") else block["default"]))

    return re.sub(r"\$\{([^}]*)\}", found, value) if isinstance(value, str) else value


def policy(name: str) -> dict[str, Any]:
    """Give the JSON that Terraform makes of a policy document."""
    statements = []
    for block in blocks()[f"data.aws_iam_policy_document.{name}"]["statement"]:
        statement: dict[str, Any] = {
            "Sid": block["sid"],
            "Effect": block.get("effect", "Allow"),
            "Action": block["actions"],
        }
        if "resources" in block:
            statement["Resource"] = _resolve(block["resources"])
        for principals in block.get("principals", []):
            who = _resolve(principals["identifiers"])
            statement["Principal"] = "*" if principals["type"] == "*" else {principals["type"]: who}
        conditions: dict[str, dict[str, Any]] = defaultdict(dict)
        for condition in block.get("condition", []):
            conditions[condition["test"]][_resolve(condition["variable"])] = _resolve(condition["values"])
        if conditions:
            statement["Condition"] = dict(conditions)
        statements.append(statement)
    return {"Version": "2012-10-17", "Statement": statements}


def test_every_reference_leads_somewhere_and_everything_declared_is_used() -> None:
    named = set(
        re.findall(
            r"\b((?:data\.)?aws_[a-z_]+\.[a-z_]+|var\.[a-z_]+|local\.[a-z_]+)", " ".join(_texts([*blocks().values()]))
        )
    )
    assert named - blocks().keys() == set()
    internal = {name for name in blocks() if name.startswith(("var.", "local.", "data."))}
    assert internal - named == set()


def test_every_variable_and_output_says_what_it_is() -> None:
    assert all(b["description"] for name, b in blocks().items() if name.startswith(("var.", "output.")))


def test_the_table_has_the_name_that_the_program_looks_for() -> None:
    helped = CliRunner().invoke(main, ["bundle", "watch", "--help"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert blocks()["var.table"]["default"] in helped.stdout.replace("\n", "").replace(" ", "")


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def database() -> Iterator[DynamoDb]:
    """A DynamoDB of the tests' own."""
    if missing := dynamodb.why_missing():
        pytest.skip(missing)
    with running_dynamodb(JARS) as running:
        yield running


@pytest.fixture(scope="module")
def table(database: DynamoDb) -> RegistryTable:
    """The table of the example, made as Terraform would make it."""
    block = blocks()["aws_dynamodb_table.registry"]
    name = _resolve(block["name"])

    def keys(of: dict[str, Any]) -> list[dict[str, str]]:
        return [
            {"AttributeName": of["hash_key"], "KeyType": "HASH"},
            {"AttributeName": of["range_key"], "KeyType": "RANGE"},
        ]

    database.client.create_table(
        TableName=name,
        BillingMode=block["billing_mode"],
        KeySchema=keys(block),
        AttributeDefinitions=[
            {"AttributeName": attribute["name"], "AttributeType": attribute["type"]} for attribute in block["attribute"]
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index["name"],
                "KeySchema": keys(index),
                "Projection": {"ProjectionType": index["projection_type"]},
            }
            for index in block["global_secondary_index"]
        ],
        StreamSpecification={"StreamEnabled": block["stream_enabled"], "StreamViewType": block["stream_view_type"]},
        DeletionProtectionEnabled=block["deletion_protection_enabled"],
    )
    return RegistryTable(database.client, name)


def test_the_table_is_the_one_that_the_program_would_make(table: RegistryTable) -> None:
    assert table.init() == {
        "table": "exists",
        "inverted index": "on",
        "stream": "on",
        "deletion protection": "on",
        "point-in-time recovery": "not available here",
    }


def test_the_table_can_be_restored_and_is_encrypted_with_the_key_of_the_data() -> None:
    block = blocks()["aws_dynamodb_table.registry"]
    assert block["point_in_time_recovery"] == [{"enabled": True}]
    assert block["server_side_encryption"] == [{"enabled": True, "kms_key_arn": "${aws_kms_key.data.arn}"}]


# ── the bucket and the keys ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bucket_keeps_versions_for_a_while_encrypts_and_is_not_public() -> None:
    bucket = "${aws_s3_bucket.bundles.id}"
    parts = {name: block for name, block in blocks().items() if block.get("bucket") == bucket}
    assert len(parts) == 6
    block = parts["aws_s3_bucket_public_access_block.bundles"]
    assert {name: value for name, value in block.items() if name != "bucket"} == dict.fromkeys(
        ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"), True
    )
    assert parts["aws_s3_bucket_versioning.bundles"]["versioning_configuration"] == [{"status": "Enabled"}]
    (rule,) = parts["aws_s3_bucket_lifecycle_configuration.bundles"]["rule"]
    assert rule["status"] == "Enabled"
    assert rule["noncurrent_version_expiration"][0]["noncurrent_days"] >= 1
    (rule,) = parts["aws_s3_bucket_server_side_encryption_configuration.bundles"]["rule"]
    assert rule["apply_server_side_encryption_by_default"] == [
        {"sse_algorithm": "aws:kms", "kms_master_key_id": "${aws_kms_key.data.arn}"}
    ]
    (rule,) = parts["aws_s3_bucket_ownership_controls.bundles"]["rule"]
    assert rule == {"object_ownership": "BucketOwnerEnforced"}


def test_the_signing_key_is_one_that_the_signatures_of_bundles_are_made_with() -> None:
    block = blocks()["aws_kms_key.release"]
    model = botocore.session.get_session().get_service_model("kms")
    spec = model.shape_for("KeySpec")
    assert block["customer_master_key_spec"] in spec.enum  # type: ignore[attr-defined]  # of shapes of texts
    asked = {"KeySpec": block["customer_master_key_spec"], "KeyUsage": block["key_usage"]}
    shape = model.operation_model("CreateKey").input_shape
    assert shape is not None
    report = ParamValidator().validate(asked, shape)
    assert not report.has_errors(), report.generate_report()
    # ES256, as `bundle keygen` makes them, and docs/publishing.md signs with ECDSA_SHA_256 and alias/release
    assert asked == {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}
    assert blocks()["aws_kms_alias.release"]["name"] == "alias/release"


@without_simulator
def test_the_bucket_answers_nobody_without_tls() -> None:
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

    def read(*, over_tls: bool) -> str:
        request = Request(
            action="s3:GetObject",
            resource=f"{BUCKET_ARN}/registry/base.tar.gz",
            context={"aws:SecureTransport": str(over_tls).lower()},
            identity=everything,
            trust=policy("bundles"),
        )
        (verdict,) = simulate([request])
        return verdict.result

    assert (read(over_tls=True), read(over_tls=False)) == ("Allowed", "ExplicitlyDenied")


# ── the roles ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _results(identity: dict[str, Any], asked: dict[str, str]) -> dict[str, str]:
    requests = [
        Request(
            action=action,
            resource=resource,
            context={},
            identity=identity,
            trust=KEY_POLICY if action.startswith("kms:") else UNSET,
        )
        for action, resource in asked.items()
    ]
    return dict(zip(asked, (verdict.result for verdict in simulate(requests)), strict=True))


@without_simulator
def test_the_publisher_may_do_what_the_watcher_does_and_cannot_change_the_registry(
    database: DynamoDb, table: RegistryTable, tmp_path: Path
) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        s3: Any = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **CREDENTIALS)  # type: ignore[call-overload]
        s3.create_bucket(Bucket="bundles")
        streams: Any = boto3.client("dynamodbstreams", endpoint_url=database.url, **CREDENTIALS)  # type: ignore[call-overload]
        client: Any = boto3.client("dynamodb", endpoint_url=database.url, **CREDENTIALS)  # type: ignore[call-overload]
        done: set[str] = set()
        for each in (s3, streams, client):
            each.meta.events.register(
                "before-call", lambda model, **_: done.add(f"{model.service_model.endpoint_prefix}:{model.name}")
            )
        table.write([Change(item) for item in sample_items()])
        watched = Watcher(
            table.name,
            client,
            streams,
            tmp_path,
            Recipe(POLICIES, None),
            timing=Timing(heartbeat=0.0, lag=0.0),
            published=S3Publisher(s3, "s3://bundles/registry"),
        )
        watched.start()
        table.client.put_item(
            TableName=table.name, Item=typed({"pk": "TENANT#Tenant-A", "sk": "TENANT", "status": "SUSPENDED"})
        )
        watched.step()
        for each in (s3, streams, client):
            each.close()
    finally:
        server.stop()
    resources = {
        "dynamodb": TABLE_ARN,
        "streams.dynamodb": f"{TABLE_ARN}/stream/2026-11-24T00:00:00.000",
        "s3": f"{BUCKET_ARN}/registry/base.tar.gz",
    }
    asked = {}
    for call in done:
        service, _, operation = call.rpartition(":")
        asked[f"{service.removeprefix('streams.')}:{operation}"] = resources[service]
    assert {"s3:PutObject", "dynamodb:GetRecords", "dynamodb:Scan", "dynamodb:DescribeTable"} <= asked.keys()
    # S3 asks KMS for the keys of objects in the name of who writes them, and the --sign-command asks it to sign
    asked |= {"kms:GenerateDataKey": DATA_KEY, "kms:Decrypt": DATA_KEY, "kms:Sign": RELEASE_KEY}
    assert _results(policy("publisher"), asked) == dict.fromkeys(asked, "Allowed")
    beyond = {
        "dynamodb:PutItem": TABLE_ARN,
        "dynamodb:DeleteItem": TABLE_ARN,
        "dynamodb:UpdateTable": TABLE_ARN,
        "s3:DeleteObject": f"{BUCKET_ARN}/registry/base.tar.gz",
        "s3:PutBucketPolicy": BUCKET_ARN,
        "sts:AssumeRole": f"arn:aws:iam::{ACCOUNT}:role/tenant-data",
        "kms:ScheduleKeyDeletion": RELEASE_KEY,
    }
    assert _results(policy("publisher"), beyond) == dict.fromkeys(beyond, "ImplicitlyDenied")


@without_simulator
def test_the_sidecar_may_read_bundles_and_can_neither_write_nor_sign_them() -> None:
    bundle = f"{BUCKET_ARN}/registry/base.tar.gz"
    may = {"s3:GetObject": bundle, "s3:ListBucket": BUCKET_ARN, "kms:Decrypt": DATA_KEY}
    assert _results(policy("sidecar"), may) == dict.fromkeys(may, "Allowed")
    beyond = {
        "s3:PutObject": bundle,
        "s3:DeleteObject": bundle,
        "kms:Sign": RELEASE_KEY,
        "kms:GenerateDataKey": DATA_KEY,
        "dynamodb:GetItem": TABLE_ARN,
        "sts:AssumeRole": f"arn:aws:iam::{ACCOUNT}:role/tenant-data",
    }
    assert _results(policy("sidecar"), beyond) == dict.fromkeys(beyond, "ImplicitlyDenied")


def test_the_caller_policy_is_the_one_that_the_program_prints() -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:role/tenant-data"
    printed = CliRunner().invoke(main, ["iam", "caller", "--role", arn], catch_exceptions=False)
    assert policy("caller") == json.loads(printed.stdout)


def test_only_with_a_cluster_whose_service_account_is_the_sidecars_may_the_role_open_the_tenants_data() -> None:
    condition = "${local.cluster ? 1 : 0}"
    assert blocks()["local.cluster"]["value"] == "${var.oidc_provider != null}"
    assert blocks()["aws_iam_role_policy.caller"]["count"] == condition
    assert blocks()["data.aws_iam_policy_document.service_account"]["count"] == condition
    assert policy("service_account")["Statement"] == [
        {
            "Sid": "ServiceAccountOfTheCluster",
            "Effect": "Allow",
            "Action": ["sts:AssumeRoleWithWebIdentity"],
            "Principal": {"Federated": [PROVIDER]},
            "Condition": {
                "StringEquals": {
                    f"{ISSUER}:sub": ["system:serviceaccount:agents:agent"],
                    f"{ISSUER}:aud": ["sts.amazonaws.com"],
                }
            },
        }
    ]


def test_tasks_of_another_account_cannot_have_the_roles() -> None:
    (statement,) = policy("tasks")["Statement"]
    assert statement["Principal"] == {"Service": ["ecs-tasks.amazonaws.com"]}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": [ACCOUNT]}}
