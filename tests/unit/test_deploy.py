"""compose.yaml, the images and .env.example, as far as that goes without a container engine."""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import gateway.settings
import indexer.settings
from gateway.draining import GRACE_S
from indexer.index import __version__
from indexer.index.settings import ENV_PREFIX, IndexSettings
from tests.unit.test_indexer_settings import OF_ONE_RUN

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE_TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()

# The container has its own: what is published where is compose.yaml's affair.
FIXED_IN_THE_IMAGE = {
    *("GROUNDSERVE_LISTEN_HOST", "GROUNDSERVE_LISTEN_PORT"),
    # It listens on all addresses, where access cannot be open.
    "GROUNDSERVE_OPEN_ACCESS",
}
# Milvus is not known to leave its root filesystem alone.
WRITES_OUTSIDE_VOLUMES = {"milvus"}


def fields(settings: type[IndexSettings]) -> dict[str, FieldInfo]:
    """Variable and field of each setting that holds for every run."""
    return {
        ENV_PREFIX + name.upper(): field
        for name, field in settings.model_fields.items()
        if name not in OF_ONE_RUN
    }


GATEWAY_FIELDS = fields(gateway.settings.GatewaySettings)
INDEXER_FIELDS = fields(indexer.settings.RunSettings) | fields(indexer.settings.WatchSettings)
ALL_FIELDS = GATEWAY_FIELDS | INDEXER_FIELDS


def example() -> dict[str, tuple[str, str]]:
    """Explanation and value of each variable of .env.example, commented out or not."""
    found: dict[str, tuple[str, str]] = {}
    previous = ""
    for line in (DEPLOY / ".env.example").read_text().splitlines():
        if variable := re.fullmatch(r"#?([A-Z0-9_]+)=(.*)", line):
            assert variable[1] not in found, f"{variable[1]} is there twice"
            found[variable[1]] = (previous.removeprefix("# "), variable[2])
        previous = line
    return found


EXAMPLE = example()


def compose_variables() -> dict[str, str | None]:
    """Variables that compose.yaml takes from .env, with its own default."""
    found: dict[str, str | None] = {
        name: default if operator.endswith("-") else None
        for name, operator, default in re.findall(r"\$\{(\w+)(?:(:?-|:\?)([^}]*))?\}", COMPOSE_TEXT)
    }
    for service in SERVICES.values():
        environment = service.get("environment", {})
        found |= {name: None for name, value in environment.items() if value is None}
    return found


def default_of(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = value.relative_to(ROOT)
    if isinstance(value, bool):
        value = str(value).lower()
    return "" if value is None else str(value)


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)([sm])\}?", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def pinned(requirements: str, package: str) -> str:
    text = (DEPLOY / "requirements" / requirements).read_text()
    return re.search(rf"^{package}==([\w.]+)", text, re.MULTILINE)[1]  # type: ignore[index]


def copied_into(target: str) -> Iterator[tuple[str, str]]:
    """Source and destination of what the Dockerfile copies from the checkout for `target`."""
    stage = DOCKERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
    for arguments in re.findall(r"^COPY (?!--from)(?:--chmod=\d+ )?(.+)$", stage, re.MULTILINE):
        *sources, destination = arguments.split()
        for source in sources:
            yield source, destination


def test_compose_is_valid() -> None:
    subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
         str(ROOT / "compose.yaml")],
        check=True,
    )  # fmt: skip


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    subprocess.run([hadolint, "--no-color", DEPLOY / "Dockerfile"], check=True)


def test_every_variable_of_compose_is_in_the_example() -> None:
    assert set(compose_variables()) <= set(EXAMPLE)


def test_every_variable_in_the_example_is_read_by_something() -> None:
    assert set(EXAMPLE) == set(compose_variables()) | FIXED_IN_THE_IMAGE


@pytest.mark.parametrize("name", sorted(EXAMPLE))
def test_every_variable_in_the_example_has_its_line_of_explanation(name: str) -> None:
    explanation, _ = EXAMPLE[name]

    assert re.fullmatch(r"[A-Z0-9c].*\S", explanation)
    if name in ALL_FIELDS:
        assert explanation.startswith(ALL_FIELDS[name].description or "?")


