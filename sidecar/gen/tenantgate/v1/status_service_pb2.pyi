import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("serving", "problem", "version", "started_at", "identity_mode", "revision", "as_of", "age", "max_staleness", "opa", "bundles", "tls", "audit")
    SERVING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_MODE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_FIELD_NUMBER: _ClassVar[int]
    OPA_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    serving: bool
    problem: str
    version: str
    started_at: _timestamp_pb2.Timestamp
    identity_mode: str
    revision: str
    as_of: _timestamp_pb2.Timestamp
    age: _duration_pb2.Duration
    max_staleness: _duration_pb2.Duration
    opa: OpaStatus
    bundles: _containers.RepeatedCompositeFieldContainer[BundleStatus]
    tls: TlsStatus
    audit: _containers.RepeatedCompositeFieldContainer[SinkStatus]
    def __init__(self, serving: _Optional[bool] = ..., problem: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., identity_mode: _Optional[str] = ..., revision: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., opa: _Optional[_Union[OpaStatus, _Mapping]] = ..., bundles: _Optional[_Iterable[_Union[BundleStatus, _Mapping]]] = ..., tls: _Optional[_Union[TlsStatus, _Mapping]] = ..., audit: _Optional[_Iterable[_Union[SinkStatus, _Mapping]]] = ...) -> None: ...

class OpaStatus(_message.Message):
    __slots__ = ("embedded", "address", "version", "pid", "restarts")
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    embedded: bool
    address: str
    version: str
    pid: int
    restarts: int
    def __init__(self, embedded: _Optional[bool] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., pid: _Optional[int] = ..., restarts: _Optional[int] = ...) -> None: ...

class SinkStatus(_message.Message):
    __slots__ = ("name", "written", "dropped", "failures", "waiting", "delay", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    written: int
    dropped: int
    failures: int
    waiting: int
    delay: _duration_pb2.Duration
    error: str
    def __init__(self, name: _Optional[str] = ..., written: _Optional[int] = ..., dropped: _Optional[int] = ..., failures: _Optional[int] = ..., waiting: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class TlsStatus(_message.Message):
    __slots__ = ("until", "error", "reloads", "refused")
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RELOADS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    until: _timestamp_pb2.Timestamp
    error: str
    reloads: int
    refused: int
    def __init__(self, until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[str] = ..., reloads: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...

class BundleStatus(_message.Message):
    __slots__ = ("name", "revision", "as_of", "key_id", "persisted", "active", "held_revision", "error", "refused", "refusals", "last_refusal")
    class RefusalsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PERSISTED_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    HELD_REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    LAST_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: str
    as_of: _timestamp_pb2.Timestamp
    key_id: str
    persisted: bool
    active: bool
    held_revision: str
    error: str
    refused: int
    refusals: _containers.ScalarMap[str, int]
    last_refusal: BundleRefusal
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key_id: _Optional[str] = ..., persisted: _Optional[bool] = ..., active: _Optional[bool] = ..., held_revision: _Optional[str] = ..., error: _Optional[str] = ..., refused: _Optional[int] = ..., refusals: _Optional[_Mapping[str, int]] = ..., last_refusal: _Optional[_Union[BundleRefusal, _Mapping]] = ...) -> None: ...

class BundleRefusal(_message.Message):
    __slots__ = ("file", "reason", "message", "time")
    FILE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    file: str
    reason: str
    message: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, file: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
