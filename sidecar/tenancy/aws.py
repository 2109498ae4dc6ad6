"""A guard for clients of AWS: no request is signed unless it is made for a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.tenancy.context import current
from sidecar.tenancy.errors import TenantMismatchError

if TYPE_CHECKING:
    from sidecar.tenancy.calls import Credentials


def guard(target: Any, credentials: Credentials | None = None) -> None:
    """Have a boto3 client or resource, or all clients that a session makes from now on, refuse to work outside of a context.

    Requests, presigned URLs and presigned posts alike raise ``NoTenantError`` there. With ``credentials``, as ``exchange`` gives
    them, they raise ``TenantMismatchError`` too: in the context of another tenant than that for which the credentials were
    exchanged, and when the target signs with others. S3 transfers work in threads of their own, where there is no context:
    give them ``TransferConfig(use_threads=False)``.
    """

    def check(request: Any, request_signer: Any, signing_name: str, region_name: str, **event: Any) -> None:
        tenant = current().tenant_id
        if credentials is None:
            return
        if tenant != credentials.tenant_id:
            msg = f"credentials of {credentials.tenant_id!r} are used while a request of {tenant!r} is worked on"
            raise TenantMismatchError(msg)
        version, signing = event["signature_version"], request.context.get("signing", {})
        signer = None
        if isinstance(version, str):  # else botocore.UNSIGNED
            signer = request_signer.get_auth_instance(
                signing_name, region_name, version, signing.get("request_credentials")
            )
        used = getattr(signer, "credentials", None)
        if used is None or used.access_key != credentials.access_key_id:
            msg = f"the client does not sign with the credentials that were exchanged for {tenant!r}"
            raise TenantMismatchError(msg)

    # Emitted by botocore.signers.RequestSigner.sign, for all that is signed and for what is marked to go unsigned.
    _events(target).register("before-sign", check)


def _events(target: Any) -> Any:
    """Give where a client, a resource or a session tells of what it does."""
    meta = getattr(target, "meta", None)
    if meta is None:
        return target.events
    return getattr(meta, "client", target).meta.events
