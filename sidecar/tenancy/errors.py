"""What goes wrong in application code, by name.

A tree of its own beside that of ``sidecar.errors``, as it is raised where the application runs and never by the sidecar::

    TenantgateError
    ├── NoTenantError        code that works for a tenant runs where there is none
    ├── TenantMismatchError  two tenants are named where there must be one
    ├── ToolDeniedError      a tool may not be called: a denial, as frameworks for tools take it
    └── NoDecisionError      there is no decision, so that the call must not go on

Headers that are malformed are an ``InvalidRequestError``, tokens that are not believed an ``UnauthenticatedError``.
"""

from __future__ import annotations

from sidecar.errors import TenantgateError


class NoTenantError(TenantgateError):
    """Raised when code that works for a tenant runs where nobody has said which one."""


class TenantMismatchError(TenantgateError):
    """Raised when headers, a token, credentials and the context in force do not all name the same tenant."""


class ToolDeniedError(TenantgateError):
    """Raised in place of the call of a tool that was denied.

    Its text may be shown to the agent's model. ``code`` says in a stable word why, ``reason`` in a sentence, and ``decision_id``
    names the decision in the logs.
    """

    def __init__(self, resource_id: str, code: str, reason: str, decision_id: str) -> None:
        super().__init__(f"{resource_id} was not called. Access denied: {reason} ({code}, decision {decision_id})")
        self.resource_id = resource_id
        self.code = code
        self.reason = reason
        self.decision_id = decision_id


class NoDecisionError(TenantgateError):
    """Raised when there is no decision: the question is malformed, or the sidecar cannot be reached, or gives an error.

    ``reason`` says in a stable word why: that of the sidecar's error, such as ``POLICY_NOT_READY``, or gRPC's status where it has
    none. ``decision_id`` is what the sidecar's log knows the attempt by; empty where it was not reached.
    """

    def __init__(self, message: str, reason: str, decision_id: str = "") -> None:
        super().__init__(f"no decision was made: {message} ({reason})")
        self.reason = reason
        self.decision_id = decision_id
