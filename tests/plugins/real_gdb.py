"""The gdb that is installed here, run in batch mode; and where our extension for it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "gdb" / "orcdbg_gdb.py"


def run_gdb(vmlinux: str, *commands: str) -> str:
    """What gdb prints; a skip with the reason where it is not installed, or has another Python than ours."""
    if not shutil.which("gdb"):
        pytest.skip("gdb is not installed")
    words = [word for command in ("set pagination off", *commands) for word in ("-ex", command)]
    environment = {**os.environ, "ORCDBG_PYTHONPATH": sysconfig.get_path("purelib")}
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *words, vmlinux],
        env=environment, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if "cannot be loaded by gdb's Python" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    return done.stdout + done.stderr
