"""DynamoDB Local as a container: the registry's table works in it as in AWS, streams included."""

from __future__ import annotations

from contextlib import closing

from sidecar.registry.edits import Change
from sidecar.registry.table import RegistryTable
from tests.support.containers import DYNAMODB, NOBODY, confined, published, run_in, until_healthy
from tests.support.dynamodb import DynamoDb


def test_the_registry_is_kept_in_a_container_that_nobody_runs() -> None:
    with until_healthy(published(confined(DYNAMODB), 8000)) as container:
        dynamodb = DynamoDb(f"http://127.0.0.1:{container.get_exposed_port(8000)}")
        with closing(dynamodb.client):
            table = RegistryTable(dynamodb.client, "tenantgate-registry")
            table.init()
            table.write([Change({"pk": "TENANT#acme", "sk": "TENANT", "status": "ACTIVE"})])
            described = dynamodb.client.describe_table(TableName="tenantgate-registry")["Table"]
            stored = dynamodb.client.scan(TableName="tenantgate-registry")["Items"]
        assert run_in(container, "id", "-u") == (0, f"{NOBODY}\n")

    assert described["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert [item["status"]["S"] for item in stored] == ["ACTIVE"]
