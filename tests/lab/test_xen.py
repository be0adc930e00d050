"""A real dom0 of Xen: stacks, text, and every virtual CPU, of which the machine's dump has none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from orcdbg.commands.module_files import audit_modules
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.snapshot.machine import Snapshot
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, StackTrace
from orcdbg.unwind.reasons import HeldByXen
from tests.lab import scripts
from tests.lab.deaths import note_death
from tests.lab.draw import DOM0_DRAWN, KERNELS_VARIABLE, SEED, draw
from tests.lab.fetch import Kernel, locked
from tests.lab.gdbstub import GdbStub
from tests.lab.guest import Guest, GuestError
from tests.lab.live import GuestMemory, cpu_state
from tests.lab.proc_stacks import as_proc_prints, blocked_tasks
from tests.lab.scenes import ATTEMPTS, Scene
from tests.lab.skips import skipped_if_unavailable
from tests.lab.xen import BOOT_SECONDS, CASES, COMPARED, MEMORY, SLOW_CASES, Dom0, booted, printed_registers, scene_of

_IS_ALL = os.environ.get(KERNELS_VARIABLE) == "all"
_LOOKED_AT = [*CASES, *SLOW_CASES] if _IS_ALL else draw("Xen dom0", CASES, DOM0_DRAWN)
pytestmark = pytest.mark.lab

STOPS = 40
ATTEMPTS_ASLEEP = 8
BETWEEN_SECONDS = (0.02, 0.15)
WELL = (End.USER, End.KTHREAD, End.IDLE)


@dataclass(frozen=True)
class Seen:
    """What one dom0 showed.

    Attributes:
        printed: the registers of its idle vCPUs, by Xen; of those that did nothing between the dump and the print.
        busy: the stacks of its vCPUs at some stops while it worked, one each for all vCPUs.
    """

    case: Dom0
    kernel: Kernel
    scene: Scene
    session: Session
    printed: dict[int, dict[str, int]]
    busy: list[list[StackTrace]]


@pytest.fixture(scope="module", params=_LOOKED_AT, ids=str)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A dom0 that was dumped while it slept, and then stopped again and again while it worked."""
    case: Dom0 = request.param
    home = tmp_path_factory.mktemp("dom0")
    with skipped_if_unavailable(str(case)):
        yield _look(case, home)
    (home / "core").unlink(missing_ok=True)


def _look(case: Dom0, home: Path) -> Seen:
    random = Random(f"{SEED} {case}")
    for left in reversed(range(ATTEMPTS)):
        try:
            with locked("guest"):
                return _look_once(case, home, random)
        except GuestError as error:
            if not left:
                raise
            note_death(f"dom0 {case}", str(error))
    raise AssertionError("unreachable")


def _look_once(case: Dom0, home: Path, random: Random) -> Seen:
    with booted(case, home, random) as (guest, kernel):
        session, printed = _asleep(guest, kernel, case, home)
        console = guest.wait_for(f"\n{scripts.BUSY}", BOOT_SECONDS)
        with guest.stub() as stub:
            busy = list(_stops(stub, session, case, random))
    return Seen(case, kernel, scene_of(home, kernel, console), session, printed, busy)


def _asleep(guest: Guest, kernel: Kernel, case: Dom0, home: Path) -> tuple[Session, dict[int, dict[str, int]]]:
    """A dump of a dom0 that sleeps, and what Xen prints of its vCPUs that still slept when it was dumped once more.

    A sleeping vCPU wakes by an event, and counts it. What woke in between has other registers, or the same by chance.

    Raises:
        GuestError: something woke each time.
    """
    for _ in range(ATTEMPTS_ASLEEP):
        before, after = home / "core", home / "core.after"
        guest.dump(before)
        guest.resume()
        printed = printed_registers(guest, case.vcpus)
        guest.dump(after)
        guest.resume()
        session = open_session(kernel.vmlinux, before)
        first, second = _events(session, case), _events(open_session(kernel.vmlinux, after), case)
        after.unlink()
        asleep = [number for number in first if first[number] == second[number]]
        if asleep:
            return session, {number: printed[number] for number in asleep}
        before.unlink()
    raise GuestError("no virtual CPU sleeps from one dump to the next")


