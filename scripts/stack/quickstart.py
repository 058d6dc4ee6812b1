"""The second half of scripts/quickstart, run by `.venv`: models, servers, index, question."""

import json
import shlex
import sys
import time

from stack import ROOT, checks, models, options, report, servers
from stack.conversation import ask
from stack.errors import AskFailed, StackError
from stack.interrupts import Interrupted, interrupts
from stack.locks import sole_user
from stack.options import Options
from stack.processes import clean_environment, keep_loopback_direct, run
from stack.report import Step, say

_WATCH_S = 0.5
# Threads of the encoder that wait for each other lose against vLLM's, which wait actively on the
# same cores: a question took 470 ms with two of them while vLLM was busy, 27 ms with one.
_ALONE = {"GROUNDSERVE_ENCODER_THREADS": "1"}
_INDEXED, _INDEXED_SOME = 0, 4
"""Exit codes of the indexer after which the index is good; with the second it skipped documents."""


def main() -> int:
    """Bring everything up, ask, and keep it up until a signal; 0 when that is how it ended."""
    given = options.parse(sys.argv[1:])
    keep_loopback_direct()
    started: list[servers.Server] = []
    # Two Milvus Lite servers on one folder would damage its data.
    taken = f"another quickstart is using {given.state_dir}: stop it, or use another --state-dir"
    with sole_user(given.state_dir, taken):
        served_model, encoder = models.prepare(given.profile, given.state_dir)
        is_up = False
        try:
            settings = _start(given, served_model, encoder, started)
            is_up = True
            _converse(given)
            if not given.exit_after_answer:
                # Not before: while vLLM loads, every core is its own.
                _launch(servers.watcher(settings | _ALONE, given.log_dir), started)
                _watch(started)
        except Interrupted:
            if not is_up:
                raise
            say()
        finally:
            _stop(started)
    return 0


def _start(
    given: Options, served_model: str | None, encoder: str, started: list[servers.Server]
) -> dict[str, str]:
    """Start all, slowest first, and give the settings that they share.

    Each is in `started` before it runs, so that it will be stopped.
    """
    checks.ports(given.ports.by_flag())
    settings = {
        "GROUNDSERVE_UPSTREAM_URL": f"http://{servers.HOST}:{given.ports.vllm}/v1",
        "GROUNDSERVE_MILVUS_URI": f"http://{servers.HOST}:{given.ports.milvus}",
        "GROUNDSERVE_ENCODER_MODEL": encoder,
        "GROUNDSERVE_LIBRARY_URL": str(given.state_dir / "library"),
    }
    if not given.profile.from_hub:
        settings["HF_HUB_OFFLINE"] = "1"
    vllm = servers.vllm(given.ports.vllm, given.profile.vllm_config, served_model, given.log_dir)
    milvus = servers.milvus(given.ports.milvus, given.state_dir / "milvus", given.log_dir)
    gateway = servers.gateway(given.ports.gateway, settings | _ALONE, given.log_dir)

    _launch(vllm, started)
    _launch(milvus, started)
    _wait(milvus)
    _index(given, settings)
    _launch(gateway, started)
    _wait(vllm)
    _wait(gateway)
    return settings


def _launch(server: servers.Server, started: list[servers.Server]) -> None:
    say(f"starting {server.name} (log: {server.log})")
    started.append(server)
    server.start()


def _wait(server: servers.Server) -> None:
    with Step(f"waiting for {server.name}") as step:
        server.wait_ready()
        step.outcome = f"ready {time.monotonic() - server.started_at:.1f} s after its start"


def _index(given: Options, settings: dict[str, str]) -> None:
    """The indexer writes to the terminal itself: it has its own progress and summary."""
    say(f"indexing {', '.join(str(path) for path in given.docs)}")
    began = time.monotonic()
    # Another folder than the last time replaces what was indexed then, and that is meant.
    command = [sys.executable, "-m", "indexer", "run", "--allow-mass-deletion"]
    command += (str(path) for path in given.docs)
    code = run(command, None, clean_environment(settings), ROOT)
    if code not in (_INDEXED, _INDEXED_SOME):
        raise StackError(
            f"the indexer ended with exit code {code}: its lines above say why; "
            f"Milvus's log: {given.log_dir / 'milvus.log'}"
        )
    say(f"indexing: done ({time.monotonic() - began:.1f} s)")


def _converse(given: Options) -> None:
    base_url = f"http://{servers.HOST}:{given.ports.gateway}/v1"
    messages = json.dumps([{"role": "user", "content": given.question}], ensure_ascii=False)
    call = f'client.chat.completions.create(model="default", messages={messages})'
    say(f"everything is up after {time.time() - given.started:.0f} s")
    say(f"\nQuestion: {given.question}\n")
    try:
        ask(base_url, given.question)
    except AskFailed as exc:
        raise AskFailed(f"{exc}; logs: {given.log_dir}") from exc
    if given.exit_after_answer:
        return
    say(f"""
Base URL: {base_url}
It asks for no key, and listens on {servers.HOST} alone: everybody on this machine may use it.

    from openai import OpenAI
    client = OpenAI(base_url="{base_url}", api_key="none")
    print({call}.choices[0].message.content)

    curl {base_url}/chat/completions -H 'content-type: application/json' \\
      -d {shlex.quote(f'{{"model": "default", "messages": {messages}}}')}

Everything else that it answers: {base_url.removesuffix("/v1")}/docs

Press Ctrl-C to stop.""")


def _watch(started: list[servers.Server]) -> None:
    while True:
        for server in started:
            server.check_alive()
        time.sleep(_WATCH_S)


def _stop(started: list[servers.Server]) -> None:
    if not started:
        return
    interrupts.begin_stopping()
    with Step("stopping " + ", ".join(server.name for server in reversed(started))):
        servers.stop_all(started)


if __name__ == "__main__":
    sys.exit(report.run(main))
