"""``tenantgate iam``: what it writes is what AWS, CloudFormation and Terraform read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.credentials.templates import BUILT_IN

if TYPE_CHECKING:
    from click.testing import Result

ROLE = ["--role", "arn:aws:iam::123456789012:role/agents/tenant-data"]
TRUST = ["--principal", "arn:aws:iam::123456789012:role/agent-runtime"]
REACH = ["--allow", "MEMORY", "--allow", "S3_PREFIX=acme-data/documents/", "--region", "eu-west-1"]
VARIABLE = "${aws:PrincipalTag/TenantID}"


def _run(*words: str) -> Result:
    return CliRunner().invoke(main, ["iam", *words], env={"COLUMNS": "160"})


def _written(*words: str) -> Any:
    ended = _run(*words)
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_the_trust_policy_names_who_assumes_the_role() -> None:
    another = "arn:aws:iam::123456789012:user/ci"
    for statement in _written("trust", *ROLE, *TRUST, "--principal", another)["Statement"]:
        assert statement["Principal"] == {"AWS": [TRUST[1], another]}


def test_the_trust_policy_for_tokens_names_the_provider_and_their_audience() -> None:
    provider = "arn:aws:iam::123456789012:oidc-provider/cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x"
    statements = _written("trust", *ROLE, "--provider", provider, "--audience", "tenantgate")["Statement"]

    assert {statement["Principal"]["Federated"][0] for statement in statements} == {provider}
    assert statements[0]["Action"] == ["sts:AssumeRoleWithWebIdentity"]
    assert statements[0]["Condition"]["StringEquals"] == {
        "cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x:aud": ["tenantgate"]
    }


def test_the_permission_policy_reaches_what_is_allowed() -> None:
    statements = _written("permissions", *ROLE, *REACH)["Statement"]

    assert {re.sub("(Read|Write).*", "", statement["Sid"]) for statement in statements} == {"Memory", "S3Prefix"}
    assert f"arn:aws:s3:::acme-data/documents/{VARIABLE}/*" in [r for s in statements for r in s["Resource"]]
    assert "arn:aws:bedrock-agentcore:eu-west-1:123456789012:memory/*" in [r for s in statements for r in s["Resource"]]


def test_an_id_may_hold_what_separates_it_from_its_type(tmp_path: Path) -> None:
    table = BUILT_IN.read_text().replace('id: "[a-zA-Z0-9_.-]{3,255}"', 'id: "[a-z=]+"')
    (tmp_path / "t.yaml").write_text(table)
    words = [
        "--allow",
        "DYNAMODB_TABLE=a=b",
        "--region",
        "eu-west-1",
        "--set",
        f"credentials.templates={tmp_path}/t.yaml",
    ]

    assert _written("permissions", *ROLE, *words)["Statement"][0]["Resource"][0].endswith("table/a=b")


def test_role_region_and_tag_are_those_of_the_settings_unless_said() -> None:
    settings = [
        "--set",
        "credentials.role_arn=arn:aws-cn:iam::999999999999:role/t",
        "--set",
        "credentials.tenant_tag=Customer",
    ]
    settings += ["--set", "credentials.region=cn-north-1"]
    text = json.dumps(_written("permissions", *settings, "--allow", "MEMORY"))

    assert "arn:aws-cn:bedrock-agentcore:cn-north-1:999999999999:memory/*" in text
    assert "${aws:PrincipalTag/Customer}" in text
    assert "aws:ResourceTag/Customer" in text
    assert "aws:RequestTag/Customer" in json.dumps(_written("trust", *settings, *TRUST))
    assert "eu-west-1:123456789012" in json.dumps(_written("permissions", *settings, *ROLE, *REACH))


def test_the_caller_may_assume_the_role_tag_its_session_and_name_the_subject() -> None:
    (statement,) = _written("caller", *ROLE)["Statement"]

    assert statement["Action"] == ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    assert statement["Resource"] == [ROLE[1]]


def test_the_templates_are_shown_as_the_file_that_they_are(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(BUILT_IN.read_text().replace("KNOWLEDGE_BASE:", "KB:"))

    assert _run("templates").stdout == BUILT_IN.read_text()
    assert _run("templates", "--set", f"credentials.templates={own}").stdout == own.read_text()


@pytest.fixture(params=["cloudformation", "terraform"])
def template(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The whole role in one of the forms."""
    words = ["--format", request.param, "--set", "credentials.duration_seconds=7200"]
    return request.param, _written("role", *ROLE, *TRUST, *REACH, *words)


