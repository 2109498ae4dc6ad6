"""The two translations of globs, in Python for the compiler and in Rego for requests, are one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.registry import globs

_REGO = Path(__file__).parents[2] / "policies" / "tenantgate" / "globs" / "globs.rego"

# an empty list stands for a glob that the Rego refuses, for which it is undefined
_QUERY = "[regexes | some glob in input; regexes := [r | r := data.tenantgate.globs.to_regex(glob)]]"

_PIECES = st.sampled_from([*"ab:/.+?()|[]{}^$\\-&~#'\"`%é\t\x7f\U0001f512", "*", "**", "***"])
_GLOBS = st.lists(_PIECES, max_size=8).map("".join) | st.text(max_size=8)


# hundreds of globs in one draw, because starting OPA costs far more than translating them
@settings(max_examples=3, deadline=None)
@given(globs_made=st.lists(_GLOBS, min_size=200, max_size=400, unique=True))
def test_python_and_rego_translate_every_glob_alike(opa_binary: Path, globs_made: list[str]) -> None:
    expected = [[] if globs.glob_fault(glob) else [globs.to_regex(glob)] for glob in globs_made]
    assert _translate_in_rego(opa_binary, globs_made) == expected


def _translate_in_rego(opa: Path, texts: list[str]) -> list[list[str]]:
    command = [str(opa), "eval", "--stdin-input", "--format", "raw", "--data", str(_REGO), _QUERY]
    ran = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    answer: list[list[str]] = json.loads(ran.stdout)
    return answer
