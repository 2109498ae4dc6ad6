"""The commands of docs/decision-log.md, read from the page, do what it says; and `tenantgate log` shows what was asked for."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.settings import load
from tests.support import wire
from tests.support.decision_logs import read, wait_for
from tests.support.pages import like_a_clone
from tests.support.processes import REPOSITORY, build_bundle, running_sidecar, sidecar_settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = (REPOSITORY / "docs" / "decision-log.md").read_text()
BLOCKS = re.findall(r"^```(console|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SAMPLE = REPOSITORY / "examples" / "quickstart" / "export"


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def clone(tmp_path: Path, short_path: Path) -> Iterator[Path]:
    """A folder that looks like a clone in which a sidecar has served and decided."""
    like_a_clone(tmp_path)
    (tmp_path / ".tenantgate").symlink_to(short_path)
    bundle = build_bundle(SAMPLE, tmp_path / "build" / "quickstart.tar.gz")
    with running_sidecar(sidecar_settings(short_path, bundle)) as (_, channel):
        for tool in ("order-lookup", "admin-refund"):
            wire.authorize(channel, wire.question(f"agent:tool:{tool}", identity=wire.identity("acme")))
        wait_for(short_path / "decisions.jsonl", 2)
        yield tmp_path


def test_the_commands_of_the_page_run(clone: Path) -> None:
    commands = [
        command
        for language, block in BLOCKS
        if language == "console"
        for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
    ]
    for command in commands:
        words = ["timeout", "--foreground", "--preserve-status", "-s", "INT", "3"] if "--follow" in command else []
        done = subprocess.run(
            [*words, "bash", "-euc", f"exec {command}" if words else command],
            cwd=clone,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stdout or "openssl" in command, command
    assert [
        word for word in ("--follow", "--json", "--since", "--effect", "openssl") if word not in "".join(commands)
    ] == []


def test_the_settings_of_the_page_are_settings() -> None:
    shown = [yaml.safe_load(block) for language, block in BLOCKS if language == "yaml"]

    assert shown
    for settings in shown:
        flags = [f"audit.{name}={json.dumps(said)}" for name, said in settings["audit"].items()]
        load(None, {}, [*flags, "identity.mode=asserted"])


# ── what the command shows ──────────────────────────────────────────────────────────────────────────────────────────────


def record(number: int, **said: Any) -> dict[str, Any]:
    return {
        "time": f"2026-11-24T12:00:{number:02d}.000000Z",
        "decision_id": f"id-{number}",
        "method": "Authorize",
        "ms": 1.0,
        "cached": False,
        "tenant_id": "acme",
        "principal_id": "agent:order-bot",
        "subject_id": "alice",
        "resource_type": "TOOL",
        "resource_id": "agent:tool:order-lookup",
        "action": "invoke",
        "effect": "ALLOW",
        "code": "ALLOWED",
    } | said


RECORDS = [
    record(0),
    record(1, tenant_id="globex", subject_id="bob"),
    record(2, effect="DENY", code="NO_MATCHING_RULE", resource_id="agent:tool:refund/create"),
    record(3, decision_id="id-3.0", principal_id="agent:other"),
    record(4, decision_id="id-3.1"),
    {
        **{n: v for n, v in record(5).items() if n not in {"effect", "code"}},
        "error": "REQUEST_INVALID",
        "cause": "items",
    },
    {**record(6, effect="", code=""), "tools": [{"id": "agent:tool:x", "state": "DENIED", "code": "TENANT_SUSPENDED"}]},
]


def written(records: list[dict[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in records)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a log that was rotated, and of which one part has been compressed."""
    (tmp_path / "decisions.jsonl.2.gz").write_bytes(gzip.compress(written(RECORDS[:2])))
    (tmp_path / "decisions.jsonl.1").write_bytes(written(RECORDS[2:4]) + b'{"time":"2026')
    (tmp_path / "decisions.jsonl").write_bytes(written(RECORDS[4:]))
    return tmp_path


def run(*words: str, state: Path | None = None, given: bytes = b"") -> Any:
    flags = [] if state is None else ["--set", f"state_dir={state}"]
    return CliRunner().invoke(main, ["log", *words, *flags], input=given)


def shown(*words: str, state: Path) -> list[str]:
    """Give the last part of the ids of the records that are shown."""
    done = run(*words, "--json", state=state)
    assert done.exit_code in {0, 1}, done.output
    return [json.loads(line)["decision_id"].removeprefix("id-") for line in done.stdout.splitlines()]


