"""The Kubernetes example is what Kubernetes takes, confines what it runs, and its settings and probes work."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sidecar.identity.development import DevelopmentIssuer
from sidecar.settings import load
from tests.support.deploying import (
    CHECKS,
    COMMANDS,
    DEPLOY,
    IMAGE_SETTINGS,
    IMAGE_USER,
    KUSTOMIZE,
    tenantgate_environment,
    tool,
)
from tests.support.processes import REPOSITORY, wait_until

if TYPE_CHECKING:
    from sidecar.settings import Settings

SIDECARS_SINCE = "1.29"  # the first version in which they need not be turned on
LATEST = "1.37"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `kubectl apply -k` sends, with release.pub where the docs say to put it, and release.key beside it."""
    folder = tmp_path_factory.mktemp("kubernetes") / "example"
    shutil.copytree(DEPLOY / "kubernetes", folder)
    tool([COMMANDS / "tenantgate", "bundle", "keygen", folder / "release"])
    built = folder.parent / "built.yaml"
    built.write_text(tool([KUSTOMIZE, "build", folder]))
    return built


@pytest.fixture(scope="module")
def objects(manifests: Path) -> dict[str, Any]:
    """The objects by their kind; there is one of each."""
    return {item["kind"]: item for item in yaml.safe_load_all(manifests.read_text())}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    """What the pod is to be."""
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    """The container of the sidecar."""
    (container,) = pod["initContainers"]
    return dict(container)


@pytest.fixture(scope="module")
def agent(pod: dict[str, Any]) -> dict[str, Any]:
    """The container of the agent runtime."""
    (container,) = pod["containers"]
    return dict(container)


