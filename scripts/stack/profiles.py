"""The two ways to run on one machine: with a CUDA GPU and the hub's models, or with neither."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack import ROOT

REQUIREMENTS = ROOT / "deploy" / "requirements"
VLLM_CONFIGS = ROOT / "deploy" / "vllm"


@dataclass(frozen=True)
class Profile:
    """What one way needs. Sizes in 10^9 bytes for disk, as sold, and in GiB for memory."""

    name: str
    requirements: Path
    vllm_config: Path
    chat_model: str
    encoder_model: str
    from_hub: bool
    """The models come from the hub; otherwise from packages."""
    memory_gib: float
    install_gb: float
    """Disk that the packages and models take when neither is there."""
    gpu_memory_gib: float = 0.0


LOCAL = Profile(
    name="local",
    requirements=REQUIREMENTS / "local.txt",
    vllm_config=VLLM_CONFIGS / "smollm2-135m-cpu.yaml",
    chat_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    encoder_model="sentence-transformers/all-MiniLM-L6-v2",
    from_hub=False,
    memory_gib=8,
    install_gb=12,
)

GPU = Profile(
    name="gpu",
    requirements=REQUIREMENTS / "gpu.txt",
    vllm_config=VLLM_CONFIGS / "llama-3.1-8b-instruct.yaml",
    chat_model="meta-llama/Llama-3.1-8B-Instruct",
    encoder_model="BAAI/bge-large-en-v1.5",
    from_hub=True,
    memory_gib=16,
    install_gb=45,
    gpu_memory_gib=22,
)

PROFILES = {profile.name: profile for profile in (LOCAL, GPU)}


def gpu_memory_gib() -> float:
    """Memory of the largest CUDA GPU in GiB; 0 where there is none."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0.0
    if answer.returncode != 0:
        return 0.0
    # A GPU that shares the memory of its host answers "[N/A]": it is there all the same.
    sizes = [
        int(line) if line.strip().isdigit() else 128 * 1024 for line in answer.stdout.splitlines()
    ]
    return max(sizes, default=0) / 1024


def choose(name: str | None) -> Profile:
    """The profile of that name; without a name, the one that suits this machine."""
    if name is not None:
        return PROFILES[name]
    return GPU if gpu_memory_gib() > 0 else LOCAL
