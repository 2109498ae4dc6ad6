"""``tenantgate authorize``."""

from __future__ import annotations

import json
import sys
from datetime import date
from typing import TYPE_CHECKING, Any

import click
import yaml

from sidecar.cli.options import address_options, bearer, connected, token_option

if TYPE_CHECKING:
    from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest
    from sidecar.gen.tenantgate.v1.decision_pb2 import Decision


class _Object(click.ParamType[Any]):
    """A JSON object."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            read = json.loads(value) if isinstance(value, str) else value
        except ValueError as fault:
            self.fail(f"{value!r} is not JSON: {fault}", param, ctx)
        if not isinstance(read, dict):
            self.fail(f"{value!r} is not a JSON object", param, ctx)
        return read


class _Pair(click.ParamType[Any]):
    """A NAME=VALUE whose value is YAML: a number, a text, true, a list. A date stays the text that it is in JSON."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, separator, text = value.partition("=")
        if not separator:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        try:
            read = yaml.safe_load(text)
            return name, text if isinstance(read, date) else json.loads(json.dumps(read))
        except yaml.YAMLError as fault:
            self.fail(f"{text!r} is not YAML: {fault}", param, ctx)
        except (TypeError, ValueError) as fault:
            self.fail(f"{text!r} cannot be written as JSON: {fault}", param, ctx)


class _Actor(click.ParamType[Any]):
    """An AGENT or AGENT=SCOPE,SCOPE."""

    name = "AGENT[=SCOPES]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002 - click's
        from sidecar.gen.tenantgate.v1 import decision_pb2 as pb  # noqa: PLC0415 - not needed for --help

        agent, separator, scopes = value.partition("=")
        return pb.Actor(id=agent, scopes=pb.Scopes(values=filter(None, scopes.split(","))) if separator else None)


