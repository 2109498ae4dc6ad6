"""The command line: what it prints, and which exit status it ends with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from sidecar.cli import COMMANDS, main
from sidecar.identity.development import DevelopmentIssuer
from tests.support import wire
from tests.support.exports import write_export
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings, wait_until
from tests.support.registries import DATA
from tests.support.wire import ADMIN_REFUND, ORDER_LOOKUP, REFUND_CREATE

if TYPE_CHECKING:
    from click.testing import Result

ALICE = ["--tenant", "Tenant-A", "--principal", "agent:order-bot", "--subject", "alice", "--scope", "tools:write"]


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "160"})


@pytest.fixture
def ask(sample_address: str) -> Any:
    """Run ``tenantgate authorize`` as alice against the sample sidecar."""
    return lambda *words: _run("authorize", *words, *ALICE, "--address", sample_address)


# ── authorize ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_authorize_ends_with_0_on_allow(ask: Any) -> None:
    assert ask(ORDER_LOOKUP).exit_code == 0


def test_authorize_ends_with_1_on_deny(ask: Any) -> None:
    assert ask(ADMIN_REFUND).exit_code == 1


def test_authorize_ends_with_2_on_a_malformed_request(ask: Any) -> None:
    ended = ask("")

    assert ended.exit_code == 2
    assert "INVALID_ARGUMENT REQUEST_INVALID: resource.id: must not be empty" in ended.stderr


def test_authorize_ends_with_2_when_there_is_no_sidecar(tmp_path: Path) -> None:
    ended = _run("authorize", ORDER_LOOKUP, *ALICE, "--address", f"unix:{tmp_path}/nobody.sock")

    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"tenantgate: unix:{tmp_path}/nobody.sock: UNAVAILABLE")
    assert "Is the sidecar running? `tenantgate serve` starts it" in ended.stderr


def test_authorize_shows_effect_code_reason_and_rule(ask: Any) -> None:
    shown = ask(ADMIN_REFUND).stdout

    assert shown.startswith("DENY DENIED_BY_RULE\n")
    assert "Insufficient privileges" in shown
    assert "rule-2 of POL-TENANT-A" in shown


def test_authorize_prints_json_alone_when_asked(ask: Any) -> None:
    decision = json.loads(ask(ORDER_LOOKUP, "--json").stdout)

    assert (decision["effect"], decision["code"]) == ("EFFECT_ALLOW", "DECISION_CODE_ALLOWED")
    assert decision["decision_id"]
    assert "explanation" not in decision


def test_authorize_explains_what_applied_and_why_rules_did_not(ask: Any) -> None:
    shown = ask(REFUND_CREATE, "--arg", "amount=501", "--explain").stdout

    assert "CONDITION_NOT_MET" in shown
    assert "small-refunds" in shown
    assert "/arguments/amount lte 500: fails, found 501" in shown
    assert "effective scopes: tools:write" in shown
    assert "roles: support" in shown


def test_authorize_explains_who_asks_and_which_hop_is_the_weakest(ask: Any) -> None:
    shown = ask(ORDER_LOOKUP, "--via", "agent:report-bot", "--explain").stdout

    assert "principal: agent:order-bot" in shown
    assert "subject: alice" in shown
    assert "weakest hop: agent:report-bot (hop 1) lacks tools:write" in shown


def test_authorize_names_no_weakest_hop_where_nobody_lacks_a_scope(ask: Any) -> None:
    assert "weakest hop" not in ask(ORDER_LOOKUP, "--explain").stdout


def test_authorize_shows_ids_with_brackets_as_they_are(ask: Any) -> None:
    assert '"[bold]x[/]"' in ask("[bold]x[/]").stdout


def test_authorize_explains_which_narrowing_kept_a_rule_out(sample_address: str) -> None:
    words = ["--tenant", "Tenant-A", "--principal", "agent:order-bot", "--subject", "bob", "--scope", "tools:write"]
    shown = _run("authorize", REFUND_CREATE, *words, "--explain", "--address", sample_address).stdout

    assert "not for these assignment" in shown or "not for these subjects" in shown


def test_authorize_says_when_no_rule_concerns_the_resource(ask: Any) -> None:
    assert "No rule concerns this resource." in ask("agent:tool:unheard-of", "--explain").stdout


_TYPED: dict[str, tuple[list[str], int]] = {
    "a number": (["--arg", "amount=500"], 0),
    "a number with a fraction": (["--arg", "amount=499.99"], 0),
    "too large a number": (["--arg", "amount=501"], 1),
    "a quoted number is a text": (["--arg", "amount='500'"], 1),
    "a word": (["--arg", "amount=none"], 1),
    "a truth value is no number": (["--arg", "amount=true"], 1),
    "nothing is null": (["--arg", "amount="], 1),
    "a list": (["--arg", "amount=[1]"], 1),
    "a JSON object for all": (["--arguments", '{"amount": 5}'], 0),
    "one argument overrides the object": (["--arguments", '{"amount": 5}', "--arg", "amount=501"], 1),
    "others do not matter": (["--arg", "amount=1", "--arg", "when=2026-11-24", "--arg", "tags={a: [1, b]}"], 0),
}


@pytest.mark.parametrize(("words", "status"), _TYPED.values(), ids=_TYPED)
def test_an_argument_is_typed_as_yaml_has_it(ask: Any, words: list[str], status: int) -> None:
    ended = ask(REFUND_CREATE, *words)

    assert ended.exit_code == status, ended.output
    assert ended.stdout.startswith(("DENY", "ALLOW"))


def test_a_date_as_an_argument_stays_the_text_that_it_was(tmp_path: Path) -> None:
    condition = {"path": "/arguments/day", "op": "eq", "value": "2026-11-24"}
    rule = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"], "conditions": [condition]}
    items: list[dict[str, Any]] = [
        {"pk": "TENANT#T", "sk": "TENANT", "membership": "OPTIONAL"},
        {"pk": "TENANT#T", "sk": "POLICY#P", "rules": [rule]},
    ]
    bundle = build_bundle(write_export(tmp_path / "export", items), tmp_path / "bundle.tar.gz")
    with running_sidecar(sidecar_settings(tmp_path, bundle)) as (sidecar, _):
        words = ["--tenant", "T", "--principal", "p", "--arg", "day=2026-11-24", "--address", sidecar.addresses[0]]
        ended = _run("authorize", "t", *words)

    assert ended.exit_code == 0, ended.output


_MISUSED: dict[str, tuple[list[str], str]] = {
    "an argument without a value": (["--arg", "amount"], "is not NAME=VALUE"),
    "an argument that is not YAML": (["--arg", "amount=[1"], "is not YAML"),
    "an argument of a type that JSON does not have": (["--arg", "amount=!!binary aGk="], "JSON"),
    "arguments that are not JSON": (["--arguments", "{"], "is not JSON"),
    "arguments that are not an object": (["--arguments", "[1]"], "is not a JSON object"),
    "a context that is not an object": (["--context", "1"], "is not a JSON object"),
}


@pytest.mark.parametrize(("words", "said"), _MISUSED.values(), ids=_MISUSED)
def test_authorize_refuses(ask: Any, words: list[str], said: str) -> None:
    ended = ask(ORDER_LOOKUP, *words)

    assert ended.exit_code == 2
    assert said in ended.stderr


def test_authorize_needs_a_tenant_where_there_is_no_token(sample_address: str) -> None:
    ended = _run("authorize", ORDER_LOOKUP, "--address", sample_address)

    assert ended.exit_code == 2
    assert "REQUEST_INVALID: identity.tenant_id: must not be empty" in ended.stderr


def test_authorize_brings_a_token_and_is_told_what_is_wrong_with_it(
    sample_bundle: Path, short_path: Path, tmp_path: Path
) -> None:
    issuer = DevelopmentIssuer(short_path / "issuer")
    token = issuer.mint("Tenant-A", "alice", "agent:order-bot", scopes=("tools:read",))
    (tmp_path / "good.jwt").write_text(token)
    (tmp_path / "edited.jwt").write_text(token[:-8] + "AAAAAAAA")
    settings = sidecar_settings(
        short_path, sample_bundle, identity__mode="verified", identity__issuers=[issuer.settings()]
    )
    words = ["authorize", ORDER_LOOKUP, "--address", f"unix:{settings.socket_path}", "--token-file"]
    with running_sidecar(settings):
        good, edited = (_run(*words, tmp_path / name) for name in ("good.jwt", "edited.jwt"))
        other = _run(*words, tmp_path / "good.jwt", "--tenant", "Tenant-B")

    assert (good.exit_code, edited.exit_code, other.exit_code) == (0, 2, 1)
    assert "UNAUTHENTICATED CALLER_UNAUTHENTICATED: the signature" in edited.stderr
    assert "TENANT_MISMATCH" in other.stdout


def test_exchange_says_what_to_set_where_credentials_are_not_offered(sample_address: str, tmp_path: Path) -> None:
    (tmp_path / "token.jwt").write_text("a.b.c")
    words = ["--type", "MEMORY", "--action", "read", "--token-file", str(tmp_path / "token.jwt")]
    ended = _run("exchange", "m", *words, "--address", sample_address)

    assert ended.exit_code == 2
    assert "credentials.role_arn" in ended.stderr


def test_authorize_passes_on_roles_chain_context_and_properties(ask: Any) -> None:
    words = ["--role", "night", "--via", "agent:report-bot=tools:write", "--context", '{"ip": "::1"}']
    more = ["--subject-properties", '{"a": 1}', "--resource-properties", '{"b": 2}', "--action", "read"]
    explanation = json.loads(ask(ORDER_LOOKUP, *words, *more, "--explain", "--json").stdout)["explanation"]

    assert explanation["roles"] == ["night", "support"]
    assert explanation.get("effective_scopes", []) == []  # report-bot may hold tools:read alone


def test_authorize_shows_a_mismatch_of_the_tenant_header(ask: Any) -> None:
    assert ask(ORDER_LOOKUP, "--tenant-header", "Tenant-B").stdout.startswith("DENY TENANT_MISMATCH\n")


def test_authorize_shows_obligations(tmp_path: Path) -> None:
    obligation = {"type": "REQUIRE_APPROVAL", "by": "lead"}
    rule = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"], "obligations": [obligation]}
    items = [{"policyId": "P", "tenantId": "T", "rules": [rule]}]
    bundle = build_bundle(write_export(tmp_path / "export", items), tmp_path / "bundle.tar.gz")
    with running_sidecar(sidecar_settings(tmp_path, bundle)) as (sidecar, _):
        words = ["--tenant", "T", "--principal", "p", "--accept", "REQUIRE_APPROVAL"]
        shown = _run("authorize", "t", *words, "--address", sidecar.addresses[0]).stdout

    assert 'REQUIRE_APPROVAL {"by": "lead"}' in shown


def test_without_an_address_the_socket_of_the_settings_is_asked(
    sample_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(sample_address.removeprefix("unix:")).parent
    monkeypatch.setenv("TENANTGATE_STATE_DIR", str(folder))

    assert _run("authorize", ORDER_LOOKUP, *ALICE).exit_code == 0


# ── status ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_ends_with_0_and_a_table_when_decisions_are_made(sample_address: str) -> None:
    ended = _run("status", "--address", sample_address)

    assert ended.exit_code == 0
    assert ended.stdout.startswith("serving\n")
    assert "20261124T000000.000000Z-" in ended.stdout
    assert "embedded, version" in ended.stdout


def test_status_prints_json_alone_when_asked(sample_address: str) -> None:
    status = json.loads(_run("status", "--json", "--address", sample_address).stdout)

    assert status["serving"] is True
    assert status["opa"]["embedded"] is True


def test_status_ends_with_1_and_the_reason_when_opa_is_stopped(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, opa__timeout_seconds=0.3)
    with running_sidecar(settings) as (sidecar, channel):
        pid = wire.get_status(channel).opa.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not wire.get_status(channel).serving)
            ended = _run("status", "--address", sidecar.addresses[0])
        finally:
            os.kill(pid, signal.SIGCONT)

    assert ended.exit_code == 1
    assert ended.stdout.startswith("not serving: ")
    assert "OPA" in ended.stdout.splitlines()[0]


def test_status_ends_with_2_when_there_is_no_sidecar(tmp_path: Path) -> None:
    ended = _run("status", "--address", f"unix:{tmp_path}/nobody.sock")

    assert ended.exit_code == 2
    assert "Is the sidecar running?" in ended.stderr


def test_status_watches_until_the_sidecar_stops(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (sidecar, _):
        command: list[str | Path] = [Path(sys.executable).parent / "tenantgate", "status", "--watch", "--json"]
        with subprocess.Popen(
            [*command, "--address", sidecar.addresses[0]], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            sidecar.stop()
            process.stdout.read()

    assert first["serving"] is True
    assert process.returncode == 0


# ── bundle ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bundle_build_tells_what_it_read_and_made(tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar.gz"
    ended = _run("bundle", "build", "--export", DATA / "export-full", "--out", out)

    assert ended.exit_code == 0, ended.output
    assert f"Compiled 3 tenants with 8 rules to {out}." in ended.stdout
    assert "Revision 20261124T000000.000000Z-" in ended.stdout
    assert out.exists()


def test_bundle_build_prints_json_alone_when_asked(tmp_path: Path) -> None:
    ended = _run("bundle", "build", "--export", DATA / "export-full", "--out", tmp_path / "b.tar.gz", "--json")
    report = json.loads(ended.stdout)

    assert (report["tenants"], report["rules"], report["unknown_items"]) == (3, 8, 0)


def test_bundle_build_takes_in_what_is_in_policies_custom_of_the_clone(tmp_path: Path) -> None:
    for name in ("sidecar", "opa", "policies/tenantgate"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / ".tools").symlink_to(REPOSITORY / ".tools")
    custom = tmp_path / "policies" / "custom"
    custom.mkdir()
    shutil.copy(REPOSITORY / "policies" / "custom" / "README.md", custom)
    command = [sys.executable, "-c", "from sidecar.cli import main; main()", "bundle", "build", "--json"]
    command += ["--export", str(DATA / "export-full"), "--out", "b.tar.gz"]

    def built() -> Any:
        return json.loads(subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout)

    as_it_comes = built()
    (custom / "night").mkdir()
    (custom / "night" / "night.rego").write_text("package custom.night\n\ndeny := set()\n")

    assert (as_it_comes["extensions"], built()["extensions"]) == ([], ["night"])


def test_bundle_build_warns_of_what_it_passed_over(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [
        {"pk": "TENANT#Ghost", "sk": "POLICY#P", "rules": []},
        {"pk": "TENANT#T", "sk": "TENANT", "colour": "blue"},
        {"pk": "INVOICE#1", "sk": "LINE#1"},
    ]
    export = write_export(tmp_path / "export", items)
    shown = _run("bundle", "build", "--export", export, "--out", tmp_path / "b.tar.gz").stdout

    assert "1 tenants have items but no TENANT item, and do not exist: Ghost" in shown
    assert "Passed over 1 items of unknown kinds: INVOICE#1 / LINE#1" in shown
    assert "Ignored the attribute TENANT.colour of 1 items." in shown


def test_bundle_build_ends_with_2_and_the_reason_when_it_cannot(tmp_path: Path) -> None:
    ended = _run("bundle", "build", "--export", tmp_path, "--out", tmp_path / "b.tar.gz")

    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"tenantgate: {tmp_path}: no export here")


def test_bundle_build_refuses_rego_that_does_not_compile(tmp_path: Path) -> None:
    (tmp_path / "custom" / "broken").mkdir(parents=True)
    (tmp_path / "custom" / "broken" / "broken.rego").write_text("package custom.broken\n\ndeny contains x if { y }\n")
    words: list[str | Path] = [
        "--export",
        DATA / "export-full",
        "--out",
        tmp_path / "b.tar.gz",
        "--custom",
        tmp_path / "custom",
    ]
    ended = _run("bundle", "build", *words)

    assert ended.exit_code == 2
    assert "the policies do not compile" in ended.stderr
    assert "broken.rego" in ended.stderr
    assert not (tmp_path / "b.tar.gz").exists()


def test_bundle_inspect_shows_what_a_bundle_holds(sample_bundle: Path) -> None:
    ended = _run("bundle", "inspect", sample_bundle)
    shown = {line.split("  ")[0].strip(): line for line in ended.stdout.splitlines()}

    assert ended.exit_code == 0
    assert "20261124T000000.000000Z-" in shown["revision"]
    assert "2026-11-24T00:00:00Z" in shown["as of"]
    assert shown["tenants"].split() == ["tenants", "3"]
    assert "bytes" in shown["registry/base/data.json"]


def test_bundle_inspect_prints_json_alone_when_asked(sample_bundle: Path) -> None:
    shown = json.loads(_run("bundle", "inspect", sample_bundle, "--json").stdout)
    with tarfile.open(sample_bundle) as tar:
        names = {*tar.getnames()}

    assert {*shown["files"]} == names
    assert shown["metadata"]["counts"]["tenants"] == 3


@pytest.mark.parametrize("text", ["", "not a bundle"], ids=["empty", "text"])
def test_bundle_inspect_ends_with_2_on_what_is_no_bundle(text: str, tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_text(text)
    ended = _run("bundle", "inspect", tmp_path / "b.tar.gz")

    assert ended.exit_code == 2
    assert f"{tmp_path}/b.tar.gz: not a bundle of tenantgate" in ended.stderr


def test_bundle_inspect_ends_with_2_on_a_file_that_is_missing(tmp_path: Path) -> None:
    ended = _run("bundle", "inspect", tmp_path / "b.tar.gz")

    assert ended.exit_code == 2
    assert "No such file" in ended.stderr


def test_bundle_inspect_ends_with_2_on_a_bundle_of_others(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(REPOSITORY / "pyproject.toml", "data.json")
    ended = _run("bundle", "inspect", tmp_path / "b.tar.gz")

    assert ended.exit_code == 2
    assert "not a bundle of tenantgate" in ended.stderr


# ── help ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

_COMMANDS = [
    ["serve"],
    ["authorize"],
    ["exchange"],
    ["status"],
    ["log"],
    ["config"],
    ["bundle"],
    ["bundle", "build"],
    ["bundle", "inspect"],
    ["registry"],
    ["registry", "lint"],
    ["iam"],
    ["iam", "role"],
    ["token"],
    ["token", "mint"],
]


@pytest.mark.parametrize("words", _COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of(words: list[str], flag: str) -> None:
    ended = _run(*words, flag)

    assert ended.exit_code == 0
    assert ended.stdout.startswith("Usage: main " + " ".join(words))


def test_help_lists_the_commands_with_what_they_are_for() -> None:
    shown = _run("--help").stdout

    assert [name for name, (_, about) in COMMANDS.items() if name not in shown or about not in shown] == []


def test_every_command_is_helped_with() -> None:
    assert {words[0] for words in _COMMANDS} == {*COMMANDS}


def test_an_unknown_command_is_refused() -> None:
    ended = _run("autorize")

    assert ended.exit_code == 2
    assert "No such command 'autorize'" in ended.stderr


def test_the_version_can_be_asked_for() -> None:
    assert _run("--version").stdout.strip().startswith("main, version 0.")
