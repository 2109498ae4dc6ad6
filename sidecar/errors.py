"""Everything that can go wrong, by name.

A denial is not in this tree: it is a value. An exception means that no decision could be made::

    TenantgateError
    ├── InvalidRequestError        the caller's question is malformed
    ├── UnauthenticatedError       who calls cannot be established: no token, or one that is not believed
    ├── ClientUnknownError         who connects over TLS is none of those that may
    ├── OverloadedError            more calls in flight than the sidecar takes on
    ├── RevisionTooOldError        the caller asks for a newer registry than the one in force
    ├── DeadlineExceededError      the caller's deadline passed before there was a decision
    ├── CredentialsUnavailableError  an ALLOW cannot be turned into credentials: a value is not one that STS carries
    ├── CredentialsNotGivenError   STS cannot be reached, or refuses
    ├── NotRecordedError           the decision log has no room for a record without which no decision leaves
    ├── EngineError                OPA gave no decision
    │   ├── EngineUnavailableError     it cannot be reached, or did not answer in time
    │   ├── NotReadyError              it has no policy or registry yet: the decision is undefined
    │   ├── EvaluationError            it reports that it could not evaluate
    │   ├── MalformedAnswerError       it answered something that is not a decision
    │   └── RevisionRolledBackError    it answered under an older registry than one that has been served
    ├── SettingsError              a setting is unknown, ill-typed or unsafe
    ├── SealError                  a bundle is damaged, unsigned, tampered with, or not ours
    ├── StartError                 the sidecar cannot start: OPA, a port, a socket or the bundle
    └── RegistryError              the registry cannot be read, edited or turned into a bundle
        ├── TableError                 the table is missing, of another form or out of reach
        ├── ConflictError              an item is no longer as it was when it was read
        ├── ExportError                an export is incomplete, damaged or of an unknown form
        ├── PositionLostError          the stream of the table cannot be followed on from where it was read to
        ├── MalformedItemsError        items are recognised but malformed
        └── BundleError                a bundle cannot be written or read

The messages are for the person who can do something about it: they name the thing and, where there is one, the remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TenantgateError(Exception):
    """The root: raised by nothing, caught where any failure must become an answer."""


class InvalidRequestError(TenantgateError):
    """Raised when a field of a request is missing, too large or ill-formed.

    ``field`` is its path as the caller wrote it, such as ``resource.id`` or ``items[3].arguments``.
    """

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field}: {fault}")
        self.field = field
        self.fault = fault


class UnauthenticatedError(TenantgateError):
    """Raised when a caller gives no proof, or a bad one, of who it is.

    ``reason`` says in a stable word what is wrong, such as ``TOKEN_EXPIRED``, for callers and for counting. The message never
    holds the token or any part of it.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ClientUnknownError(TenantgateError):
    """Raised when the certificate of who connects over TLS has no name that the setting ``tls.allowed_clients`` admits."""


class CredentialsUnavailableError(TenantgateError):
    """Raised when what was allowed cannot be turned into credentials, as STS cannot carry a value or has no room for it."""


class CredentialsNotGivenError(TenantgateError):
    """Raised when STS cannot be reached in time, or refuses."""


class OverloadedError(TenantgateError):
    """Raised when as many calls are in flight as the setting ``limits.in_flight`` admits."""


class RevisionTooOldError(TenantgateError):
    """Raised when the registry in force is older than the ``min_as_of`` of the request."""


class DeadlineExceededError(TenantgateError):
    """Raised when the caller's deadline passes before there is a decision."""


class NotRecordedError(TenantgateError):
    """Raised when a decision must not leave, as the decision log has no room for its record (``audit.on_full: block``)."""


class EngineError(TenantgateError):
    """Raised when OPA gives no decision, for a reason that a subclass names."""


class EngineUnavailableError(EngineError):
    """Raised when OPA cannot be reached or does not answer in time."""


class NotReadyError(EngineError):
    """Raised when OPA answers that the decision is undefined: policy or registry are not loaded."""


class EvaluationError(EngineError):
    """Raised when OPA reports an error instead of a result."""


class MalformedAnswerError(EngineError):
    """Raised when OPA's answer has any other shape than the documented one."""


class RevisionRolledBackError(EngineError):
    """Raised when OPA decides under an older registry than one that this sidecar has served decisions under."""


class SettingsError(TenantgateError):
    """Raised when a setting is unknown, has the wrong type, is out of range or makes an unsafe combination."""


class SealError(TenantgateError):
    """Raised when a bundle is damaged, not ours, unsigned, signed with a foreign key, or not what was signed.

    ``reason`` says which in a stable word, for counting.
    """

    def __init__(self, message: str, reason: str = "DAMAGED") -> None:
        super().__init__(message)
        self.reason = reason


class StartError(TenantgateError):
    """Raised when something that the sidecar needs at start is missing, taken or of another version."""


class RegistryError(TenantgateError):
    """Raised when the registry cannot be read, edited or turned into a bundle, for a reason that a subclass names."""


class TableError(RegistryError):
    """Raised when the table is missing, has another form than the registry needs, or cannot be reached."""


class ConflictError(RegistryError):
    """Raised when items are no longer as they were when they were read. ``conflicts`` names each, and what to do about it."""

    SHOWN = 20

    def __init__(self, conflicts: Sequence[str], outcome: str) -> None:
        shown = [*conflicts[: self.SHOWN]]
        if len(conflicts) > self.SHOWN:
            shown.append(f"... and {len(conflicts) - self.SHOWN} more")
        super().__init__("\n  ".join([outcome, *shown]))
        self.conflicts = tuple(conflicts)


class ExportError(RegistryError):
    """Raised when an export is incomplete, damaged or of a form that is not supported."""


class BundleError(RegistryError):
    """Raised when a bundle cannot be written, or is not one of ours."""


class PositionLostError(RegistryError):
    """Raised when changes of the table may have been missed, so that only a new base can tell the state of the registry."""


class MalformedItemsError(RegistryError):
    """Raised when items are recognised but malformed. ``faults`` names each item and attribute."""

    SHOWN = 20

    def __init__(self, faults: Sequence[str]) -> None:
        shown = [*faults[: self.SHOWN]]
        if len(faults) > self.SHOWN:
            shown.append(f"... and {len(faults) - self.SHOWN} more")
        super().__init__(f"{len(faults)} malformed item(s):\n  " + "\n  ".join(shown))
        self.faults = tuple(faults)
