"""Sealed bundles: what OPA signs we sign alike, what we sign OPA takes, and what was changed nobody takes."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import seal
from sidecar.bundles.build import Recipe, build_base
from sidecar.bundles.signing import CommandSigner, FileSigner, make_keys
from sidecar.cli import main
from sidecar.errors import SealError
from sidecar.registry.exports import Export
from tests.support.processes import EXTENSIONS, OPA, POLICIES
from tests.support.registries import DATA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sidecar.bundles.signing import Signer

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys named one (ES256), two (RS256) and foreign."""
    folder = tmp_path_factory.mktemp("keys")
    for name, algorithm in (("one", "ES256"), ("two", "RS256"), ("foreign", "ES256")):
        make_keys(folder / f"{name}.key", folder / f"{name}.pub", algorithm)
    return folder


def build(out: Path, signer: Signer | None) -> Path:
    """Build the sample bundle."""
    build_base(Export(str(DATA / "export-full")), out, Recipe(POLICIES, EXTENSIONS, signer))
    return out


@pytest.fixture(scope="module")
def signed(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample bundle, signed with the key one."""
    return build(tmp_path_factory.mktemp("signed") / "base.tar.gz", FileSigner(keys / "one.key"))


def check(path: Path, keys: Path, *names: str) -> seal.Sealed:
    """Check a bundle's seal with some of the public keys."""
    with path.open("rb") as file:
        return seal.check(file, seal.public_keys(keys / f"{name}.pub" for name in names))


def unpack(path: Path) -> Files:
    """Give the files of a bundle."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def pack(files: Files, out: Path) -> Path:
    """Write a bundle of files."""
    with gzip.open(out, "wb") as zipped, tarfile.open(mode="w", fileobj=zipped) as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return out


def opa_takes(bundle: Path, keys: Path, *names: str) -> bool:
    """Tell whether the real OPA activates a bundle when it must be signed with one of some keys."""
    config = {
        "keys": {
            n: {"algorithm": k.algorithm, "key": k.pem}
            for n, k in seal.public_keys(keys / f"{n}.pub" for n in names).items()
        },
        "bundles": {"b": {"resource": bundle.resolve().as_uri(), "signing": {}}},
    }
    path = bundle.with_name("opa.json")
    path.write_text(json.dumps(config))
    command: list[str | Path] = [OPA, "run", "--server", "--addr", "127.0.0.1:0", "--config-file", path]
    command += ["--log-format", "json", "--skip-version-check"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "activated successfully" in line:
                    return True
                if "Bundle load failed" in line or "Bundle activation failed" in line:
                    return False
        finally:
            process.terminate()
    msg = "OPA ended without a word"
    raise AssertionError(msg)


@pytest.mark.parametrize("key", ["one", "two"])
def test_a_signed_bundle_is_taken_by_us_and_by_opa(keys: Path, tmp_path: Path, key: str) -> None:
    bundle = build(tmp_path / "base.tar.gz", FileSigner(keys / f"{key}.key"))
    sealed = check(bundle, keys, "one", "two")
    assert (sealed.kind, sealed.key_id) == ("base", key)
    assert opa_takes(bundle, keys, "one", "two")


def test_what_an_external_command_signs_is_taken(keys: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        signer = CommandSigner(f"openssl dgst -sha256 -sign {keys / f'{name}.key'}", keys / f"{name}.pub")
        bundle = build(tmp_path / "base.tar.gz", signer)
        assert check(bundle, keys, "one", "two").key_id == name
        assert opa_takes(bundle, keys, name)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("openssl dgst -sha256 -sign {foreign}", "does not belong to the public key one"),
        ("false", "exit status 1"),
        ("echo nonsense", "gives no signature"),
        ("no-such-command", "gives no signature"),
    ],
)
def test_a_command_that_does_not_sign_for_the_key_is_found_out(keys: Path, command: str, words: str) -> None:
    signer = CommandSigner(command.format(foreign=keys / "foreign.key"), keys / "one.pub")
    with pytest.raises(SealError, match=words):
        signer.sign({"a": "b"})


def _change(name: str) -> Callable[[Files], Files]:
    return lambda files: {**files, name: files[name][:-2] + bytes([files[name][-2] ^ 1]) + files[name][-1:]}


def _without(name: str) -> Callable[[Files], Files]:
    return lambda files: {n: body for n, body in files.items() if n != name}


_NAMES = [".manifest", "registry/base/data.json", "registry/base/meta/data.json", "tenantgate/decision/decision.rego"]
TAMPERED: dict[str, Callable[[Files], Files]] = {
    **{f"one byte changed in {name}": _change(name) for name in _NAMES},
    **{f"without {name}": _without(name) for name in [*_NAMES, ".signatures.json"]},
    "with an extra file": lambda files: {**files, "tenantgate/extra/extra.rego": b"package tenantgate.extra\n"},
    "with an extra data file": lambda files: {**files, "custom/x/data.json": b"{}"},
    "with an empty signature file": lambda files: {**files, ".signatures.json": b'{"signatures":[]}'},
}


@pytest.mark.parametrize("tampering", TAMPERED)
def test_a_bundle_that_was_tampered_with_is_refused_by_us_and_by_opa(
    signed: Path, keys: Path, tmp_path: Path, tampering: str
) -> None:
    bundle = pack(TAMPERED[tampering](unpack(signed)), tmp_path / "base.tar.gz")
    with pytest.raises(SealError):
        check(bundle, keys, "one")
    assert not opa_takes(bundle, keys, "one")


def test_every_file_of_a_bundle_is_guarded(signed: Path, keys: Path, tmp_path: Path) -> None:
    files = unpack(signed)
    for name in files:
        bundle = pack(_change(name)(files), tmp_path / "base.tar.gz")
        with pytest.raises(SealError):
            check(bundle, keys, "one")


def test_a_foreign_key_is_refused_by_us_and_by_opa(signed: Path, keys: Path) -> None:
    with pytest.raises(SealError, match="none of foreign"):
        check(signed, keys, "foreign")
    assert not opa_takes(signed, keys, "foreign")


def test_a_key_of_the_same_name_does_not_help(signed: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "one.pub").write_bytes((keys / "foreign.pub").read_bytes())
    with pytest.raises(SealError, match="signature is not valid"):
        check(signed, tmp_path, "one")


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_of_another_algorithm_is_refused(signed: Path, keys: Path, tmp_path: Path, algorithm: str) -> None:
    files = unpack(signed)
    token = json.loads(files[".signatures.json"])["signatures"][0]
    payload = jwt.PyJWS().decode(token, options={"verify_signature": False})
    secret: Any = None if algorithm == "none" else b"x" * 64
    forged = jwt.PyJWS().encode(payload, secret, algorithm, {"kid": "one"})
    bundle = pack(
        {**files, ".signatures.json": json.dumps({"signatures": [forged]}).encode()}, tmp_path / "base.tar.gz"
    )
    with pytest.raises(SealError, match="signature is not valid"):
        check(bundle, keys, "one")


@pytest.mark.parametrize("part", [0, 10, 500, -1])
def test_a_truncated_bundle_is_refused(signed: Path, keys: Path, tmp_path: Path, part: int) -> None:
    bundle = tmp_path / "base.tar.gz"
    bundle.write_bytes(signed.read_bytes()[:part])
    with pytest.raises(SealError):
        check(bundle, keys, "one")


def test_two_keys_are_valid_while_one_takes_the_place_of_the_other(keys: Path, tmp_path: Path) -> None:
    for key in ("one", "two"):
        assert (
            check(build(tmp_path / f"{key}.tar.gz", FileSigner(keys / f"{key}.key")), keys, "one", "two").key_id == key
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), min_size=1, max_size=20))
def test_canonical_json_has_the_hash_that_opa_computes(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("canonical")
    for number, document in enumerate(documents):
        (folder / f"d{number}").mkdir()
        (folder / f"d{number}" / "data.json").write_bytes(seal.canonical(document))
    secret = "x" * 64
    command: list[str | Path] = [OPA, "sign", "--signing-alg", "HS256", "--signing-key", secret, "--bundle", "."]
    subprocess.run([*command, "--output-file-path", "."], cwd=folder, check=True)
    token = json.loads((folder / ".signatures.json").read_text())["signatures"][0]
    theirs = {file["name"]: file["hash"] for file in jwt.decode(token, secret, algorithms=["HS256"])["files"]}
    import hashlib  # noqa: PLC0415 - used here alone

    ours = {
        f"d{number}/data.json": hashlib.sha256(seal.canonical(document)).hexdigest()
        for number, document in enumerate(documents)
    }
    assert ours == theirs


def test_keygen_makes_keys_that_sign_and_never_overwrites_one(tmp_path: Path) -> None:
    run = CliRunner()
    made = run.invoke(main, ["bundle", "keygen", str(tmp_path / "release")])
    assert made.exit_code == 0
    assert (tmp_path / "release.key").stat().st_mode & 0o777 == 0o600
    assert (
        check(build(tmp_path / "b.tar.gz", FileSigner(tmp_path / "release.key")), tmp_path, "release").key_id
        == "release"
    )
    again = run.invoke(main, ["bundle", "keygen", str(tmp_path / "release")])
    assert again.exit_code == 2
    assert "a key is not overwritten" in again.stderr


@pytest.mark.parametrize("body", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\0"])
def test_what_is_no_key_is_told(tmp_path: Path, body: str) -> None:
    path = tmp_path / "k.pub"
    path.write_text(body)
    with pytest.raises(SealError, match=r"k\.pub: not a public key"):
        seal.read_public_key(path)


def test_a_weak_key_is_refused(tmp_path: Path) -> None:
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "weak.key", "1024"], check=True, capture_output=True)
    with pytest.raises(SealError, match="at least 2048 bits"):
        FileSigner(tmp_path / "weak.key")
