"""Whether a URL answers to the bearer of a token in a file: the health check of compose.yaml for what serves bundles."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

url, token = sys.argv[1], Path(sys.argv[2]).read_text()
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - the operator's
urllib.request.urlopen(request, timeout=4).close()  # noqa: S310