@pytest.mark.parametrize("name", sorted(ALL_FIELDS))
def test_every_setting_is_in_the_example_with_its_default(name: str) -> None:
    ours = compose_variables().get(name)

    assert EXAMPLE[name][1].strip('"') == (ours or default_of(ALL_FIELDS[name]))


def test_every_groundserve_variable_is_a_setting() -> None:
    named = set(re.findall(rf"{ENV_PREFIX}[A-Z0-9_]+", COMPOSE_TEXT + DOCKERFILE)) | {
        name for name in EXAMPLE if name.startswith(ENV_PREFIX)
    }

    assert named == set(ALL_FIELDS)


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("gateway", set(GATEWAY_FIELDS) - FIXED_IN_THE_IMAGE),
        ("indexer", set(INDEXER_FIELDS)),
        ("indexer-schedule", set(INDEXER_FIELDS)),
        ("indexer-uploads", set(INDEXER_FIELDS)),
    ],
)
def test_a_service_gets_all_of_its_settings_and_no_others(service: str, settings: set[str]) -> None:
    passed = {name for name in SERVICES[service]["environment"] if name.startswith(ENV_PREFIX)}

    assert passed == settings


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "storage-owner" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in WRITES_OUTSIDE_VOLUMES)
    assert "privileged" not in service


def test_only_the_gateway_is_published_and_only_on_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"gateway": ["${GATEWAY_BIND:-127.0.0.1}:${GATEWAY_PORT:-8080}:8080"]}


def test_what_others_wait_for_can_become_healthy() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert SERVICES[name]["restart"] == "no"
    assert "vllm" not in SERVICES["gateway"]["depends_on"]


def test_every_image_is_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)

    for image in images:
        assert re.search(r":[\w.-]*\d+\.\d+\.\d+|:RELEASE\.\d{4}", image), image


def test_images_fit_the_pinned_packages() -> None:
    milvus = SERVICES["milvus"]["image"]

    assert SERVICES["vllm"]["image"] == f"vllm/vllm-openai:v{pinned('gpu.txt', 'vllm')}"
    for client in ("gateway.txt", "indexer.txt"):
        release = pinned(client, "pymilvus").rpartition(".")[0]
        assert milvus.startswith(f"milvusdb/milvus:v{release}.")
    assert SERVICES["storage-owner"]["image"] == milvus
    for ours in ("gateway", "indexer"):
        assert SERVICES[ours]["image"] == f"groundserve-{ours}:{__version__}"


def test_what_is_running_may_finish_before_a_container_is_killed() -> None:
    defaults = gateway.settings.GatewaySettings()
    drain = defaults.shutdown_delay_s + defaults.drain_timeout_s + GRACE_S
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > drain
    for config in (DEPLOY / "vllm").glob("*.yaml"):
        shutdown = yaml.safe_load(config.read_text()).get("shutdown-timeout", 0)
        assert seconds(SERVICES["vllm"]["stop_grace_period"]) > shutdown


def test_the_model_that_is_served_by_default_has_its_file() -> None:
    config = compose_variables()["MODEL_CONFIG"]

    assert config is not None
    assert (DEPLOY / "vllm" / config).is_file()


@pytest.mark.parametrize(
    ("target", "module"), [("gateway", "gateway.__main__"), ("indexer", "indexer.__main__")]
)
def test_an_image_holds_all_that_its_program_imports(
    target: str, module: str, tmp_path: Path
) -> None:
    for source, destination in copied_into(target):
        if not destination.startswith("/"):
            place = tmp_path / destination
            place = place / source.rpartition("/")[2] if destination.endswith("/") else place
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            place.parent.mkdir(exist_ok=True)
            copy(ROOT / source, place)

    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("target", ["gateway", "indexer", "build-gateway", "build-indexer"])
def test_what_an_image_copies_may_reach_the_build(target: str) -> None:
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    for source, _ in copied_into(target):
        assert (ROOT / source).exists()
        assert any(f"{source}/".startswith(f"{line[1:]}/") for line in allowed if line[0] == "!")