@pytest.fixture(scope="module")
def settings(objects: dict[str, Any], sidecar: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings that the sidecar comes to: of the file, under those of the image and of the container."""
    file = tmp_path_factory.mktemp("settings") / "tenantgate.yaml"
    file.write_text(objects["ConfigMap"]["data"][Path(sidecar["args"][-1]).name])
    return load(file, IMAGE_SETTINGS | {entry["name"]: entry["value"] for entry in sidecar["env"]})


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the mounts of a container by their volumes."""
    return {mount["name"]: mount for mount in container["volumeMounts"]}


@pytest.mark.parametrize("version", [SIDECARS_SINCE, LATEST])
def test_kubernetes_takes_every_object(manifests: Path, objects: dict[str, Any], version: str) -> None:
    said = tool([CHECKS / "kubernetes-validate", "--strict", "-k", version, manifests])
    assert len(said.splitlines()) == len(objects) == 5
    assert all(f"against version {version}" in line for line in said.splitlines())


def test_the_settings_name_what_is_mounted(
    objects: dict[str, Any], sidecar: dict[str, Any], pod: dict[str, Any], settings: Settings
) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    there = mounts(sidecar)
    assert sidecar["args"][0] == "serve"
    assert volumes["settings"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    for file in (sidecar["args"][-1], *settings.bundles.keys):
        assert str(Path(file).parent) == there["settings"]["mountPath"]
        assert Path(file).name in objects["ConfigMap"]["data"]
    assert settings.state_dir == there["state"]["mountPath"]
    assert settings.socket_path is not None
    # everybody may write to an emptyDir: the sidecar makes a directory in it for its group
    assert str(settings.socket_path.parent.parent) == there["socket"]["mountPath"]
    assert not {"state", "socket"} & {name for name, mount in there.items() if mount.get("readOnly")}
    assert all("emptyDir" in volumes[name] for name in ("state", "socket"))


def test_the_agent_shares_the_socket_and_nothing_else(agent: dict[str, Any], settings: Settings) -> None:
    (mount,) = agent["volumeMounts"]
    assert mount["readOnly"]
    assert {"name": "SIDECAR_ADDRESS", "value": f"unix:{settings.socket_path}"} in agent["env"]
    assert settings.socket_path is not None
    assert settings.socket_path.is_relative_to(mount["mountPath"])


def test_the_two_users_meet_in_the_group_of_the_socket(
    pod: dict[str, Any], agent: dict[str, Any], sidecar: dict[str, Any], settings: Settings
) -> None:
    assert str(pod["securityContext"]["fsGroup"]) == IMAGE_USER
    assert str(sidecar["securityContext"]["runAsUser"]) == IMAGE_USER
    assert agent["securityContext"]["runAsUser"] != sidecar["securityContext"]["runAsUser"]
    assert int(settings.listen.socket_mode, 8) & 0o060 == 0o060
    assert settings.listen.tcp is None


def test_everything_is_confined(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    for container in chain(pod["initContainers"], pod["containers"]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert container["resources"].keys() == {"requests", "limits"}


def test_only_the_sidecar_is_somebody_to_aws(
    objects: dict[str, Any], pod: dict[str, Any], agent: dict[str, Any]
) -> None:
    # an annotation would have EKS give the role to every container
    assert "annotations" not in objects["ServiceAccount"]["metadata"]
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is pod["automountServiceAccountToken"] is False
    assert [entry["name"] for entry in agent["env"] if entry["name"].startswith("AWS_")] == []
    (volume,) = [volume for volume in pod["volumes"] if "projected" in volume]
    assert volume["name"] not in mounts(agent)


def test_the_sidecar_outlives_the_agent_and_has_time_to_drain(
    pod: dict[str, Any], sidecar: dict[str, Any], settings: Settings
) -> None:
    assert sidecar["restartPolicy"] == "Always"
    assert pod["terminationGracePeriodSeconds"] > 2 * settings.lifecycle.drain_seconds


def test_the_network_policy_is_of_the_pod_and_keeps_the_metadata_of_the_machine_from_it(
    objects: dict[str, Any], agent: dict[str, Any]
) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert (
        policy["podSelector"]["matchLabels"].items()
        <= objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert {*policy["policyTypes"]} == {"Ingress", "Egress"}
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [agent["ports"][0]["name"]]
    (block,) = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    assert "169.254.0.0/16" in block["except"]


def test_the_probes_tell_how_the_sidecar_is(
    manifests: Path, objects: dict[str, Any], sidecar: dict[str, Any], tmp_path: Path
) -> None:
    bundles, file = tmp_path / "bundles", tmp_path / "tenantgate.yaml"
    bundles.mkdir()
    file.write_text(objects["ConfigMap"]["data"]["tenantgate.yaml"])
    issuer = DevelopmentIssuer(tmp_path / "issuer").settings()
    # the settings of the example; what a cluster gives is here on this machine
    environment = tenantgate_environment(
        TENANTGATE_STATE_DIR=str(tmp_path / "state"),
        TENANTGATE_LISTEN__SOCKET=str(tmp_path / "calls" / "s.sock"),
        TENANTGATE_BUNDLES__SOURCE=str(bundles),
        TENANTGATE_BUNDLES__KEYS=json.dumps([str(manifests.parent / "example" / "release.pub")]),
        TENANTGATE_IDENTITY__ISSUERS=json.dumps([issuer]),
        TENANTGATE_LISTEN__ADMIN="127.0.0.1:0",
    )

    def probes() -> dict[str, bool]:
        names = ("startupProbe", "readinessProbe", "livenessProbe")
        commands = {name: sidecar[name]["exec"]["command"] for name in names}
        return {
            name: subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False).returncode == 0
            for name, command in commands.items()
        }

    command: list[str | Path] = [COMMANDS / "tenantgate", *sidecar["args"][:-1], file]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: probes()["livenessProbe"], 60)
            assert probes() == {"startupProbe": False, "readinessProbe": False, "livenessProbe": True}
            export = REPOSITORY / "examples" / "quickstart" / "export"
            key = manifests.parent / "example" / "release.key"
            build: list[str | Path] = [COMMANDS / "tenantgate", "bundle", "build", "--export", export, "--key", key]
            tool([*build, "--out", bundles / "base.tar.gz"])
            wait_until(lambda: probes()["readinessProbe"], 60)
            assert probes() == {"startupProbe": True, "readinessProbe": True, "livenessProbe": True}
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not any(probes().values())
