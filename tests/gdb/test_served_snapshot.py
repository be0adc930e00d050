"""A snapshot for gdb: every task a thread, registers as far as they are known, text also where it is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

import orcdbg
from orcdbg.base.errors import MemoryFault, NotFound, NotInSnapshot, OrcdbgError
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.gdb.served_snapshot import ServedSnapshot
from orcdbg.target.session import Session
from tests.build.sample import changed_core


@pytest.fixture
def served(sample: Session) -> ServedSnapshot:
    """The sample."""
    return ServedSnapshot(sample, Debugger(sample).task)


def test_every_task_is_a_thread(sample: Session, served: ServedSnapshot) -> None:
    """The one that panicked first, each with a number of its own."""
    numbers = [thread.number for thread in served.threads]
    assert served.threads[0] == (135, "cat on CPU 0")
    assert len(set(numbers)) == len(numbers) == len(sample.tasks)
    assert min(numbers) > 0


def test_a_threads_registers_are_those_that_were_saved(sample: Session, served: ServedSnapshot) -> None:
    """All of a CPU's, a handful of a sleeping task's."""
    note = sample.snapshot.cpus[0].registers
    running, sleeping = served.registers(135), served.registers(1)
    assert (running["rip"], running["eflags"], running["rax"]) == (note["rip"], note["rflags"], note["rax"])
    assert set(sleeping) == {"rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15"}
    with pytest.raises(NotFound):
        served.registers(99999)


def test_text_that_is_not_in_the_snapshot_is_replayed(sample: Session, tmp_path: Path) -> None:
    """As it ran; data are not made up."""
    address = sample.linux.address("_raw_spin_lock_irqsave")
    core = changed_core(tmp_path / "core", without={sample.memory.translate(address)})
    session = orcdbg.open(sample_files()[0], core)
    with pytest.raises(NotInSnapshot):
        session.memory.read(address, 16)
    served = ServedSnapshot(session, Debugger(session).task)
    assert served.read(address, 16) == sample.memory.read(address, 16)
    with pytest.raises(MemoryFault):
        served.read(0xFFFF_8000_0000_0000, 8)


def test_a_thread_on_a_cpu_is_stepped_in_the_emulator(sample: Session, served: ServedSnapshot) -> None:
    """One instruction; the next client finds it where it was."""
    before = served.registers(135)["rip"]
    served.step(135)
    after = served.registers(135)
    assert before < after["rip"] <= before + 15
    assert after["cs"] == sample.snapshot.cpus[0].registers["cs"]
    assert served.read(before, 4) == sample.text.read(before, 4)
    served.run(135, frozenset({after["rip"]}), lambda: True)
    assert served.afresh().registers(135)["rip"] == before


def test_a_thread_that_sleeps_is_not_stepped(served: ServedSnapshot) -> None:
    """The registers that it kept are not all."""
    with pytest.raises(OrcdbgError, match="not on a CPU"):
        served.step(1)
