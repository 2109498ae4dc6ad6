"""Where bundles go besides the folder that they are made in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from sidecar.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


class S3Publisher:
    """Puts bundles into S3, under their names. An object appears whole or not at all. ``client`` is boto3's."""

    def __init__(self, client: Any, destination: str) -> None:
        url = urlsplit(destination)
        if url.scheme != "s3" or not url.netloc:
            msg = f"{destination}: not s3://BUCKET/PREFIX"
            raise BundleError(msg)
        self._client = client
        self._bucket = url.netloc
        self._prefix = f"{url.path.strip('/')}/" if url.path.strip("/") else ""

    def __call__(self, path: Path) -> None:
        """Publish a file. Raises ``BundleError``."""
        key = self._prefix + path.name
        try:
            with path.open("rb") as body:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/gzip")
        except (BotoCoreError, ClientError, OSError) as fault:
            msg = f"s3://{self._bucket}/{key}: cannot be published: {fault}"
            raise BundleError(msg) from fault
