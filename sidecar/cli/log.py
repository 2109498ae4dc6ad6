"""``tenantgate log``."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.options import read_settings, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.table import Table

    from sidecar.audit.reading import Lines

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TOGETHER = 200  # rows that are laid out together


class Moment(click.ParamType[Any]):
    """A moment: RFC 3339, or how long ago."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        ago = re.fullmatch(r"(\d+)([smhd])", value)
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a moment, such as 2026-11-24T12:00:00Z, nor how long ago, such as 15m",
                param,
                ctx,
            )
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--tenant", metavar="ID", help="Of this tenant alone.")
@click.option("--subject", metavar="ID", help="Of this subject alone.")
@click.option("--principal", metavar="ID", help="Of this principal alone.")
@click.option(
    "--resource", metavar="GLOB", help="About resources of these ids alone; * stays within a segment, ** does not."
)
@click.option("--effect", type=click.Choice(["ALLOW", "DENY", "ERROR"]), help="With this effect alone; ERROR is none.")
@click.option("--code", metavar="CODE", help="With this code, state or reason of an error alone.")
@click.option("--decision-id", metavar="ID", help="This decision alone; with the id of a batch, all of it.")
@click.option("--since", type=Moment(), metavar="WHEN", help="From then on: RFC 3339, or how long ago, such as 15m.")
@click.option("--until", type=Moment(), metavar="WHEN", help="Until then.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as they are, one line for each.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@settings_options
def log(
    files: tuple[Path, ...],
    config: Path | None,
    flags: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    *,
    as_json: bool,
    follow: bool,
    **wanted: str | None,
) -> None:
    """Show the decision log: of FILES, in their order, or of the file that the settings name.

    Compressed files are read too, and - is standard input. Of a file that the settings name, those that it was rotated to are
    read before it.

    Exit status: 0 there was something to show, 1 there was nothing.
    """
    from sidecar.audit.reading import Lines  # noqa: PLC0415 - not needed for --help

    read = Lines()
    matches = _filter(since, until, **wanted)
    found = (record for record in read.records(_lines(files, config, flags, follow=follow)) if matches(record))
    with suppress(KeyboardInterrupt):
        count = _print_json(found) if as_json else _print_rows(found, at_once=follow)
        _tell_damage(read)
        sys.exit(0 if count else 1)


def _lines(files: tuple[Path, ...], config: Path | None, flags: tuple[str, ...], *, follow: bool) -> Iterator[bytes]:
    from sidecar.audit.reading import LogError, following, lines_of, plain, rotated  # noqa: PLC0415

    named = list(files)
    if not named:
        path = read_settings(config, flags).decision_log_path
        if path is None:
            msg = "audit.file.path is null, so the sidecar writes no file; name what there is"
            raise LogError(msg)
        named = [path] if follow and not path.exists() else rotated(path)
    if not follow:
        for file in named:
            yield from plain(sys.stdin.buffer) if str(file) == "-" else lines_of(file)
        return
    for file in named[:-1]:
        yield from lines_of(file)
    yield from plain(sys.stdin.buffer) if str(named[-1]) == "-" else following(named[-1])


def _filter(since: datetime | None, until: datetime | None, **wanted: str | None) -> Callable[[dict[str, Any]], bool]:
    """Give what tells whether a record is one of those that are wanted."""
    from sidecar.audit.masking import pattern  # noqa: PLC0415

    same = {f"{name}_id": wanted[name] for name in ("tenant", "subject", "principal") if wanted[name] is not None}
    resource = None if wanted["resource"] is None else pattern(wanted["resource"])
    effect, code, decision = wanted["effect"], wanted["code"], wanted["decision_id"]

    def matches(record: dict[str, Any]) -> bool:
        return (
            all(record.get(name, "") == value for name, value in same.items())
            and (resource is None or any(resource.fullmatch(id_) for id_ in _resources(record)))
            and (effect is None or effect == ("ERROR" if "error" in record else record.get("effect")))
            and (code is None or code in _codes(record))
            and (decision is None or decision in {record["decision_id"], record["decision_id"].partition(".")[0]})
            and (since is None or datetime.fromisoformat(record["time"]) >= since)
            and (until is None or datetime.fromisoformat(record["time"]) <= until)
        )

    return matches


def _resources(record: dict[str, Any]) -> list[str]:
    return [record.get("resource_id", ""), *(tool["id"] for tool in record.get("tools", ()))]


def _codes(record: dict[str, Any]) -> set[str | None]:
    tools = record.get("tools", ())
    of_tools = {tool.get(name) for tool in tools for name in ("state", "code", "error")}
    return {record.get("code"), record.get("error"), record.get("cause"), *of_tools} - {None}


def _print_json(records: Iterable[dict[str, Any]]) -> int:
    import msgspec  # noqa: PLC0415

    count = 0
    for count, record in enumerate(records, 1):  # noqa: B007 - the last number is how many
        click.echo(msgspec.json.encode(record))
    return count


def _print_rows(records: Iterable[dict[str, Any]], *, at_once: bool) -> int:
    """Print tables of so many rows, or row by row as they come; tell how many there were."""
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    console = Console(highlight=False)
    count, most = 0, 1 if at_once else _TOGETHER
    rows = iter(records)
    while some := [*islice(rows, most)]:
        console.print(_table(some, header=not at_once or count == 0))
        count += len(some)
    return count


def _table(records: Iterable[dict[str, Any]], *, header: bool) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD if header else None, padding=(0, 1, 0, 0), show_header=header)
    for name in ("time", "decision", "tenant", "who", "what", "why"):
        table.add_column(name, overflow="fold")
    for record in records:
        effect = record.get("effect") or ("ERROR" if "error" in record else "")
        decision = Text.assemble((effect, _STYLES.get(effect, "")), " " if effect else "", _outcome(record))
        who, subject = record.get("principal_id", ""), record.get("subject_id")
        what = f"{record.get('action', '')} {record.get('resource_id', '')}".strip()
        # texts, and not markup: who asks may have chosen them
        cells = [record["time"], decision, record.get("tenant_id", ""), f"{who} for {subject}" if subject else who]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in [*cells, what, _why(record)]))
    return table


_STYLES = {"ALLOW": "bold green", "DENY": "bold red", "ERROR": "bold yellow"}


def _outcome(record: dict[str, Any]) -> str:
    if "tools" in record:
        states = Counter(tool.get("state") or tool.get("error", "") for tool in record["tools"])
        return ", ".join(f"{count} {state}" for state, count in states.items())
    if "found" in record:
        return f"{len(record['found'])} found"
    return str(record.get("code") or record.get("error", ""))


def _why(record: dict[str, Any]) -> str:
    rule = "/".join(record[name] for name in ("policy_id", "rule_id") if name in record)
    said = ": ".join(text for text in (rule, record.get("reason", record.get("cause", ""))) if text)
    if "arguments" not in record:
        return said
    return f"{said} {json.dumps(record['arguments'], ensure_ascii=False)}"


def _tell_damage(read: Lines) -> None:
    if read.damaged:
        click.echo(f"tenantgate: {read.damaged} line(s) are no records, and were passed over", err=True)
