"""Everything about a machine that can be known before something heavy starts.

Each check raises Unsuitable with one line that says what to do.
"""

import importlib.util
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from stack.errors import Unsuitable
from stack.profiles import Profile

_GIB = 2**30
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
_CGROUP_MEMORY = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
_SPARE_GB = 1.0
"""Disk that logs and an index may take when all is installed, in 10^9 bytes."""


def system() -> None:
    """Milvus Lite and vLLM are published for Linux on x86-64 and 64-bit ARM."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise Unsuitable(
            f"this is {platform.system()} on {platform.machine()}; this needs Linux on x86_64 or "
            "aarch64: use such a machine or a virtual one"
        )


def virtual_environments() -> None:
    """Some distributions ship a Python that cannot make virtual environments."""
    if any(importlib.util.find_spec(module) is None for module in ("venv", "ensurepip")):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Unsuitable(
            f"{sys.executable} cannot make virtual environments: install its venv package "
            f"(apt-get install python{version}-venv, or your system's name for it), or name "
            "another Python in PYTHON"
        )


def cpu(profile: Profile, cpuinfo: str | None = None) -> None:
    """The CPU build of vLLM for x86-64 needs AVX2."""
    if profile.from_hub or platform.machine() != "x86_64":
        return
    flags = (_CPUINFO.read_text() if cpuinfo is None else cpuinfo).split()
    if "avx2" not in flags:
        raise Unsuitable("this CPU has no AVX2, which vLLM's CPU build needs: use a newer machine")


def gpu(profile: Profile, found_gib: float) -> None:
    """The weights and a useful KV cache must fit the GPU, of `found_gib` GiB."""
    if profile.gpu_memory_gib == 0:
        return
    if found_gib == 0:
        raise Unsuitable(
            "nvidia-smi finds no CUDA GPU here: use --profile local, or install its driver"
        )
    if found_gib < profile.gpu_memory_gib:
        raise Unsuitable(
            f"the largest GPU has {found_gib:.0f} GiB; {profile.chat_model} needs "
            f"{profile.gpu_memory_gib:.0f} GiB: use --profile local"
        )


def available_memory_bytes() -> int:
    """What processes may still take, in bytes, of this machine or container."""
    fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    for limit_file, usage_file in _CGROUP_MEMORY:
        if limit_file.exists() and usage_file.exists():
            limit = limit_file.read_text().strip()
            if limit.isdigit():
                available = min(available, int(limit) - int(usage_file.read_text()))
    return available


def memory(profile: Profile, available_bytes: int) -> None:
    """The servers together must fit what is available."""
    available_gib = available_bytes / _GIB
    if available_gib < profile.memory_gib:
        raise Unsuitable(
            f"{available_gib:.1f} GiB of memory are available; profile {profile.name} needs "
            f"{profile.memory_gib:.0f} GiB: close other programs, or use a larger machine"
        )


def disk(folder: Path, needed_gb: float, free_bytes: int | None = None) -> None:
    """`needed_gb` * 10^9 bytes must be free where `folder` is, or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gb = (shutil.disk_usage(there).free if free_bytes is None else free_bytes) / 1e9
    if free_gb < needed_gb:
        raise Unsuitable(
            f"{free_gb:.1f} GB are free on the disk of {there}; this needs {needed_gb:.0f} GB: "
            "make room there"
        )


def disk_for(profile: Profile, installed: bool) -> float:
    """Free disk that a run needs, in 10^9 bytes."""
    return _SPARE_GB if installed else profile.install_gb


def writable(folder: Path) -> None:
    """`folder` is made, and must take files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as exc:
        raise Unsuitable(
            f"{folder} cannot be written ({exc.strerror}): use another --state-dir"
        ) from exc


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # Connections of a server that just ended linger; servers bind beside them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def ports(by_flag: Mapping[str, int]) -> None:
    """Every port must be free, and no two the same; keys are the flags that change them."""
    for flag, port in by_flag.items():
        if list(by_flag.values()).count(port) > 1:
            raise Unsuitable(f"port {port} is given twice: change {flag}")
        if not port_is_free(port):
            raise Unsuitable(
                f"port {port} on 127.0.0.1 is taken (by another quickstart?): stop what listens "
                f"there, or choose another with {flag}"
            )


def documents(paths: tuple[Path, ...]) -> None:
    """There must be something to index."""
    if not paths:
        raise Unsuitable("there is nothing to index: name a folder with --docs")
    for path in paths:
        if not path.exists():
            raise Unsuitable(f"{path} does not exist: name a folder or a file with --docs")
