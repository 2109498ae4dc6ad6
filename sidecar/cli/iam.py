"""``tenantgate iam``: what is to be set up in AWS, written out."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.options import OrderedGroup, read_settings, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.credentials.iam import Role
    from sidecar.credentials.templates import Document
    from sidecar.settings import CredentialSettings


@click.group(cls=OrderedGroup)
def iam() -> None:
    """Write the IAM policies that keep tenants apart in AWS.

    Nothing is changed in AWS: the documents go to standard output. Which role they are for is said by --role, or by the setting
    credentials.role_arn.
    """


class _Resource(click.ParamType[Any]):
    """A TYPE or TYPE=ID."""

    name = "TYPE[=ID]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | None]:  # noqa: ARG002 - click's
        name, separator, resource_id = value.partition("=")
        return name, resource_id if separator else None


def _role_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which role is meant; the command gets it, and the settings for credentials."""

    @wraps(command)
    def found(*, role: str | None, config: Path | None, flags: tuple[str, ...], **options: Any) -> None:
        from sidecar.credentials.iam import Role  # noqa: PLC0415 - not needed for --help

        settings = read_settings(config, flags).credentials
        arn = role or settings.role_arn
        if arn is None:
            msg = "Which role? Say --role ARN, or set credentials.role_arn"
            raise click.UsageError(msg)
        command(role=Role.parse(arn), settings=settings, **options)

    help_text = "The role that is assumed for every tenant. [default: credentials.role_arn]"
    return click.option("--role", metavar="ARN", help=help_text)(settings_options(found))


def _trust_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say who may assume the role; the command gets the trust policy."""

    @wraps(command)
    def written(
        *,
        principals: tuple[str, ...],
        provider: str | None,
        audiences: tuple[str, ...],
        settings: CredentialSettings,
        **more: Any,
    ) -> None:
        from sidecar.credentials.iam import trust_principals, trust_provider  # noqa: PLC0415 - not needed for --help

        if bool(principals) == (provider is not None) or bool(audiences) != (provider is not None):
            msg = "Who assumes the role? Say --principal ARN, or --provider ARN with --audience"
            raise click.UsageError(msg)
        if provider is None:
            trust = trust_principals(principals, settings.tenant_tag)
        else:
            trust = trust_provider(provider, audiences, settings.tenant_tag)
        command(trust=trust, settings=settings, **more)

    for option in (
        click.option("--audience", "audiences", multiple=True, help="What its tokens must be meant for. Repeatable."),
        click.option("--provider", metavar="ARN", help="The OIDC provider whose tokens assume the role."),
        click.option(
            "--principal",
            "principals",
            metavar="ARN",
            multiple=True,
            help="The role or user that a sidecar runs as, and assumes the role by. Repeatable.",
        ),
    ):
        written = option(written)
    return written


def _permission_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what sessions may reach; the command gets the permission policy."""

    @wraps(command)
    def written(
        *,
        allowed: tuple[tuple[str, str | None], ...],
        region: str | None,
        role: Role,
        settings: CredentialSettings,
        **more: Any,
    ) -> None:
        from sidecar.credentials.templates import load_templates  # noqa: PLC0415 - not needed for --help

        if (region := region or settings.region) is None:
            msg = "Where are the resources? Say --region, or set credentials.region"
            raise click.UsageError(msg)
        resources: dict[str, list[str]] = {}
        for name, resource_id in allowed:
            resources.setdefault(name, []).extend([] if resource_id is None else [resource_id])
        permissions = load_templates(settings.templates).permission_policy(
            resources, tenant_tag=settings.tenant_tag, region=region, account=role.account, partition=role.partition
        )
        command(permissions=permissions, role=role, settings=settings, **more)

    for option in (
        click.option("--region", help="Where the resources are. [default: credentials.region]"),
        click.option(
            "--allow",
            "allowed",
            type=_Resource(),
            multiple=True,
            required=True,
            help="A type of resource, or one resource, that sessions reach. Repeatable; `iam templates` shows the types.",
        ),
    ):
        written = option(written)
    return written


@iam.command()
@settings_options
def templates(config: Path | None, flags: tuple[str, ...]) -> None:
    """Show what credentials are good for: the statements by type of resource and action.

    The output is a file for the setting credentials.templates: save it, change it, and set that.
    """
    from sidecar.credentials.templates import BUILT_IN, load_templates  # noqa: PLC0415 - not needed for --help

    settings = read_settings(config, flags).credentials
    load_templates(settings.templates)
    click.echo(Path(settings.templates or BUILT_IN).read_text(), nl=False)


@iam.command()
@_role_options
@_trust_options
def trust(trust: Document, **_: Any) -> None:
    """Write the trust policy of the role: only sessions that carry a tenant, and that alone."""
    _show(trust)


@iam.command()
@_role_options
@_permission_options
def permissions(permissions: Document, **_: Any) -> None:
    """Write the permission policy of the role: every tenant reaches its own."""
    _show(permissions)


@iam.command()
@_role_options
def caller(role: Role, **_: Any) -> None:
    """Write what the sidecar's own role needs to assume the role."""
    from sidecar.credentials.iam import caller_policy  # noqa: PLC0415 - not needed for --help

    _show(caller_policy(role))


@iam.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["cloudformation", "terraform"]),
    default="cloudformation",
    show_default=True,
    help="What deploys it; `terraform` is for a file named .tf.json.",
)
@_role_options
@_trust_options
@_permission_options
def role(form: str, role: Role, trust: Document, permissions: Document, settings: CredentialSettings) -> None:
    """Write the whole role, with both policies, as a template to deploy."""
    from sidecar.credentials.iam import cloudformation, terraform  # noqa: PLC0415 - not needed for --help

    template = cloudformation if form == "cloudformation" else terraform
    _show(template(role, trust, permissions, settings.duration_seconds))


def _show(policy: Document) -> None:
    click.echo(json.dumps(policy, indent=2))