def test_the_whole_role_has_both_policies_and_lasts_as_long_as_sessions_may(template: tuple[str, Any]) -> None:
    form, tree = template
    policies = [_written("trust", *ROLE, *TRUST), _written("permissions", *ROLE, *REACH)]
    if form == "cloudformation":
        role = tree["Resources"]["TenantRole"]["Properties"]
        (policy,) = role["Policies"]
        found = [role["AssumeRolePolicyDocument"], policy["PolicyDocument"]]
        named = role["RoleName"], role["Path"], role["MaxSessionDuration"]
    else:
        role = tree["resource"]["aws_iam_role"]["tenant"]
        texts = [role["assume_role_policy"], tree["resource"]["aws_iam_role_policy"]["tenant"]["policy"]]
        # Terraform takes ${ for the beginning of an expression, and $${ for the letters.
        assert not any(re.search(r"(?<!\$)\$\{|%\{", text) for text in texts)
        found = [json.loads(text.replace("$${", "${")) for text in texts]
        named = role["name"], role["path"], role["max_session_duration"]

    assert found == policies
    assert named == ("tenant-data", "/agents/", 7200)


def test_cloudformation_takes_the_template(tmp_path: Path) -> None:
    file = tmp_path / "role.json"
    file.write_text(
        _run("role", *ROLE, *TRUST, *REACH, "--allow", "DYNAMODB_TABLE=orders", "--allow", "KNOWLEDGE_BASE").stdout
    )
    command: list[str | Path] = [
        Path(sys.executable).parent / "cfn-lint",
        "--non-zero-exit-code",
        "informational",
        file,
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr


def test_a_session_may_last_an_hour_even_if_shorter_ones_are_given() -> None:
    tree = _written("role", *ROLE, *TRUST, *REACH, "--set", "credentials.duration_seconds=900")

    assert tree["Resources"]["TenantRole"]["Properties"]["MaxSessionDuration"] == 3600


_PROVIDER = ["--provider", "arn:aws:iam::123456789012:oidc-provider/issuer.example.com"]
_MISUSED: dict[str, tuple[list[str], str]] = {
    "no role": (["trust", *TRUST], "Which role? Say --role ARN, or set credentials.role_arn"),
    "a role that is none": (["caller", "--role", "tenant-data"], "'tenant-data' is not the ARN of a role"),
    "nobody": (["trust", *ROLE], "Who assumes the role? Say --principal ARN"),
    "a provider and no audience": (["trust", *ROLE, *_PROVIDER], "--provider ARN with --audience"),
    "an audience of no provider": (["trust", *ROLE, *TRUST, "--audience", "x"], "--provider ARN with --audience"),
    "two ways at once": (["trust", *ROLE, *TRUST, *_PROVIDER, "--audience", "x"], "--provider ARN with --audience"),
    "everyone": (["trust", *ROLE, "--principal", "*"], "'*' is not the ARN of a role or user"),
    "a whole account": (
        ["trust", *ROLE, "--principal", "arn:aws:iam::123456789012:root"],
        "'arn:aws:iam::123456789012:root' is not the ARN of a role or user",
    ),
    "many roles": (
        ["trust", *ROLE, "--principal", "arn:aws:iam::123456789012:role/*"],
        "is not the ARN of a role or user",
    ),
    "a provider that is none": (
        ["trust", *ROLE, "--provider", "https://issuer.example.com", "--audience", "x"],
        "is not the ARN of an OIDC provider",
    ),
    "no region": (["permissions", *ROLE, "--allow", "MEMORY"], "Where are the resources? Say --region"),
    "nothing to reach": (["permissions", *ROLE, "--region", "eu-west-1"], "Missing option '--allow'"),
    "a type that is none": (
        ["permissions", *ROLE, "--region", "r", "--allow", "TOOL"],
        "TOOL: no statements for this type",
    ),
    "a table that is none": (["templates", "--set", "credentials.templates=none.yaml"], "none.yaml: cannot be read"),
}


@pytest.mark.parametrize(("words", "said"), _MISUSED.values(), ids=_MISUSED)
def test_iam_refuses(words: list[str], said: str) -> None:
    ended = _run(*words)

    assert ended.exit_code == 2
    assert said in ended.stderr
