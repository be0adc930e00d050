"""A busy guest for tests that stop it and step it: booted again where it dies in the emulator on its way up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.lab import scripts
from tests.lab.apt import Unavailable
from tests.lab.fetch import Kernel, ensure
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.scenes import BOOT_SECONDS, write_initrd

BOOTS = 3
SYMBOL = "_raw_spin_lock_irqsave"


@contextmanager
def busy_guest(
    kernel: str, random: Random, folder: Path, append: str = "", smp: int = 1, init: str | None = None
) -> Iterator[tuple[Guest, Kernel, str]]:
    """The guest, its kernel, and what it printed so far; a skip with its reason where it cannot be had.

    A guest that panics ends at once, so that nobody waits for it. `init` stands for work that `random` chooses.
    """
    try:
        found = ensure(kernel)
    except Unavailable as error:
        pytest.skip(f"{kernel}: {error}")
    with ExitStack() as stack:
        machine = Machine(found.vmlinuz, folder / "initrd", f"panic=-1 oops=panic {append}", smp=smp)
        guest, console = _booted(found, random, machine, init, stack)
        yield guest, found, console


def _booted(kernel: Kernel, random: Random, machine: Machine, init: str | None, stack: ExitStack) -> tuple[Guest, str]:
    reason, folder = "", machine.initrd.parent
    for number in range(BOOTS):
        write_initrd(folder, kernel, init or scripts.write_busy(random, SYMBOL), random)
        with ExitStack() as own:
            guest = own.enter_context(Guest(machine, folder / f"serial-{number}.log"))
            try:
                console = guest.wait_for(scripts.BUSY, BOOT_SECONDS)
            except GuestError as error:
                reason = str(error)
                continue
            stack.push(own.pop_all())
            return guest, console
    pytest.skip(f"{kernel.name}: the guest died {BOOTS} times in the emulator on its way up: {reason}")