@click.command()
@click.argument("resource_id", metavar="RESOURCE")
@token_option
@click.option("--tenant", default="", help="The customer whose data is isolated.")
@click.option("--principal", default="", help="The agent that makes the call, such as agent:order-bot.")
@click.option("--subject", default="", help="The user for whom the agent acts.")
@click.option("--role", "roles", multiple=True, help="A role that the subject is known to have. Repeatable.")
@click.option("--scope", "scopes", multiple=True, help="A scope that was delegated. Repeatable.")
@click.option(
    "--via", "delegation", type=_Actor(), multiple=True, help="An earlier actor, outermost first. Repeatable."
)
@click.option("--type", "resource_type", default="TOOL", show_default=True, help="Type of the resource.")
@click.option("--action", default="invoke", show_default=True, help="What is done to the resource.")
@click.option("--arg", "pairs", type=_Pair(), multiple=True, help="One argument of the call. Repeatable.")
@click.option("--arguments", type=_Object(), default=dict, help="All arguments of the call.")
@click.option("--context", type=_Object(), default=dict, help="What else conditions may look at.")
@click.option("--subject-properties", type=_Object(), default=dict, help="Facts about the subject.")
@click.option("--resource-properties", type=_Object(), default=dict, help="Facts about the resource.")
@click.option("--accept", "accepts", multiple=True, help="A type of obligation that you carry out. Repeatable.")
@click.option("--tenant-header", help="Value of the x-tenant-id metadata, to see a mismatch.")
@click.option("--explain", is_flag=True, help="Show every rule that concerns the resource, and what became of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@address_options
def authorize(
    token: str | None,
    tenant_header: str | None,
    address: str | None,
    timeout: float,
    *,
    as_json: bool,
    **asked: Any,
) -> None:
    """Ask the sidecar whether RESOURCE may be used.

    tenantgate authorize agent:tool:refund-create --token-file alice.jwt --arg amount=120 --explain

    Who asks is what the token says; --tenant, --principal and the like may repeat it. Only a sidecar with identity.mode:
    asserted takes their word for it.

    Exit status: 0 ALLOW, 1 DENY, 2 no decision.
    """
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415 - not needed for --help

    from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub  # noqa: PLC0415
    from sidecar.gen.tenantgate.v1.decision_pb2 import EFFECT_ALLOW  # noqa: PLC0415

    metadata = [("x-tenant-id", tenant_header)] if tenant_header is not None else []
    metadata += bearer(token)
    with connected(address) as channel:
        response = AuthorizationServiceStub(channel).Authorize(_request(asked), timeout=timeout, metadata=metadata)
    decision = response.decision
    if as_json:
        click.echo(MessageToJson(decision, preserving_proto_field_name=True))
    else:
        _show(decision, explain=asked["explain"])
    sys.exit(0 if decision.effect == EFFECT_ALLOW else 1)


def _request(asked: dict[str, Any]) -> AuthorizeRequest:
    from sidecar.gen.tenantgate.v1 import decision_pb2 as pb  # noqa: PLC0415 - not needed for --help
    from sidecar.gen.tenantgate.v1.authorization_service_pb2 import AuthorizeRequest  # noqa: PLC0415

    request = AuthorizeRequest(
        identity=pb.Identity(
            tenant_id=asked["tenant"],
            principal=pb.Principal(id=asked["principal"]),
            subject=pb.Subject(id=asked["subject"], roles=asked["roles"]),
            delegation=asked["delegation"],
            scopes=asked["scopes"],
        ),
        resource=pb.Resource(type=asked["resource_type"], id=asked["resource_id"]),
        action=pb.Action(name=asked["action"]),
        accepted_obligations=asked["accepts"],
        explain=asked["explain"],
    )
    request.identity.subject.properties.update(asked["subject_properties"])
    request.resource.properties.update(asked["resource_properties"])
    request.arguments.update(asked["arguments"] | dict(asked["pairs"]))
    request.context.update(asked["context"])
    return request


def _show(decision: Decision, *, explain: bool) -> None:
    from rich import box  # noqa: PLC0415 - not needed for --help
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from sidecar.cli.words import age, effect_text, show_value, words  # noqa: PLC0415
    from sidecar.gen.tenantgate.v1 import decision_pb2 as pb  # noqa: PLC0415

    console = Console(highlight=False, markup=False)
    console.print(effect_text(decision), f"[bold]{words(pb.DecisionCode, decision.code)}[/bold]", markup=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("reason", decision.reason)
    if decision.policy_id:
        table.add_row("rule", f"{decision.rule_id} of {decision.policy_id}" if decision.rule_id else decision.policy_id)
    for obligation in decision.obligations:
        table.add_row(
            "obligation", f"{obligation.type} {show_value(obligation.parameters) if obligation.parameters else ''}"
        )
    table.add_row("revision", f"{decision.revision}, {age(decision.age)} old")
    table.add_row("decision", decision.decision_id)
    console.print(table)
    if not explain:
        return
    explanation = decision.explanation
    findings = Table("code", "reason", title="All that applies", title_justify="left", box=box.SIMPLE_HEAD)
    for finding in explanation.findings:
        findings.add_row(words(pb.DecisionCode, finding.code), finding.reason)
    console.print(findings)
    rules = Table(
        "policy", "rule", "effect", "verdict", "because", title="Rules", title_justify="left", box=box.SIMPLE_HEAD
    )
    for rule in explanation.rules:
        because = [f"not for these {name}" for name in rule.narrowed_by]
        for condition in rule.conditions:
            expected = show_value(condition.expected) if condition.HasField("expected") else ""
            source = f" (from {condition.expected_from})" if condition.expected_from else ""
            actual = show_value(condition.actual) if condition.HasField("actual") else "nothing"
            outcome = words(pb.ConditionResult, condition.result).lower()
            because.append(f"{condition.path} {condition.op} {expected}{source}: {outcome}, found {actual}")
        effect = words(pb.Effect, rule.effect)
        rules.add_row(rule.policy_id, rule.rule_id, effect, words(pb.RuleVerdict, rule.verdict), "\n".join(because))
    console.print(rules if explanation.rules else "No rule concerns this resource.")
    console.print("principal:", explanation.principal_id or "none")
    console.print("subject:", explanation.subject_id or "none")
    console.print("effective scopes:", ", ".join(explanation.effective_scopes) or "none")
    if explanation.HasField("weakest_hop"):
        weakest = explanation.weakest_hop
        console.print(f"weakest hop: {weakest.actor_id} (hop {weakest.hop}) lacks {', '.join(weakest.lacks)}")
    console.print("roles:", ", ".join(explanation.roles) or "none")
