import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from sidecar.gen.tenantgate.v1 import decision_pb2 as _decision_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ToolState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOOL_STATE_UNSPECIFIED: _ClassVar[ToolState]
    TOOL_STATE_ALLOWED: _ClassVar[ToolState]
    TOOL_STATE_DENIED: _ClassVar[ToolState]
    TOOL_STATE_CONDITIONAL: _ClassVar[ToolState]
TOOL_STATE_UNSPECIFIED: ToolState
TOOL_STATE_ALLOWED: ToolState
TOOL_STATE_DENIED: ToolState
TOOL_STATE_CONDITIONAL: ToolState

class AuthorizeRequest(_message.Message):
    __slots__ = ("identity", "resource", "action", "arguments", "context", "accepted_obligations", "explain", "min_as_of")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MIN_AS_OF_FIELD_NUMBER: _ClassVar[int]
    identity: _decision_pb2.Identity
    resource: _decision_pb2.Resource
    action: _decision_pb2.Action
    arguments: _struct_pb2.Struct
    context: _struct_pb2.Struct
    accepted_obligations: _containers.RepeatedScalarFieldContainer[str]
    explain: bool
    min_as_of: _timestamp_pb2.Timestamp
    def __init__(self, identity: _Optional[_Union[_decision_pb2.Identity, _Mapping]] = ..., resource: _Optional[_Union[_decision_pb2.Resource, _Mapping]] = ..., action: _Optional[_Union[_decision_pb2.Action, _Mapping]] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., accepted_obligations: _Optional[_Iterable[str]] = ..., explain: _Optional[bool] = ..., min_as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AuthorizeResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ...) -> None: ...

class BatchAuthorizeRequest(_message.Message):
    __slots__ = ("identity", "items", "accepted_obligations", "explain", "min_as_of")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MIN_AS_OF_FIELD_NUMBER: _ClassVar[int]
    identity: _decision_pb2.Identity
    items: _containers.RepeatedCompositeFieldContainer[BatchAuthorizeItem]
    accepted_obligations: _containers.RepeatedScalarFieldContainer[str]
    explain: bool
    min_as_of: _timestamp_pb2.Timestamp
    def __init__(self, identity: _Optional[_Union[_decision_pb2.Identity, _Mapping]] = ..., items: _Optional[_Iterable[_Union[BatchAuthorizeItem, _Mapping]]] = ..., accepted_obligations: _Optional[_Iterable[str]] = ..., explain: _Optional[bool] = ..., min_as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BatchAuthorizeItem(_message.Message):
    __slots__ = ("resource", "action", "arguments", "context")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    resource: _decision_pb2.Resource
    action: _decision_pb2.Action
    arguments: _struct_pb2.Struct
    context: _struct_pb2.Struct
    def __init__(self, resource: _Optional[_Union[_decision_pb2.Resource, _Mapping]] = ..., action: _Optional[_Union[_decision_pb2.Action, _Mapping]] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class BatchAuthorizeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchAuthorizeResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchAuthorizeResult, _Mapping]]] = ...) -> None: ...

class BatchAuthorizeResult(_message.Message):
    __slots__ = ("decision", "error")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    error: ItemError
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("reason", "message", "field")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    field: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class FilterToolsRequest(_message.Message):
    __slots__ = ("identity", "tools", "action", "context", "accepted_obligations", "min_as_of")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_AS_OF_FIELD_NUMBER: _ClassVar[int]
    identity: _decision_pb2.Identity
    tools: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Resource]
    action: _decision_pb2.Action
    context: _struct_pb2.Struct
    accepted_obligations: _containers.RepeatedScalarFieldContainer[str]
    min_as_of: _timestamp_pb2.Timestamp
    def __init__(self, identity: _Optional[_Union[_decision_pb2.Identity, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[_decision_pb2.Resource, _Mapping]]] = ..., action: _Optional[_Union[_decision_pb2.Action, _Mapping]] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., accepted_obligations: _Optional[_Iterable[str]] = ..., min_as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FilterToolsResponse(_message.Message):
    __slots__ = ("decision_id", "tools", "revision", "as_of", "age", "tenant_id")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    tools: _containers.RepeatedCompositeFieldContainer[FilteredTool]
    revision: str
    as_of: _timestamp_pb2.Timestamp
    age: _duration_pb2.Duration
    tenant_id: str
    def __init__(self, decision_id: _Optional[str] = ..., tools: _Optional[_Iterable[_Union[FilteredTool, _Mapping]]] = ..., revision: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tenant_id: _Optional[str] = ...) -> None: ...

class FilteredTool(_message.Message):
    __slots__ = ("id", "state", "code", "reason", "policy_id", "rule_id", "obligations", "residual", "extensions", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: ToolState
    code: _decision_pb2.DecisionCode
    reason: str
    policy_id: str
    rule_id: str
    obligations: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Obligation]
    residual: _containers.RepeatedCompositeFieldContainer[ResidualRule]
    extensions: _containers.RepeatedScalarFieldContainer[str]
    error: ItemError
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[ToolState, str]] = ..., code: _Optional[_Union[_decision_pb2.DecisionCode, str]] = ..., reason: _Optional[str] = ..., policy_id: _Optional[str] = ..., rule_id: _Optional[str] = ..., obligations: _Optional[_Iterable[_Union[_decision_pb2.Obligation, _Mapping]]] = ..., residual: _Optional[_Iterable[_Union[ResidualRule, _Mapping]]] = ..., extensions: _Optional[_Iterable[str]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ResidualRule(_message.Message):
    __slots__ = ("policy_id", "rule_id", "effect", "conditions")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    rule_id: str
    effect: _decision_pb2.Effect
    conditions: _containers.RepeatedCompositeFieldContainer[_decision_pb2.ConditionOutcome]
    def __init__(self, policy_id: _Optional[str] = ..., rule_id: _Optional[str] = ..., effect: _Optional[_Union[_decision_pb2.Effect, str]] = ..., conditions: _Optional[_Iterable[_Union[_decision_pb2.ConditionOutcome, _Mapping]]] = ...) -> None: ...
