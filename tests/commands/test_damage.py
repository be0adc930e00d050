"""Damaged snapshots: whatever bytes memory holds, commands answer or say what is wrong."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain

COMMANDS = (
    "bt",
    "foreach bt",
    "ps",
    "mod",
    "sys",
    "set",
    "frame 3",
    "regs",
    "patch at schedule",
    "dis",
    "bt -a",
    "orc schedule",
)
LINE = 64  # bytes that are damaged together
SECONDS = 20.0


class DamagedMemory:
    """Physical memory in which some cache lines hold other bytes, the same ones at every reading."""

    def __init__(self, memory: AddressSpace, seed: int, share: float) -> None:
        self._memory = memory
        self._seed = seed
        self._share = share

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, damage included."""
        data = bytearray(self._memory.read(address, size))
        for number in range(address // LINE, (address + size - 1) // LINE + 1):
            chance = random.Random(f"{self._seed} {number}")
            if chance.random() < self._share:
                for _ in range(4):
                    at = number * LINE + chance.randrange(LINE) - address
                    if 0 <= at < size:
                        data[at] = chance.choice((0, 0xFF, chance.randrange(256)))
        return bytes(data)


@pytest.mark.parametrize("share", [0.0005, 0.005, 0.05, 0.5])
@pytest.mark.parametrize("copy", range(5))
def test_damage_gives_answers_or_named_errors_in_bounded_time(sample: Session, share: float, copy: int) -> None:
    """No exception but an OrcdbgError, from opening to both views; a new seed in every run, named when it fails."""
    seed = random.SystemRandom().randrange(1 << 32)
    start, registry = time.monotonic(), standard_commands()
    damaged = replace(sample.snapshot, physical=DamagedMemory(sample.snapshot.physical, seed, share))
    try:
        debugger = Debugger(Session(sample.image, damaged))
        for command in COMMANDS:
            try:
                result = registry.run(debugger, command)
                plain(lines_of(result, 80))
                encode(result)
            except OrcdbgError:
                continue
    except OrcdbgError:
        return
    except Exception as error:
        raise AssertionError(f"seed {seed}, share {share}, copy {copy}") from error
    assert time.monotonic() - start < SECONDS, seed