def _events(session: Session, case: Dom0) -> dict[int, int]:
    """How many events each vCPU has taken."""
    return {cpu: int(session.variable("irq_stat", cpu=cpu).irq_hv_callback_count) for cpu in range(case.vcpus)}


def _stops(stub: GdbStub, session: Session, case: Dom0, random: Random) -> Iterator[list[StackTrace]]:
    """The stacks of all vCPUs at some moments."""
    assert stub.ram is not None
    snapshot = Snapshot("guest", "GDB stub", GuestMemory(stub.ram, MEMORY << 20), (), {})
    place = session.placement
    live = Session(session.image, snapshot, place.slide, place.phys_base)
    for _ in range(STOPS):
        stub.resume(random.uniform(*BETWEEN_SECONDS))
        states = tuple(cpu_state(stub.read_registers_of(cpu), cpu) for cpu in range(case.cpus))
        live.move(replace(snapshot, cpus=states))
        yield [live.unwinder.trace(live.task(task)) for task in live.unwinder.running]


def of_vcpus(session: Session) -> dict[int, StackTrace]:
    """The stacks of the tasks that vCPUs run, by their numbers."""
    unwinder = session.unwinder
    return {cpu: unwinder.trace(session.task(task)) for task, (cpu, _) in unwinder.running.items()}


def test_every_blocked_task_of_a_dom0_is_as_the_guest_says(seen: Seen) -> None:
    """As on any other machine."""
    tasks = blocked_tasks(seen.session, seen.scene.stacks)
    assert len(tasks) > 40
    for task in tasks:
        trace = seen.session.unwinder.trace(task)
        assert as_proc_prints(seen.session, trace) == seen.scene.stacks[task.pid], task
        assert trace.end == (End.KTHREAD if task.is_kernel_thread else End.USER), task


def test_the_text_of_a_dom0_is_fully_explained(seen: Seen) -> None:
    """What Xen wrote there included, and modules; paravirt sites call Xen's functions, and say so."""
    report = audit_kernel(seen.session.patches)
    wrong = [*report.unexplained_ranges, *report.mismatched_ranges]
    assert [(seen.session.names.describe(one.address), one.mechanism, one.memory.hex()) for one in wrong] == []
    assert report.problems == []
    assert report.differing == report.explained > 0

    modules, without = audit_modules(seen.session, str(seen.kernel.modules))
    assert without == {}
    assert modules
    assert {(one.unexplained, one.mismatched) for one in modules.values()} == {(0, 0)}


def test_every_virtual_cpu_is_walked_from_the_registers_that_xen_prints(seen: Seen) -> None:
    """To where the idle task began: whether its state is on a physical CPU, or in Xen's memory alone."""
    traces = of_vcpus(seen.session)
    assert sorted(traces) == list(range(seen.case.vcpus))
    for number, trace in traces.items():
        assert trace.end in WELL, (number, trace.end_reason)
        assert all(frame.is_trusted for frame in trace.frames), trace

    assert seen.printed
    for number, printed in seen.printed.items():
        registers = traces[number].frames[0].registers
        assert {name: registers[name].value for name in COMPARED} == {name: printed[name] for name in COMPARED}, number


def test_a_working_dom0_shows_no_kernel_address_as_a_programs(seen: Seen) -> None:
    """At whatever it was stopped each vCPU is walked to a good end, or Xen just has its registers, and there is no frame."""
    traces = [trace for stop in seen.busy for trace in stop]
    assert len(traces) == STOPS * seen.case.vcpus
    held = [trace for trace in traces if isinstance(trace.end_reason, HeldByXen)]
    assert all(trace.frames == () or trace.frames[0].kind is FrameKind.USER for trace in held)
    for trace in traces:
        if trace in held:
            continue
        assert trace.end in WELL, (trace.end_reason, trace)
        assert all(frame.is_trusted for frame in trace.frames), trace
        assert all(frame.ip >> 63 == 0 for frame in trace.frames if frame.kind is FrameKind.USER), trace
    assert len(held) * 4 < len(traces)