def test_all_of_a_rotated_log_is_shown_in_its_order_and_damage_is_told(state: Path) -> None:
    done = run("--json", state=state)

    assert [json.loads(line) for line in done.stdout.splitlines()] == RECORDS
    assert done.stderr == "tenantgate: 1 line(s) are no records, and were passed over\n"


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--tenant", "globex"], ["1"]),
        (["--subject", "bob"], ["1"]),
        (["--principal", "agent:other"], ["3.0"]),
        (["--resource", "agent:tool:refund*"], []),
        (["--resource", "agent:tool:refund**"], ["2"]),
        (["--resource", "agent:tool:x"], ["6"]),
        (["--effect", "DENY"], ["2"]),
        (["--effect", "ERROR"], ["5"]),
        (["--code", "NO_MATCHING_RULE"], ["2"]),
        (["--code", "TENANT_SUSPENDED"], ["6"]),
        (["--code", "REQUEST_INVALID"], ["5"]),
        (["--decision-id", "id-3"], ["3.0", "3.1"]),
        (["--decision-id", "id-3.1"], ["3.1"]),
        (["--since", "2026-11-24T12:00:05Z"], ["5", "6"]),
        (["--until", "2026-11-24T13:00:01+01:00"], ["0", "1"]),
        (["--since", "2026-11-24T12:00:01", "--until", "2026-11-24T12:00:02Z"], ["1", "2"]),
        (["--tenant", "acme", "--effect", "ALLOW", "--subject", "alice"], ["0", "3.0", "3.1"]),
    ],
)
def test_a_filter_shows_what_it_is_about(state: Path, words: list[str], ids: list[str]) -> None:
    assert shown(*words, state=state) == ids


def test_how_long_ago_is_a_moment_too(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - used here alone

    now = datetime.now(UTC)
    ago = [(now - timedelta(minutes=minutes)).isoformat() for minutes in (90, 30)]
    (tmp_path / "decisions.jsonl").write_bytes(written([record(0, time=ago[0]), record(1, time=ago[1])]))

    assert shown("--since", "1h", state=tmp_path) == ["1"]


def test_nothing_to_show_is_an_exit_status_and_no_log_is_an_error(state: Path, tmp_path: Path) -> None:
    assert run("--tenant", "nobody", state=state).exit_code == 1
    missing = run(state=tmp_path / "none")
    assert missing.exit_code == 2
    assert "there is no such decision log" in missing.stderr
    wrong = run("--since", "yesterday", state=state)
    assert wrong.exit_code == 2
    assert "such as 15m" in wrong.stderr


def test_files_that_are_named_are_read_in_their_order_and_a_dash_is_standard_input(state: Path) -> None:
    files = [str(state / name) for name in ("decisions.jsonl", "decisions.jsonl.2.gz")]
    done = run("--json", *files, "-", given=written([record(9)]))

    assert [json.loads(line)["decision_id"] for line in done.stdout.splitlines()] == [
        *(entry["decision_id"] for entry in RECORDS[4:] + RECORDS[:2]),
        "id-9",
    ]


def test_a_table_says_who_asked_for_what_and_what_came_of_it_and_no_markup_of_theirs(tmp_path: Path) -> None:
    entries = [
        record(0, rule_id="r-1", policy_id="P", reason="allowed by a rule"),
        record(1, subject_id="[bold]x[/]"),
        RECORDS[5],
        RECORDS[6],
        record(7, arguments={"amount": 5}),
    ]
    (tmp_path / "decisions.jsonl").write_bytes(written(entries))
    output = run(state=tmp_path).stdout.replace("\n", "")

    for words in ("ALLOW", "acme", "ERROR", "P/r-1", "1 DENIED", "[bold]"):
        assert words in re.sub(r"\s+", " ", output), words


def test_follow_shows_what_comes_across_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(written(RECORDS[:1]))
    command = [sys.executable, "-m", "sidecar", "log", "--json", "--follow", "--set", f"state_dir={tmp_path}"]
    command[1:3] = ["-c", "from sidecar.cli import main; main()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, env=os.environ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(
            target=lambda: lines.extend(json.loads(line)["decision_id"] for line in process.stdout or ()), daemon=True
        )
        reader.start()
        try:
            wait_until(lambda: lines == ["id-0"])
            with path.open("ab") as file:
                file.write(written(RECORDS[1:2])[:20])
                file.flush()
                file.write(written(RECORDS[1:2])[20:])
            wait_until(lambda: lines == ["id-0", "id-1"])
            with path.open("ab") as file:
                file.write(written(RECORDS[2:3]))
            path.rename(tmp_path / "decisions.jsonl.1")
            path.write_bytes(written(RECORDS[3:5]))
            wait_until(lambda: lines == ["id-0", "id-1", "id-2", "id-3.0", "id-3.1"])
        finally:
            process.terminate()
        reader.join(10)


def test_the_log_of_a_sidecar_is_what_the_command_reads(sample_bundle: Path, short_path: Path) -> None:
    with running_sidecar(sidecar_settings(short_path, sample_bundle)) as (_, channel):
        decision_id = wire.authorize(channel).decision_id
        wait_for(short_path / "decisions.jsonl", 1)
        assert shown("--decision-id", decision_id, state=short_path) == [decision_id]

    assert read(short_path / "decisions.jsonl")
