"""The command line of scripts/quickstart."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from stack import ROOT
from stack.profiles import PROFILES, Profile, choose

DEFAULT_STATE_DIR = ROOT / ".groundserve"
OWN_DOCUMENTATION = ("README.md", "gateway/README.md", "indexer/README.md", "deploy/README.md")

_OWN_QUESTION = "How is the model swapped without restarting the gateway?"


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    vllm: int
    milvus: int
    gateway: int

    def by_flag(self) -> dict[str, int]:
        """Each port under the flag that changes it."""
        return {
            "--vllm-port": self.vllm,
            "--milvus-port": self.milvus,
            "--gateway-port": self.gateway,
        }


@dataclass(frozen=True)
class Options:
    """What quickstart was asked for."""

    profile: Profile
    docs: tuple[Path, ...]
    ports: Ports
    state_dir: Path
    question: str
    exit_after_answer: bool
    started: float
    """Clock time at which the command was given, in seconds since the epoch."""

    @property
    def log_dir(self) -> Path:
        """Where every program writes its output."""
        return self.state_dir / "logs"


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port: 1 to 65535")
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description="Installs what is needed into .venv, starts Milvus Lite, vLLM and the gateway "
        "on 127.0.0.1, indexes documents, asks a question about them, and keeps all of it up until "
        "Ctrl-C. A second run reuses what the first one made.",
    )
    parser.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        help="gpu: Llama-3.1-8B-Instruct and bge-large-en-v1.5 from the hub; local: "
        "SmolLM2-135M-Instruct and all-MiniLM-L6-v2 out of packages, on the CPU "
        "(default: gpu where there is a CUDA GPU)",
    )
    parser.add_argument(
        "--docs",
        metavar="PATH",
        type=Path,
        action="append",
        help="folder or file to index; may be repeated (default: the documentation of Groundserve)",
    )
    parser.add_argument(
        "--ask",
        metavar="QUESTION",
        help="what to ask once all is up (default: a question that fits)",
    )
    parser.add_argument("--exit", action="store_true", help="stop everything after the answer")
    for name, port in (("vllm", 8000), ("milvus", 19530), ("gateway", 8080)):
        parser.add_argument(
            f"--{name}-port", metavar="PORT", type=_port, default=port, help=f"(default: {port})"
        )
    parser.add_argument(
        "--state-dir",
        metavar="PATH",
        type=Path,
        default=DEFAULT_STATE_DIR,
        help="where models, Milvus data and logs are kept (default: .groundserve in the checkout)",
    )
    parser.add_argument("--started", type=float, default=None, help=argparse.SUPPRESS)
    return parser


def parse(arguments: list[str]) -> Options:
    """Read the command line. Ends the program with code 2 and the usage when it makes no sense."""
    given = _parser().parse_args(arguments)
    own = given.docs is None
    docs = given.docs or [ROOT / name for name in OWN_DOCUMENTATION if (ROOT / name).exists()]
    question = given.ask or (_OWN_QUESTION if own else "What are these documents about?")
    return Options(
        profile=choose(given.profile),
        docs=tuple(path.absolute() for path in docs),
        ports=Ports(given.vllm_port, given.milvus_port, given.gateway_port),
        state_dir=given.state_dir.absolute(),
        question=question,
        exit_after_answer=given.exit,
        started=given.started or time.time(),
    )
