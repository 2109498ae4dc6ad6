"""What the commands on the table have in common: which table, which item, and how it is told that there is nothing."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from sidecar.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.registry.edits import Key
    from sidecar.registry.table import RegistryTable

SHARED = "SHARED"
USERS, AGENTS, POLICIES = "USER", "AGENT", "POLICY"
_KINDS = {"policy": POLICIES, "user": USERS, "agent": AGENTS}


class Place(NamedTuple):
    """Which table, and where: what the options of a command say."""

    table: str
    endpoint_url: str | None
    region: str | None


def table_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which table, and where it is; the command gets them as one ``place``."""

    @wraps(command)
    def packed(*, table: str, endpoint_url: str | None, region: str | None, **options: Any) -> None:
        command(place=Place(table, endpoint_url, region), **options)

    packed = click.option("--region", help="AWS region of the table. [default: as any AWS SDK finds it]")(packed)
    packed = click.option("--endpoint-url", metavar="URL", help="Where DynamoDB is, if not at AWS.")(packed)
    return click.option("--table", default="tenantgate-registry", show_default=True, help="Name of the table.")(packed)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
type_option = click.option(
    "--type", "resource_type", default="TOOL", show_default=True, help="Type of the resource, where it is not a tool."
)


@contextmanager
def open_table(place: Place) -> Iterator[RegistryTable]:
    """Connect to the table for a while. Raises ``TableError``."""
    import boto3  # noqa: PLC0415 - half a second that --help does not need
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, NoRegionError  # noqa: PLC0415

    from sidecar.registry.table import RegistryTable  # noqa: PLC0415

    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"})
    try:
        client = boto3.session.Session().client(
            "dynamodb", endpoint_url=place.endpoint_url, region_name=place.region, config=config
        )
    except NoRegionError as fault:
        msg = f"table {place.table}: in which region? --region or AWS_DEFAULT_REGION says so"
        raise TableError(msg) from fault
    except (BotoCoreError, ValueError) as fault:  # ValueError: an endpoint that is no URL
        msg = f"table {place.table}: {fault}"
        raise TableError(msg) from fault
    try:
        yield RegistryTable(client, place.table)
    finally:
        client.close()


def locate(kind: str, name: str, tenant: str | None, resource_type: str) -> Key:
    """Give the key of the item that a command is about: KIND and ID, and --tenant unless it is the tenant itself."""
    if kind == "tenant":
        if tenant is not None:
            msg = "a tenant is named by its ID alone, without --tenant"
            raise click.UsageError(msg)
        return f"TENANT#{name}", "TENANT"
    if kind == "tool":
        return SHARED if tenant is None else f"TENANT#{tenant}", f"RESOURCE#{resource_type}#{name}"
    if tenant is None:
        msg = f"--tenant is missing: whose {kind} is {name!r}?"
        raise click.UsageError(msg)
    return f"TENANT#{tenant}", f"{_KINDS[kind]}#{name}"


def print_json(document: Any) -> None:
    """Print a document as JSON that can be edited."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def warn(message: str) -> None:
    """Tell what does not stop the command."""
    click.echo(f"warning: {message}", err=True)


def nothing(message: str) -> NoReturn:
    """End with exit status 1: what was asked for is not there."""
    click.echo(message, err=True)
    sys.exit(1)
