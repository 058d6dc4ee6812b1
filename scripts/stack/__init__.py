"""Starts the whole system on one machine: what the scripts beside this folder run.

The modules that run before `.venv` exists use the standard library alone: bootstrap, checks,
environment, hub, interrupts, options, profiles, report. The others may use what is installed there.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
