"""A busy guest for tests that stop it and step it: booted again where it dies in the emulator on its way up."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import ParamSpec

import pytest

from tests.lab import scripts
from tests.lab.deaths import note_death
from tests.lab.failures import Difference
from tests.lab.fetch import Kernel, ensure
from tests.lab.guest import CPU, Guest, GuestError, Machine
from tests.lab.scenes import BOOT_SECONDS, write_initrd
from tests.lab.skips import skipped_if_unavailable

P = ParamSpec("P")
BOOTS = 3
SYMBOL = "_raw_spin_lock_irqsave"


class GuestDied(Exception):
    """A busy guest panicked while it was looked at: `death` is what it said."""

    def __init__(self, kernel: str, death: str) -> None:
        super().__init__(f"{kernel}: the guest died in the emulator: {death}")
        self.kernel = kernel
        self.death = death


def on_a_living_guest(test: Callable[P, None]) -> Callable[P, None]:
    """A test on a busy guest, begun anew where that dies in the emulator, and skipped where it always does.

    Each death is counted, and printed at the run's end.
    """

    @functools.wraps(test)
    def attempts(*args: P.args, **kwargs: P.kwargs) -> None:
        reason = ""
        for _ in range(BOOTS):
            try:
                return test(*args, **kwargs)
            except GuestDied as died:
                reason = str(died)
                note_death(died.kernel, died.death)
        pytest.skip(f"{BOOTS} times: {reason}")

    return attempts


@contextmanager
def busy_guest(
    kernel: str,
    random: Random,
    folder: Path,
    append: str = "",
    smp: int = 1,
    init: str | None = None,
    files: Mapping[str, bytes] = MappingProxyType({}),
    cpu: str = CPU,
) -> Iterator[tuple[Guest, Kernel, str]]:
    """The guest, its kernel, and what it printed so far; a skip with its reason where it cannot be had.

    A guest that panics ends at once, so that nobody waits for it; what fails then is a GuestDied.
    `init` stands for work that `random` chooses; `files` are put into the guest by their paths.
    """
    with skipped_if_unavailable(kernel):
        found = ensure(kernel)
    with ExitStack() as stack:
        machine = Machine(found.vmlinuz, folder / "initrd", f"panic=-1 oops=panic {append}", cpu, smp)
        guest, console = _booted(found, random, machine, init, files, stack)
        try:
            yield guest, found, console
        except Exception as error:
            death = death_behind(error, guest)
            if death is None:
                raise
            raise GuestDied(kernel, death) from error


def death_behind(error: Exception, guest: Guest) -> str | None:
    """What a guest said that died, where an error may come from that; None for what a test found wrong on a living one."""
    if isinstance(error, Difference):
        return None  # dead or not, both CPUs had run the same instructions
    if isinstance(error, AssertionError):
        # While a guest is looked at it stands still: a panic that it had not printed by then did not make the test fail.
        return guest.last_words()
    return guest.death()


def _booted(
    kernel: Kernel, random: Random, machine: Machine, init: str | None, files: Mapping[str, bytes], stack: ExitStack
) -> tuple[Guest, str]:
    reason, folder = "", machine.initrd.parent
    for number in range(BOOTS):
        write_initrd(folder, kernel, init or scripts.write_busy(random, SYMBOL), random, files)
        with ExitStack() as own:
            guest = own.enter_context(Guest(machine, folder / f"serial-{number}.log"))
            try:
                console = guest.wait_for(scripts.BUSY, BOOT_SECONDS)
            except GuestError as error:
                reason = str(error)
                note_death(f"{kernel.name}, on its way up", reason)
                continue
            stack.push(own.pop_all())
            return guest, console
    pytest.skip(f"{kernel.name}: the guest died {BOOTS} times in the emulator on its way up: {reason}")


@contextmanager
def booted(kernel: str, seed: int, folder: Path, append: str = "") -> Iterator[tuple[Guest, Kernel, int]]:
    """A busy guest with one or two CPUs, with or without KASLR, and where SYMBOL is."""
    random = Random(f"{kernel} remote {seed}")
    with busy_guest(kernel, random, folder, append, smp=random.randint(1, 2)) as (guest, found, console):
        time.sleep(random.random())
        yield guest, found, scripts.parse_symbols(console)[SYMBOL]
