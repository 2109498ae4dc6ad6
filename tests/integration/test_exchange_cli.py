"""Tokens for credentials from the command line, as AWS SDKs and the docs use it; and that no log holds a secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from click.testing import CliRunner

from sidecar.cli import main
from tests.support.exchanges import MEMORY, READ_MEMORY, exchanging, registry_items
from tests.support.exports import write_export
from tests.support.processes import OPA, REPOSITORY, build_bundle, wait_until
from tests.support.sts import ASSUMED_ROLE, ENVIRONMENT, ROLE, given, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

    from tests.support.exchanges import Exchanging

_SECRETS = ("access_key_id", "secret_access_key", "session_token")
_PAGE = (REPOSITORY / "docs" / "credentials.md").read_text()
_BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def parts() -> Iterator[Exchanging]:
    with exchanging() as made:
        yield made


@pytest.fixture
def world(parts: Exchanging, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanging]:
    """A sidecar that exchanges tokens; its registry allows to read memories and nothing else."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    parts.reset()
    with parts.running():
        yield parts


def _run(world: Exchanging, *words: str, token: str | None = None, action: str = "read") -> Result:
    command = ["exchange", MEMORY, "--type", "MEMORY", "--action", action, "--address", world.address, *words]
    return CliRunner().invoke(
        main, [*command, "--token-file", "-"], input=token or world.token(), env={"COLUMNS": "160"}
    )


# ── what it prints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_shows_the_decision_and_the_session_and_nothing_secret(world: Exchanging) -> None:
    ended = _run(world)
    credentials = world.call().credentials

    assert ended.exit_code == 0, ended.output
    assert ended.stdout.startswith("ALLOW ALLOWED\n")
    assert "read-memory of data" in ended.stdout
    assert f"{ASSUMED_ROLE}/{credentials.session_name}" in ended.stdout
    assert credentials.expiration.ToJsonString() in ended.stdout
    assert credentials.secret_access_key not in ended.stdout
    assert credentials.session_token not in ended.stdout


def test_json_is_the_whole_answer(world: Exchanging) -> None:
    answer = json.loads(_run(world, "--format", "json").stdout)

    assert answer["decision"]["effect"] == "EFFECT_ALLOW"
    assert answer["credentials"]["session_token"] == world.call().credentials.session_token


def test_env_is_what_a_shell_takes_in(world: Exchanging) -> None:
    ended = _run(world, "--format", "env")
    shown = subprocess.run(
        ["bash", "-euc", 'eval "$0"; env', ended.stdout], capture_output=True, text=True, check=True, env={}
    )
    credentials = world.call().credentials

    assert {line for line in shown.stdout.splitlines() if line.startswith("AWS_")} == {
        f"AWS_ACCESS_KEY_ID={credentials.access_key_id}",
        f"AWS_SECRET_ACCESS_KEY={credentials.secret_access_key}",
        f"AWS_SESSION_TOKEN={credentials.session_token}",
        f"AWS_CREDENTIAL_EXPIRATION={credentials.expiration.ToJsonString()}",
    }


def test_credential_process_is_one_document_as_the_sdks_read_it(world: Exchanging) -> None:
    document = json.loads(_run(world, "--format", "credential-process").stdout)
    credentials = world.call().credentials

    assert document == {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": credentials.expiration.ToJsonString(),
    }


@pytest.mark.parametrize("form", ["env", "credential-process"])
def test_a_deny_leaves_standard_output_empty_for_machines(world: Exchanging, form: str) -> None:
    ended = _run(world, "--format", form, action="write")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("tenantgate: DENY: no rule ")


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_deny_shows_the_decision_to_people(world: Exchanging, form: str) -> None:
    ended = _run(world, "--format", form, action="write")

    assert ended.exit_code == 1
    assert "NO_MATCHING_RULE" in ended.stdout
    assert "credentials" not in ended.stdout


@pytest.mark.parametrize("form", ["table", "json", "env", "credential-process"])
def test_without_a_decision_it_ends_with_2_and_says_why_on_standard_error(world: Exchanging, form: str) -> None:
    ended = _run(world, "--format", form, token="no.token.at-all")

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "UNAUTHENTICATED CALLER_UNAUTHENTICATED: " in ended.stderr


def test_without_credentials_it_ends_with_2(world: Exchanging) -> None:
    world.sts.answer = lambda _request: refusal("AccessDenied", "not yours", 403)
    ended = _run(world, "--format", "credential-process")

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "UNAVAILABLE CREDENTIALS_NOT_GIVEN: STS cannot be reached, or refuses" in ended.stderr


def test_how_long_they_should_last_is_asked_for(world: Exchanging) -> None:
    ended = _run(world, "--duration", "30")

    assert ended.exit_code == 2
    assert "duration: must be at least 60 s, is 30 s" in ended.stderr


