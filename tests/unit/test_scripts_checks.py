"""What quickstart finds out about a machine before it starts anything."""

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import checks, options
from stack.errors import Unsuitable
from stack.locks import sole_user
from stack.profiles import GPU, LOCAL, PROFILES

GIB = 2**30


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_named_with_the_flag_that_changes_it(taken_port: int) -> None:
    with pytest.raises(Unsuitable, match=rf"port {taken_port} .* taken.*--milvus-port"):
        checks.ports({"--vllm-port": free_port(), "--milvus-port": taken_port})


def test_a_port_taken_on_all_addresses_is_taken() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        assert not checks.port_is_free(listener.getsockname()[1])


def test_a_port_shared_by_grpc_is_taken() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not checks.port_is_free(listener.getsockname()[1])


def test_a_port_is_free_right_after_its_server_ended() -> None:
    with socket.socket() as listener:
        # As every server here does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        client = socket.create_connection(address)
        connection, _ = listener.accept()
        # The side that closes first lingers: here the server's, as when it is stopped.
        connection.close()
        client.close()
    assert checks.port_is_free(address[1])


def test_two_servers_cannot_have_one_port() -> None:
    port = free_port()
    with pytest.raises(Unsuitable, match=f"port {port} is given twice"):
        checks.ports({"--vllm-port": port, "--gateway-port": port})


def test_too_little_memory_is_refused_with_both_figures() -> None:
    with pytest.raises(Unsuitable, match=r"^7\.9 GiB of memory .* needs 8 GiB"):
        checks.memory(LOCAL, int(7.9 * GIB))
    checks.memory(LOCAL, 8 * GIB)


def test_memory_of_this_machine_can_be_read() -> None:
    assert checks.available_memory_bytes() > 0


def test_a_container_has_only_its_own_share_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, usage = tmp_path / "max", tmp_path / "current"
    limit.write_text("1000000\n")
    usage.write_text("400000\n")
    monkeypatch.setattr(checks, "_CGROUP_MEMORY", ((limit, usage),))
    assert checks.available_memory_bytes() == 600_000
    limit.write_text("max\n")
    assert checks.available_memory_bytes() > 600_000


def test_too_little_disk_is_refused_where_the_folder_will_be(tmp_path: Path) -> None:
    with pytest.raises(
        Unsuitable, match=rf"2\.0 GB are free on the disk of {tmp_path}; .* needs 8 GB"
    ):
        checks.disk(tmp_path / "not" / "yet", 8, free_bytes=2 * 10**9)
    checks.disk(tmp_path, 8, free_bytes=9 * 10**9)


def test_an_installed_profile_needs_little_more_disk() -> None:
    assert checks.disk_for(LOCAL, installed=True) < checks.disk_for(LOCAL, installed=False)


def test_a_cpu_without_avx2_is_refused() -> None:
    with pytest.raises(Unsuitable, match="AVX2"):
        checks.cpu(dataclasses.replace(LOCAL), cpuinfo="flags : sse avx")
    checks.cpu(LOCAL, cpuinfo="flags : sse avx avx2")
    checks.cpu(GPU, cpuinfo="flags : sse")


def test_the_gpu_profile_needs_a_gpu_that_is_large_enough() -> None:
    with pytest.raises(Unsuitable, match=r"no CUDA GPU.*--profile local"):
        checks.gpu(GPU, 0)
    with pytest.raises(Unsuitable, match=r"largest GPU has 16 GiB.*--profile local"):
        checks.gpu(GPU, 16)
    checks.gpu(GPU, 24)
    checks.gpu(LOCAL, 0)


def test_documents_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Unsuitable, match="nothing to index"):
        checks.documents(())
    with pytest.raises(Unsuitable, match="nowhere does not exist"):
        checks.documents((tmp_path, tmp_path / "nowhere"))


def test_a_state_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unsuitable, match=r"cannot be written.*--state-dir"):
        checks.writable(tmp_path / "file" / "state")
    checks.writable(tmp_path / "state")
    assert not list((tmp_path / "state").iterdir())


def test_one_folder_has_one_user(tmp_path: Path) -> None:
    with (
        sole_user(tmp_path, ""),
        pytest.raises(Unsuitable, match="busy"),
        sole_user(tmp_path, "busy"),
    ):
        pass
    with sole_user(tmp_path, "busy"):
        pass


def test_the_command_line_has_working_defaults() -> None:
    given = options.parse(["--profile", "local"])
    assert list(given.ports.by_flag().values()) == [8000, 19530, 8080]
    assert given.state_dir == options.DEFAULT_STATE_DIR
    assert given.question
    assert not given.exit_after_answer


def test_folders_are_taken_from_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = options.parse(["--profile", "local", "--docs", "a", "--docs", "b", "--state-dir", "s"])
    assert given.docs == (tmp_path / "a", tmp_path / "b")
    assert given.log_dir == tmp_path / "s" / "logs"


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--gateway-port", port])
    assert "--gateway-port" in capsys.readouterr().err


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_names_files_that_are_there(profile: object) -> None:
    assert isinstance(profile, type(LOCAL))
    assert profile.requirements.is_file()
    assert profile.vllm_config.is_file()
