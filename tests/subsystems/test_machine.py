"""The machine's own numbers, as /proc prints them."""

from __future__ import annotations

import struct
from pathlib import Path

import orcdbg
from orcdbg.cli.main import sample_files
from orcdbg.subsystems.machine import load_averages
from orcdbg.target.session import Session
from tests.build.sample import changed_core


def test_load_averages_are_rounded_as_the_kernel_rounds_them(tmp_path: Path, sample: Session) -> None:
    """get_avenrun() adds 10 of 2048, a little less than half a hundredth: 0.375 is 0.37, and 0.3755 is 0.38."""
    place = sample.memory.translate(sample.linux.address("avenrun"))
    core = changed_core(tmp_path / "core", patches={place: struct.pack("<3Q", 768, 769, 2 * 2048 + 2038)})
    session = orcdbg.open(sample_files()[0], core)
    assert load_averages(session.program) == (0.37, 0.38, 3.0)