# ── the token ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no token"),
        (b"\n", "holds no token"),
        (b"a\nb", "holds no token"),
        ("zoë".encode(), "holds no token"),
        (b"\xff", "cannot be read: it is not text"),
    ],
    ids=repr,
)
def test_a_file_that_holds_no_token_is_told(tmp_path: Path, content: bytes | None, fault: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    ended = CliRunner().invoke(main, ["exchange", "x", "--type", "T", "--action", "a", "--token-file", str(file)])

    assert ended.exit_code == 2
    assert f"{file}: {fault}" in ended.stderr


def test_without_a_token_it_asks_for_one() -> None:
    ended = CliRunner().invoke(main, ["exchange", "x", "--type", "T", "--action", "a"])

    assert ended.exit_code == 2
    assert "Missing option '--token-file'" in ended.stderr


# ── the docs, and the SDK ───────────────────────────────────────────────────────────────────────────────────────────────


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(world: Exchanging, short_path: Path) -> Path:
    """A folder as the docs have it, with alice's token, and the sidecar's socket beside it."""
    (short_path / ".tenantgate").mkdir()
    (short_path / ".tenantgate" / "alice.jwt").write_text(world.token())
    (short_path / ".tenantgate" / "tenantgate.sock").symlink_to(world.address.removeprefix("unix:"))
    return short_path


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{_BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), **more}


@pytest.mark.parametrize("text", _blocks("console"))
def test_the_commands_of_the_docs_run(world: Exchanging, folder: Path, text: str) -> None:
    ended = subprocess.run(
        ["bash", "-euc", f'{text}\necho "$AWS_SESSION_TOKEN"'],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == world.call().credentials.session_token


@pytest.mark.parametrize("text", _blocks("py"))
def test_the_code_of_the_docs_runs(world: Exchanging, folder: Path, text: str) -> None:
    asking = f"print(session.client('sts', 'eu-west-1', endpoint_url={world.sts.url!r}).get_caller_identity()['Arn'])"
    ended = subprocess.run(
        [sys.executable, "-c", f"{text}\n{asking}"],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"{ASSUMED_ROLE}/{world.call().credentials.session_name}"


def test_an_sdk_gets_the_credentials_by_the_profile_of_the_docs(world: Exchanging, folder: Path) -> None:
    (profile,) = _blocks("ini")
    config = folder / "config"
    config.write_text(profile.replace("/run/agent/", f"{folder}/.tenantgate/"))
    code = "import boto3; print(boto3.Session(profile_name='acme-memory').client('sts').get_caller_identity()['Arn'])"
    environment = _environment(AWS_CONFIG_FILE=str(config), AWS_ENDPOINT_URL=world.sts.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        del environment[name]
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"{ASSUMED_ROLE}/{world.call().credentials.session_name}"


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _serving(world: Exchanging, folder: Path, *flags: str) -> Iterator[list[str]]:
    """Run a sidecar with an OPA of its own, both of which log all that they can; give what they write."""
    export = write_export(folder / "export", registry_items(READ_MEMORY))
    bundle = build_bundle(export, folder / "bundle.tar.gz")
    settings = {
        "state_dir": folder / "state",
        "opa.binary": OPA,
        "opa.bundle": bundle,
        "identity.issuers": json.dumps([world.issuer.settings()]),
        "credentials.role_arn": ROLE,
        "credentials.endpoint_url": world.sts.url,
        "credentials.region": "eu-west-1",
        "log.level": "debug",
        "log.opa_decisions": "true",
    }
    command: list[str] = [str(_BIN / "tenantgate"), "serve", *flags]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as output:
            lines.extend(output)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_until(lambda: any('"event":"serving"' in line for line in [*lines]), 30)
        with grpc.insecure_channel(f"unix:{folder / 'state' / 'tenantgate.sock'}") as world.channel:
            yield lines
    finally:
        process.terminate()
        process.wait(30)
        reader.join()


@pytest.mark.parametrize("method", ["assume_role", "web_identity"])
def test_no_log_holds_a_token_or_a_key(world: Exchanging, short_path: Path, method: str) -> None:
    tags: Any = {"principal_tags": {"TenantID": ["acme"]}, "transitive_tag_keys": ["TenantID"]}
    token = world.token(**{"https://aws.amazon.com/tags": tags})
    garbled = {
        "AccessKeyId": "AKIAGARBLED",
        "SecretAccessKey": "garbled-secret",
        "SessionToken": "garbled-token",
        "Expiration": "soon",
    }
    action = "AssumeRole" if method == "assume_role" else "AssumeRoleWithWebIdentity"
    with _serving(world, short_path, "--set", f"credentials.method={method}") as lines:
        credentials = world.call(token).credentials
        world.call(token, action="write")
        world.sts.answer = lambda _request: given(action, **garbled)
        world.failure(token, seconds=900)
        world.sts.answer = lambda request: refusal("InvalidIdentityToken", f"what is {request.parameters}")
        world.failure(token, seconds=900)
        world.failure(f"{token}x")
    written = "".join(lines)
    secrets: list[Any] = [
        *(getattr(credentials, name) for name in _SECRETS),
        token,
        *token.split("."),
        *list(garbled.values())[:3],
        ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        ENVIRONMENT["AWS_SESSION_TOKEN"],
    ]

    assert written.count('"method":"ExchangeToken"') == 5
    assert '"event":"opa_decision"' in written
    assert credentials.session_name in written
    assert [secret for secret in secrets if secret in written] == []
