"""The role behind the credentials: who may assume it and how, and what its sessions may do; as IAM's JSON, and as templates.

Pure functions. A trust policy lets a session in only if it carries the tenant, as the one tag it has, and hands it on to every
session made from it. Actions and condition keys are those of AWS's service authorization reference for STS.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.credentials.templates import Document, document
from sidecar.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROLE = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>[0-9]{12}):role(?P<path>/(?:.*/)?)(?P<name>[\w+=,.@-]{1,64})"
)
_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]+")
_PROVIDER = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/(?P<issuer>[\w./-]+)")

POLICY_NAME = "tenant-data"
"""The name of the permission policy in the role."""

_SHORTEST_SECONDS = 3600


class Role(Struct, frozen=True):
    """The role that is assumed for every tenant, by the parts of its ARN."""

    partition: str
    account: str
    path: str
    name: str

    @classmethod
    def parse(cls, arn: str) -> Role:
        """Read an ARN. Raises ``SettingsError``."""
        return cls(
            **_match(_ROLE, arn, "the ARN of a role, such as arn:aws:iam::123456789012:role/tenant-data").groupdict()
        )

    @property
    def arn(self) -> str:
        """The whole of it."""
        return f"arn:{self.partition}:iam::{self.account}:role{self.path}{self.name}"


def trust_principals(principals: Sequence[str], tenant_tag: str) -> Document:
    """Give the trust policy for ``credentials.method: assume_role``: these roles or users assume it, as the sidecar does.

    Raises ``SettingsError`` for what is not the ARN of a role or user: an account, or everyone, is more than the sidecar.
    """
    for arn in principals:
        _match(_PRINCIPAL, arn, "the ARN of a role or user, such as arn:aws:iam::123456789012:role/agent-runtime")
    who = {"AWS": [*principals]}
    tags = _tag_conditions(tenant_tag)
    subject = {"StringLike": {"sts:SourceIdentity": "?*"}}
    both = {**tags, "StringLike": {**tags["StringLike"], **subject["StringLike"]}}
    return document(
        [
            _trust("AssumeForTenant", who, "sts:AssumeRole", both),
            _trust("TagWithTenant", who, "sts:TagSession", tags),
            _trust("NameSubject", who, "sts:SetSourceIdentity", subject),
        ]
    )


def trust_provider(provider: str, audiences: Sequence[str], tenant_tag: str) -> Document:
    """Give the trust policy for ``credentials.method: web_identity``: tokens of an OIDC provider assume it, if meant for us.

    The subject is in CloudTrail as the token has it, so a source identity may be there but need not. Raises ``SettingsError``.
    """
    issuer = _match(
        _PROVIDER,
        provider,
        "the ARN of an OIDC provider, such as arn:aws:iam::123456789012:oidc-provider/issuer.example.com",
    )["issuer"]
    who = {"Federated": [provider]}
    tags = _tag_conditions(tenant_tag)
    audience = {"StringEquals": {f"{issuer}:aud": [*audiences]}}
    subject = {"StringLike": {"sts:SourceIdentity": "?*"}}
    return document(
        [
            _trust("AssumeForTenant", who, "sts:AssumeRoleWithWebIdentity", {**tags, **audience}),
            _trust("TagWithTenant", who, "sts:TagSession", tags),
            _trust("NameSubject", who, "sts:SetSourceIdentity", subject),
        ]
    )


def caller_policy(role: Role) -> Document:
    """Give what the sidecar's own role or user needs, to assume the role with a tag and a source identity."""
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    return document([{"Sid": "GiveTenantCredentials", "Effect": "Allow", "Action": actions, "Resource": [role.arn]}])


def cloudformation(role: Role, trust: Document, permissions: Document, duration_seconds: int) -> Document:
    """Give a CloudFormation template with the role, whose sessions may last so long."""
    properties = {
        "RoleName": role.name,
        "Path": role.path,
        "MaxSessionDuration": max(duration_seconds, _SHORTEST_SECONDS),
        "AssumeRolePolicyDocument": trust,
        "Policies": [{"PolicyName": POLICY_NAME, "PolicyDocument": permissions}],
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The role that tenantgate assumes for every tenant",
        "Resources": {"TenantRole": {"Type": "AWS::IAM::Role", "Properties": properties}},
        "Outputs": {"RoleArn": {"Value": {"Fn::GetAtt": ["TenantRole", "Arn"]}}},
    }


def terraform(role: Role, trust: Document, permissions: Document, duration_seconds: int) -> Document:
    """Give a Terraform configuration in JSON (``.tf.json``) with the role, whose sessions may last so long."""
    resources = {
        "aws_iam_role": {
            "tenant": {
                "name": role.name,
                "path": role.path,
                "max_session_duration": max(duration_seconds, _SHORTEST_SECONDS),
                "assume_role_policy": _literal(trust),
            }
        },
        "aws_iam_role_policy": {
            "tenant": {"name": POLICY_NAME, "role": "${aws_iam_role.tenant.id}", "policy": _literal(permissions)}
        },
    }
    return {"resource": resources, "output": {"tenant_role_arn": {"value": "${aws_iam_role.tenant.arn}"}}}


def _tag_conditions(tenant_tag: str) -> dict[str, Document]:
    """Require the tenant, as the only tag of the session, and one that sessions made from it cannot change.

    ``ForAllValues`` holds for no values too, so the keys must be there.
    """
    return {
        "StringLike": {f"aws:RequestTag/{tenant_tag}": "?*"},
        "ForAllValues:StringEquals": {"aws:TagKeys": [tenant_tag], "sts:TransitiveTagKeys": [tenant_tag]},
        "Null": {"aws:TagKeys": "false", "sts:TransitiveTagKeys": "false"},
    }


def _trust(sid: str, principal: Document, action: str, conditions: Document) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Principal": principal, "Action": [action], "Condition": conditions}


def _literal(policy: Document) -> str:
    """Write a policy as the text of an argument, in which Terraform must not look for expressions of its own."""
    return json.dumps(policy).replace("${", "$${").replace("%{", "%%{")


def _match(pattern: re.Pattern[str], text: str, wanted: str) -> re.Match[str]:
    if (found := pattern.fullmatch(text)) is None:
        msg = f"{text!r} is not {wanted}"
        raise SettingsError(msg)
    return found
