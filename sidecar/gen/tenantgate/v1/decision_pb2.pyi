import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Effect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECT_UNSPECIFIED: _ClassVar[Effect]
    EFFECT_ALLOW: _ClassVar[Effect]
    EFFECT_DENY: _ClassVar[Effect]

class DecisionCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_CODE_UNSPECIFIED: _ClassVar[DecisionCode]
    DECISION_CODE_TENANT_MISMATCH: _ClassVar[DecisionCode]
    DECISION_CODE_TENANT_UNKNOWN: _ClassVar[DecisionCode]
    DECISION_CODE_TENANT_SUSPENDED: _ClassVar[DecisionCode]
    DECISION_CODE_IMPERSONATION: _ClassVar[DecisionCode]
    DECISION_CODE_DELEGATION_INVALID: _ClassVar[DecisionCode]
    DECISION_CODE_SUBJECT_NOT_MEMBER: _ClassVar[DecisionCode]
    DECISION_CODE_RESOURCE_SUSPENDED: _ClassVar[DecisionCode]
    DECISION_CODE_DENIED_BY_RULE: _ClassVar[DecisionCode]
    DECISION_CODE_SCOPE_INSUFFICIENT: _ClassVar[DecisionCode]
    DECISION_CODE_CONDITION_NOT_MET: _ClassVar[DecisionCode]
    DECISION_CODE_NO_MATCHING_RULE: _ClassVar[DecisionCode]
    DECISION_CODE_OBLIGATION_UNSUPPORTED: _ClassVar[DecisionCode]
    DECISION_CODE_ALLOWED: _ClassVar[DecisionCode]
    DECISION_CODE_POLICY_STALE: _ClassVar[DecisionCode]

class RuleVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RULE_VERDICT_UNSPECIFIED: _ClassVar[RuleVerdict]
    RULE_VERDICT_NARROWED_OUT: _ClassVar[RuleVerdict]
    RULE_VERDICT_APPLIES: _ClassVar[RuleVerdict]
    RULE_VERDICT_CONDITIONS_FAIL: _ClassVar[RuleVerdict]
    RULE_VERDICT_UNDECIDED: _ClassVar[RuleVerdict]

class ConditionResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_RESULT_UNSPECIFIED: _ClassVar[ConditionResult]
    CONDITION_RESULT_HOLDS: _ClassVar[ConditionResult]
    CONDITION_RESULT_FAILS: _ClassVar[ConditionResult]
    CONDITION_RESULT_UNEVALUABLE: _ClassVar[ConditionResult]
    CONDITION_RESULT_UNDECIDED: _ClassVar[ConditionResult]
EFFECT_UNSPECIFIED: Effect
EFFECT_ALLOW: Effect
EFFECT_DENY: Effect
DECISION_CODE_UNSPECIFIED: DecisionCode
DECISION_CODE_TENANT_MISMATCH: DecisionCode
DECISION_CODE_TENANT_UNKNOWN: DecisionCode
DECISION_CODE_TENANT_SUSPENDED: DecisionCode
DECISION_CODE_IMPERSONATION: DecisionCode
DECISION_CODE_DELEGATION_INVALID: DecisionCode
DECISION_CODE_SUBJECT_NOT_MEMBER: DecisionCode
DECISION_CODE_RESOURCE_SUSPENDED: DecisionCode
DECISION_CODE_DENIED_BY_RULE: DecisionCode
DECISION_CODE_SCOPE_INSUFFICIENT: DecisionCode
DECISION_CODE_CONDITION_NOT_MET: DecisionCode
DECISION_CODE_NO_MATCHING_RULE: DecisionCode
DECISION_CODE_OBLIGATION_UNSUPPORTED: DecisionCode
DECISION_CODE_ALLOWED: DecisionCode
DECISION_CODE_POLICY_STALE: DecisionCode
RULE_VERDICT_UNSPECIFIED: RuleVerdict
RULE_VERDICT_NARROWED_OUT: RuleVerdict
RULE_VERDICT_APPLIES: RuleVerdict
RULE_VERDICT_CONDITIONS_FAIL: RuleVerdict
RULE_VERDICT_UNDECIDED: RuleVerdict
CONDITION_RESULT_UNSPECIFIED: ConditionResult
CONDITION_RESULT_HOLDS: ConditionResult
CONDITION_RESULT_FAILS: ConditionResult
CONDITION_RESULT_UNEVALUABLE: ConditionResult
CONDITION_RESULT_UNDECIDED: ConditionResult

