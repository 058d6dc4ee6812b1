"""What the containers, the pods and the units may do: no more than they need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.routes.health import ROUTES as HEALTH_ROUTES
from gateway.settings import GatewaySettings
from indexer.index.settings import ENV_PREFIX

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())[
    "services"
]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = [
    manifest
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]
SETTINGS = {
    ENV_PREFIX + name.upper(): field for name, field in GatewaySettings.model_fields.items()
}


def of_kind(kind: str) -> dict[str, Any]:
    [found] = [manifest for manifest in MANIFESTS if manifest["kind"] == kind]
    return dict(found)


def pods() -> list[dict[str, Any]]:
    job = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]
    return [each["template"]["spec"] for each in (of_kind("Deployment")["spec"], job)]


def containers() -> list[dict[str, Any]]:
    return [container for pod in pods() for container in pod["containers"]]


def options(unit: Path) -> dict[str, list[str]]:
    """Each option of the section [Service], with all of its values."""
    section = unit.read_text().partition("[Service]\n")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and line[0] != "#":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_cannot_take_the_host_along(name: str) -> None:
    service = SERVICES[name]

    assert 0 < service["pids_limit"] <= 8192
    # All of the weights pass through vLLM when it starts.
    assert ("mem_limit" in service) is (name != "vllm")


@pytest.mark.parametrize("name", ["vllm", "etcd", "minio"])
def test_a_service_of_others_is_not_root(name: str) -> None:
    assert re.fullmatch(r"[1-9]\d+:\d+", SERVICES[name]["user"])


def test_our_images_are_not_root() -> None:
    stage = (DEPLOY / "Dockerfile").read_text().split(" AS service\n")[1].partition("\nFROM ")[0]

    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)


def test_our_images_take_only_what_the_lists_say_and_tell_what_that_is() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()

    assert dockerfile.count("pip install ") == dockerfile.count("--no-deps --require-hashes ") == 2
    for image in ("gateway", "indexer"):
        assert f"COPY deploy/sbom/{image}.cdx.json /usr/share/sbom/\n" in dockerfile


@pytest.mark.parametrize("pod", pods(), ids=["gateway", "indexer"])
def test_a_pod_has_no_rights_in_the_cluster_and_none_of_root(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize("container", containers(), ids=["gateway", "indexer"])
def test_a_container_of_a_pod_may_write_to_its_volumes_alone(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
    writable = {
        mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
    }
    assert writable == {"/models", "/tmp"}
    assert variables(container)["HF_HOME"] in writable


@pytest.mark.parametrize("pod", pods(), ids=["gateway", "indexer"])
def test_what_a_pod_may_write_to_memory_or_the_node_has_an_end(pod: dict[str, Any]) -> None:
    for volume in pod["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]


def test_a_pod_of_the_gateway_has_settings_and_probes_that_exist() -> None:
    [container] = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    paths = {path for handler in HEALTH_ROUTES for path in handler.paths}
    probes = {name: probe for name, probe in container.items() if name.endswith("Probe")}

    assert {name for name in variables(container) if name.startswith(ENV_PREFIX)} <= set(SETTINGS)
    assert {probe["httpGet"]["path"] for probe in probes.values()} <= paths
    # Milvus or vLLM being away is no reason to start again.
    assert probes["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert probes["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    [port] = container["ports"]
    assert port["containerPort"] == 8080
    assert of_kind("Service")["spec"]["ports"][0]["targetPort"] == port["name"]


def test_a_pod_may_finish_what_is_running_and_is_found_gone_before_it_stops() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    delay, drain = (
        float(variables(container)[f"{ENV_PREFIX}{name}"])
        for name in ("SHUTDOWN_DELAY_S", "DRAIN_TIMEOUT_S")
    )
    readiness = container["readinessProbe"]

    assert pod["terminationGracePeriodSeconds"] > delay + drain
    assert delay >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_copies_of_the_gateway_are_replaced_one_by_one() -> None:
    deployment = of_kind("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]

    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert deployment["replicas"] > of_kind("PodDisruptionBudget")["spec"]["minAvailable"]
    for selector in (
        deployment["selector"]["matchLabels"],
        of_kind("Service")["spec"]["selector"],
        of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_a_unit_can_change_nothing_but_what_is_its_own(unit: Path) -> None:
    found = options(unit)

    assert found["User"] == ["groundserve"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["ProtectSystem"] == ["strict"]
    assert found["SystemCallFilter"] == ["@system-service"]
    assert found["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6"]
    assert {"MemoryMax", "TasksMax"} <= found.keys()
    assert set(found.get("ReadWritePaths", [])) <= {"/srv/groundserve-uploads"}
    cache = found["CacheDirectory"][0]
    assert f"HF_HOME=/var/cache/{cache}/huggingface" in found["Environment"]


def test_the_unit_of_the_gateway_has_settings_that_exist_and_time_to_end() -> None:
    unit = DEPLOY / "systemd" / "groundserve-gateway.service"
    defaults = GatewaySettings.model_fields
    named = set(re.findall(rf"^Environment=({ENV_PREFIX}[A-Z_]+)", unit.read_text(), re.MULTILINE))

    assert named
    assert named <= set(SETTINGS)
    assert int(options(unit)["TimeoutStopSec"][0]) > (
        defaults["shutdown_delay_s"].default + defaults["drain_timeout_s"].default
    )


def test_everything_is_explained() -> None:
    explained = (DEPLOY / "README.md").read_text()
    names = [f"systemd/{unit.name}" for unit in UNITS] + ["kubernetes/gateway.yaml"]

    assert [name for name in names if name not in explained] == []
