"""The real parts, started once for all tests that need them."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from stack import models, servers
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from indexer.index.embedding import Encoder
from indexer.index.settings import IndexSettings

# A setting of the person who runs the tests must not decide what they test.
for name in [name for name in os.environ if name.startswith("GROUNDSERVE_")]:
    del os.environ[name]
# Most tests are about other things than keys; those about keys switch it off.
os.environ["GROUNDSERVE_OPEN_ACCESS"] = "true"

# The same examples at every run, however slow the machine: what a change is told about it must not
# depend on luck. Who looks for more has --hypothesis-profile=random.
slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("random", slow, print_blob=True)
settings.register_profile("repeatable", slow, derandomize=True)
settings.load_profile("repeatable")


class ByServers(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Has tests that share servers run by one process: a level of them, or a file of the first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        level = Path(file).parts[1]
        return file if level == "unit" else level


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServers:
    return ByServers(config, log)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return _free_port


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus Lite server with nothing in it."""
    folder, port = tmp_path_factory.mktemp("milvus"), _free_port()
    with servers.milvus(port, folder / "data", folder / "logs") as server:
        server.wait_ready()
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def encoder_folder() -> Path:
    """all-MiniLM-L6-v2, out of its package."""
    return models.minilm()


@pytest.fixture(scope="session")
def encoder(encoder_folder: Path) -> Encoder:
    """In float32, so that what it gives can be compared to the last digits."""
    settings = IndexSettings(encoder_model=str(encoder_folder), encoder_dtype="float32")
    return Encoder.load(settings)
