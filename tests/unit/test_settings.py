"""Settings are read from a file, the environment and flags, in this order, and every one is documented."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.errors import SettingsError
from sidecar.settings import ENVIRONMENT_PREFIX, Issuer, Settings, describe, load, sections

if TYPE_CHECKING:
    from pathlib import Path

_OTHER_VALUES: dict[str, Any] = {
    "state_dir": "/run/tenantgate",
    "listen.socket": "other.sock",
    "listen.socket_mode": "0600",
    "listen.tcp": "127.0.0.1:7443",
    "identity.tenant_headers": ["x-customer"],
    "identity.issuers": [{"issuer": "https://issuer.example", "audiences": ["agents"]}],
    "identity.clock_skew_seconds": 5,
    "delegation.check": "current",
    "delegation.max_depth": 3,
    "scopes.read": ["read", "browse"],
    "scopes.write": [],
    "opa.bundle": "/bundles/it's a: bundle.tar.gz",
    "opa.binary": "/usr/local/bin/opa",
    "opa.timeout_seconds": 0.25,
    "bundles.keys": ["/keys/2026-11.pub"],
    "bundles.poll_seconds": 0.5,
    "bundles.long_poll_seconds": 10,
    "bundles.token_file": "/run/token",
    "bundles.ca_file": "/etc/ca.pem",
    "freshness.max_staleness_seconds": 3600,
    "limits.in_flight": 7,
    "limits.threads": 5,
    "limits.message_bytes": 2048,
    "lifecycle.drain_seconds": 0,
    "log.level": "debug",
    "log.format": "text",
    "log.access": False,
    "audit.on_full": "block",
    "audit.file.path": None,
    "audit.file.keep": 5,
    "audit.http.labels": {"region": "eu"},
    "audit.arguments": [{"path": "/a", "how": "keep"}],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file that sets the number of threads."""
    path = tmp_path / "settings.yaml"
    path.write_text("limits:\n  threads: 1\n")
    return path


def test_without_any_source_the_defaults_are_in_force() -> None:
    assert load(None, {}) == Settings()


def test_the_file_overrides_the_default(file: Path) -> None:
    assert load(file, {}).limits.threads == 1


def test_the_environment_overrides_the_file(file: Path) -> None:
    assert load(file, {"TENANTGATE_LIMITS__THREADS": "2"}).limits.threads == 2


def test_a_flag_overrides_the_environment(file: Path) -> None:
    assert load(file, {"TENANTGATE_LIMITS__THREADS": "2"}, ["limits.threads=3"]).limits.threads == 3


def test_the_last_flag_counts() -> None:
    assert load(None, {}, ["limits.threads=3", "limits.threads=4"]).limits.threads == 4


def test_a_source_overrides_what_it_names_alone(file: Path) -> None:
    settings = load(file, {"TENANTGATE_LIMITS__IN_FLIGHT": "2"}, ["limits.watchers=3"])

    assert (settings.limits.threads, settings.limits.in_flight, settings.limits.watchers) == (1, 2, 3)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# all is well as it is\n")

    assert load(path, {}) == Settings()


def test_other_variables_of_the_environment_are_left_alone() -> None:
    assert load(None, {"PATH": "/bin", "TENANT": "x", "LIMITS__THREADS": "1"}) == Settings()


def test_a_setting_can_be_taken_back_with_null() -> None:
    assert load(None, {"TENANTGATE_LISTEN__TCP": "127.0.0.1:1"}, ["listen.tcp=null"]).listen.tcp is None


def test_a_flag_may_hold_an_equals_sign() -> None:
    assert load(None, {}, ["opa.bundle=a=b.tar.gz"]).opa.bundle == "a=b.tar.gz"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "localhost:65535", "[::1]:7443"])
def test_loopback_addresses_may_be_listened_on(address: str) -> None:
    assert load(None, {}, [f"listen.tcp='{address}'"]).listen.tcp == address


@pytest.mark.parametrize("name", ["x-tenant-bin", "X-Tenant", "x tenant", ""])
def test_a_metadata_key_that_cannot_carry_a_tenant_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"identity\.tenant_headers"):
        load(None, {}, [f"identity.tenant_headers=['{name}']"])


@pytest.mark.parametrize("mode", ["0999", "rw-rw----", "07777"])
def test_permissions_that_are_none_are_refused(mode: str) -> None:
    with pytest.raises(SettingsError, match=r"listen\.socket_mode"):
        load(None, {}, [f"listen.socket_mode='{mode}'"])


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Settings().limits.threads = 2  # type: ignore[misc]  # that is the point


# ── documentation ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [setting.name for setting in describe(Settings())])
def test_every_setting_says_what_it_is_about(name: str) -> None:
    (about,) = [setting.about for setting in describe(Settings()) if setting.name == name]

    assert about
    assert about[0] == about[0].upper() or about.startswith("`")


@pytest.mark.parametrize("name", [setting.name for setting in describe(Settings())])
def test_every_setting_with_a_unit_in_its_name_has_it_in_its_description(name: str) -> None:
    (about,) = [setting.about for setting in describe(Settings()) if setting.name == name]

    assert [unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}") and unit not in about] == []


def test_every_section_says_what_it_is_about() -> None:
    assert [name for name, about in sections().items() if not about] == []


@pytest.mark.parametrize(("name", "value"), _OTHER_VALUES.items(), ids=_OTHER_VALUES)
def test_config_prints_a_file_that_holds_the_setting(name: str, value: Any, tmp_path: Path) -> None:
    variable = ENVIRONMENT_PREFIX + name.upper().replace(".", "__")
    settings = load(None, {variable: yaml.safe_dump(value)})
    printed = CliRunner().invoke(main, ["config"], env={variable: yaml.safe_dump(value)}, catch_exceptions=False)
    path = tmp_path / "printed.yaml"
    path.write_text(printed.stdout)

    assert settings != Settings()
    assert load(path, {}) == settings


def test_config_prints_what_the_default_is_where_it_is_not_in_force() -> None:
    printed = CliRunner().invoke(main, ["config", "--set", "limits.threads=5"], catch_exceptions=False)

    assert "# Threads that work on calls (default: 32)\n  threads: 5\n" in printed.stdout


def test_config_prints_a_table_with_every_setting_and_its_variable() -> None:
    printed = CliRunner().invoke(main, ["config", "--markdown"], catch_exceptions=False)
    table, _, of_issuers = printed.stdout.partition("\n\n")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]

    assert [row[0].strip("`") for row in rows] == [setting.name for setting in describe(Settings())]
    assert ["`limits.threads`", "Threads that work on calls", "`32`", "`TENANTGATE_LIMITS__THREADS`"] in rows
    assert [name for name in Issuer.__struct_fields__ if f"\n| `{name}` | " not in of_issuers] == []
