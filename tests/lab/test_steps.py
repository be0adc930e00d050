"""What a step of the lab is: one instruction of one CPU, while the other CPU stands still.

Each test that steps a guest rests on this.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.gdbstub import PAUSE, WaitsForInterrupt
from tests.lab.guest import MEMORY
from tests.lab.live import LiveKernel, open_live
from tests.lab.strike import read_text

pytestmark = pytest.mark.lab

STEPS, STOPS = 150, 6
SPINS, SLEEPS = "delay_tsc", ("pv_native_safe_halt", "default_idle", "native_safe_halt")
FUNCTION_BYTES = 160
HLT = b"\xf4"


def place_of(live: LiveKernel, names: tuple[str, ...], code: bytes) -> int:
    """Where the first of the functions that has such code has it."""
    for name in names:
        start = live.session.linux.find_address(name)
        found = -1 if start is None else live.session.memory.read(start, FUNCTION_BYTES).find(code)
        if start is not None and found >= 0:
            return start + found
    raise AssertionError(f"none of {names} has {code.hex()}")


def check_the_other_cpu(live: LiveKernel, random: Random) -> int:
    """Steps each CPU while the other is in the middle of something: the number of steps."""
    stub, done = live.stub, 0
    for number in range(STOPS):
        stub.resume(random.uniform(0.001, 0.05))
        stepped, other = (number % 2, 1 - number % 2)
        before = stub.read_registers_of(other)
        for _ in range(STEPS):
            stub.read_registers_of(stepped)
            try:
                stub.step()
            except WaitsForInterrupt:
                break
            done += 1
            assert stub.read_registers_of(other) == before
    return done


def check_one_instruction(live: LiveKernel, at: int) -> int:
    """A step at a `pause` changes rip by its length, and nothing else; how far QEMU's own step goes."""
    stub = live.stub
    stub.write_register("rip", at)
    before = stub.read_registers()
    stub.step()
    assert stub.read_registers() == {**before, "rip": at + len(PAUSE)}

    stub.write_register("rip", at)
    stub.step_as_qemu_does()
    return stub.read_registers()["rip"] - at


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_a_step_is_one_instruction_of_one_cpu(kernel: str, seed: int, tmp_path: Path) -> None:
    """Also at `pause`; at hlt it is refused, and leaves the CPU there."""
    random = Random(f"{kernel} steps {seed}")
    with busy_guest(kernel, random, tmp_path, smp=2) as (guest, found, console), guest.stub() as stub:
        text = scripts.parse_symbols(console)["_text"]
        read_text(stub, text, 1)
        live = open_live(stub, found.vmlinux, text, MEMORY)
        done = check_the_other_cpu(live, random)

        # The guest is damaged from here on, and nothing more is asked of it.
        stub.read_registers()
        theirs = check_one_instruction(live, place_of(live, (SPINS,), PAUSE))
        hlt = place_of(live, SLEEPS, HLT)
        stub.write_register("rip", hlt)
        with pytest.raises(WaitsForInterrupt):
            stub.step()
        assert stub.read_registers()["rip"] == hlt
    print(
        f"{kernel}: {done} steps, the other CPU still; QEMU's own step at pause goes {theirs} bytes, pause has {len(PAUSE)}"
    )
    assert done > STEPS
