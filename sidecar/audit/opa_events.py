"""Records as OPA's own decision log has them, for collectors that understand that.

Source: https://www.openpolicyagent.org/docs/latest/management-decision-logs/#decision-log-service-api.
"""

from __future__ import annotations

from typing import Any

_ASKED = (
    "tenant_id",
    "principal_id",
    "subject_id",
    "delegation",
    "scopes",
    "resource_type",
    "resource_id",
    "action",
    "arguments",
)
_ANSWERED = ("effect", "code", "policy_id", "rule_id", "reason", "tools", "found", "as_of", "cached")
_OURS = ("method", "request_id", "cause")
_NANOSECONDS = 1_000_000  # in a millisecond

_PATHS = {"tools": "tenantgate/tools/listing", "found": "tenantgate/search"}
_PATH = "tenantgate/authorize/decision"


def event(record: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """Make the event of a record. ``labels`` say which sidecar it is of."""
    made: dict[str, Any] = {
        "labels": labels,
        "decision_id": record["decision_id"],
        "path": next((path for name, path in _PATHS.items() if name in record), _PATH),
        "input": _some(record, _ASKED),
        "timestamp": record["time"],
        "metrics": {"timer_server_handler_ns": round(record["ms"] * _NANOSECONDS)},
        "custom": _some(record, _OURS),
    }
    if "trace_id" in record:
        made["trace_id"] = record["trace_id"]
    if "revision" in record:
        made["bundles"] = {"registry": {"revision": record["revision"]}}
    if "error" in record:
        made["error"] = {"code": record["error"], "message": record.get("cause", record["error"])}
    else:
        made["result"] = _some(record, _ANSWERED)
    return made


def _some(record: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}
