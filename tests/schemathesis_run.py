"""Runs schemathesis over the document that a gateway serves, as a program of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def findings(gateway_url: str, configuration: Path, folder: Path) -> str:
    """What it finds, with the requests that show it; empty if nothing.

    `gateway_url` has no /v1; what it remembers between runs is left in `folder`.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration)]
    done = subprocess.run(
        [*command, "run", f"{gateway_url}/openapi.json", "--no-color"],
        cwd=folder,
        # A configuration may name a module of tests/.
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