class Identity(_message.Message):
    __slots__ = ("tenant_id", "principal", "subject", "delegation", "scopes")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DELEGATION_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    principal: Principal
    subject: Subject
    delegation: _containers.RepeatedCompositeFieldContainer[Actor]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant_id: _Optional[str] = ..., principal: _Optional[_Union[Principal, _Mapping]] = ..., subject: _Optional[_Union[Subject, _Mapping]] = ..., delegation: _Optional[_Iterable[_Union[Actor, _Mapping]]] = ..., scopes: _Optional[_Iterable[str]] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("id", "roles", "properties")
    ID_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    id: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    properties: _struct_pb2.Struct
    def __init__(self, id: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Actor(_message.Message):
    __slots__ = ("id", "scopes")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    id: str
    scopes: Scopes
    def __init__(self, id: _Optional[str] = ..., scopes: _Optional[_Union[Scopes, _Mapping]] = ...) -> None: ...

class Scopes(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("type", "id", "properties")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    type: str
    id: str
    properties: _struct_pb2.Struct
    def __init__(self, type: _Optional[str] = ..., id: _Optional[str] = ..., properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("name", "properties")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    properties: _struct_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Obligation(_message.Message):
    __slots__ = ("type", "parameters")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    type: str
    parameters: _struct_pb2.Struct
    def __init__(self, type: _Optional[str] = ..., parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("decision_id", "effect", "code", "reason", "policy_id", "rule_id", "obligations", "revision", "as_of", "age", "explanation", "tenant_id")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    effect: Effect
    code: DecisionCode
    reason: str
    policy_id: str
    rule_id: str
    obligations: _containers.RepeatedCompositeFieldContainer[Obligation]
    revision: str
    as_of: _timestamp_pb2.Timestamp
    age: _duration_pb2.Duration
    explanation: Explanation
    tenant_id: str
    def __init__(self, decision_id: _Optional[str] = ..., effect: _Optional[_Union[Effect, str]] = ..., code: _Optional[_Union[DecisionCode, str]] = ..., reason: _Optional[str] = ..., policy_id: _Optional[str] = ..., rule_id: _Optional[str] = ..., obligations: _Optional[_Iterable[_Union[Obligation, _Mapping]]] = ..., revision: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., tenant_id: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("findings", "rules", "roles", "effective_scopes", "depends_on", "valid_until", "principal_id", "subject_id", "weakest_hop")
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_SCOPES_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    WEAKEST_HOP_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    rules: _containers.RepeatedCompositeFieldContainer[RuleOutcome]
    roles: _containers.RepeatedScalarFieldContainer[str]
    effective_scopes: _containers.RepeatedScalarFieldContainer[str]
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    valid_until: _timestamp_pb2.Timestamp
    principal_id: str
    subject_id: str
    weakest_hop: WeakestHop
    def __init__(self, findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., rules: _Optional[_Iterable[_Union[RuleOutcome, _Mapping]]] = ..., roles: _Optional[_Iterable[str]] = ..., effective_scopes: _Optional[_Iterable[str]] = ..., depends_on: _Optional[_Iterable[str]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., principal_id: _Optional[str] = ..., subject_id: _Optional[str] = ..., weakest_hop: _Optional[_Union[WeakestHop, _Mapping]] = ...) -> None: ...

class WeakestHop(_message.Message):
    __slots__ = ("actor_id", "hop", "lacks")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    HOP_FIELD_NUMBER: _ClassVar[int]
    LACKS_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    hop: int
    lacks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, actor_id: _Optional[str] = ..., hop: _Optional[int] = ..., lacks: _Optional[_Iterable[str]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("code", "reason", "policy_id", "rule_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    code: DecisionCode
    reason: str
    policy_id: str
    rule_id: str
    def __init__(self, code: _Optional[_Union[DecisionCode, str]] = ..., reason: _Optional[str] = ..., policy_id: _Optional[str] = ..., rule_id: _Optional[str] = ...) -> None: ...

class RuleOutcome(_message.Message):
    __slots__ = ("policy_id", "rule_id", "effect", "verdict", "narrowed_by", "conditions")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    NARROWED_BY_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    rule_id: str
    effect: Effect
    verdict: RuleVerdict
    narrowed_by: _containers.RepeatedScalarFieldContainer[str]
    conditions: _containers.RepeatedCompositeFieldContainer[ConditionOutcome]
    def __init__(self, policy_id: _Optional[str] = ..., rule_id: _Optional[str] = ..., effect: _Optional[_Union[Effect, str]] = ..., verdict: _Optional[_Union[RuleVerdict, str]] = ..., narrowed_by: _Optional[_Iterable[str]] = ..., conditions: _Optional[_Iterable[_Union[ConditionOutcome, _Mapping]]] = ...) -> None: ...

class ConditionOutcome(_message.Message):
    __slots__ = ("path", "op", "expected", "expected_from", "actual", "result")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FROM_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    path: str
    op: str
    expected: _struct_pb2.Value
    expected_from: str
    actual: _struct_pb2.Value
    result: ConditionResult
    def __init__(self, path: _Optional[str] = ..., op: _Optional[str] = ..., expected: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., expected_from: _Optional[str] = ..., actual: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., result: _Optional[_Union[ConditionResult, str]] = ...) -> None: ...
