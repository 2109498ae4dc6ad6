"""``tenantgate exchange``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from sidecar.cli.options import address_options, bearer, connected, token_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.gen.tenantgate.v1.credential_service_pb2 import Credentials, ExchangeTokenResponse


@click.command()
@click.argument("resource_id", metavar="RESOURCE")
@click.option("--type", "resource_type", required=True, help="Type of the resource, such as MEMORY.")
@click.option("--action", required=True, help="What is done to the resource, such as read.")
@token_option
@click.option("--duration", type=float, help="How long the credentials should be good for, seconds.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "env", "credential-process"]),
    default="table",
    show_default=True,
    help="What to print. `table` leaves out what is secret.",
)
@address_options
def exchange(
    resource_id: str,
    *,
    resource_type: str,
    action: str,
    token: str | None,
    duration: float | None,
    form: str,
    address: str | None,
    timeout: float,
) -> None:
    """Get AWS credentials for RESOURCE in exchange for a token.

    For example: `tenantgate exchange acme-0123456789 --type MEMORY --action read --token-file alice.jwt`

    Exit status: 0 ALLOW, 1 DENY, 2 no decision or no credentials.
    """
    from sidecar.gen.tenantgate.v1 import credential_service_pb2 as pb  # noqa: PLC0415 - not needed for --help
    from sidecar.gen.tenantgate.v1 import decision_pb2  # noqa: PLC0415
    from sidecar.gen.tenantgate.v1.credential_service_pb2_grpc import CredentialServiceStub  # noqa: PLC0415

    if token is None:
        raise click.MissingParameter(param_hint="'--token-file'", param_type="option")
    request = pb.ExchangeTokenRequest(
        resource=decision_pb2.Resource(type=resource_type, id=resource_id), action=decision_pb2.Action(name=action)
    )
    if duration is not None:
        request.duration.FromMicroseconds(round(duration * 1e6))
    with connected(address) as channel:
        response = CredentialServiceStub(channel).ExchangeToken(request, timeout=timeout, metadata=bearer(token))
    _FORMS[form](response)
    sys.exit(0 if response.HasField("credentials") else 1)


def _show(response: ExchangeTokenResponse) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --help
    from rich.table import Table  # noqa: PLC0415

    from sidecar.cli.words import effect_text, words  # noqa: PLC0415
    from sidecar.gen.tenantgate.v1 import decision_pb2 as pb  # noqa: PLC0415

    decision, credentials = response.decision, response.credentials
    console = Console(highlight=False)
    console.print(effect_text(decision), f"[bold]{words(pb.DecisionCode, decision.code)}[/bold]", markup=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("reason", decision.reason)
    if decision.policy_id:
        table.add_row("rule", f"{decision.rule_id} of {decision.policy_id}" if decision.rule_id else decision.policy_id)
    table.add_row("decision", decision.decision_id)
    if response.HasField("credentials"):
        table.add_row("key", credentials.access_key_id)
        table.add_row("role", credentials.assumed_role_arn)
        table.add_row("until", credentials.expiration.ToJsonString())
    console.print(table)


def _print_json(response: ExchangeTokenResponse) -> None:
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415 - not needed for --help

    click.echo(MessageToJson(response, preserving_proto_field_name=True))


def _print_env(credentials: Credentials) -> None:
    """Print what a shell takes in with ``eval``."""
    from shlex import quote  # noqa: PLC0415 - not needed for --help

    for name, value in (
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key),
        ("AWS_SESSION_TOKEN", credentials.session_token),
        ("AWS_CREDENTIAL_EXPIRATION", credentials.expiration.ToJsonString()),
    ):
        click.echo(f"export {name}={quote(value)}")


def _print_process(credentials: Credentials) -> None:
    """Print what AWS's SDKs read from a ``credential_process``.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
    """
    document = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": credentials.expiration.ToJsonString(),
    }
    click.echo(json.dumps(document))


def _or_reason(print_them: Callable[[Credentials], None]) -> Callable[[ExchangeTokenResponse], None]:
    """Print credentials, or why there are none where it does not get in the way of who reads them."""

    def print_or_tell(response: ExchangeTokenResponse) -> None:
        if response.HasField("credentials"):
            print_them(response.credentials)
        else:
            decision = response.decision
            click.echo(f"tenantgate: DENY: {decision.reason} (decision {decision.decision_id})", err=True)

    return print_or_tell


_FORMS: dict[str, Callable[[ExchangeTokenResponse], None]] = {
    "table": _show,
    "json": _print_json,
    "env": _or_reason(_print_env),
    "credential-process": _or_reason(_print_process),
}
