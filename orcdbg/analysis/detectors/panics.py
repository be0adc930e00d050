"""Which of the kernel's own watchers, or whose wish, ended it: what the functions on the stack of panic() say alone?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, Vector
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, fact
from orcdbg.kernel.headlines import Announced
from orcdbg.unwind.frame import Frame

KINDS: Mapping[Route, tuple[FindingKind, Announced | None]] = {
    Route.SYSRQ: (FindingKind.SYSRQ, None),
    Route.STACK_PROTECTOR: (FindingKind.STACK_SMASHED, None),
    Route.SOFT_LOCKUP: (FindingKind.SOFT_LOCKUP, Announced.SOFT_LOCKUP),
    Route.HARD_LOCKUP: (FindingKind.HARD_LOCKUP, Announced.HARD_LOCKUP),
    Route.HUNG_TASK: (FindingKind.HUNG_TASK, Announced.HUNG_TASK),
    Route.RCU_STALL: (FindingKind.RCU_STALL, Announced.RCU_STALL),
    Route.OUT_OF_MEMORY: (FindingKind.OUT_OF_MEMORY, Announced.OOM),
    Route.MACHINE_CHECK: (FindingKind.MACHINE_CHECK, Announced.MACHINE_CHECK),
    Route.STACK_OVERFLOW: (FindingKind.STACK_OVERFLOW, Announced.STACK_GUARD),
    Route.DOUBLE_FAULT: (FindingKind.DOUBLE_FAULT, Announced.DOUBLE_FAULT),
    Route.WARNING: (FindingKind.WARNING, Announced.WARNING),
    Route.NMI: (FindingKind.NMI_PANIC, None),
    Route.INIT_KILLED: (FindingKind.INIT_KILLED, None),
    Route.CALL: (FindingKind.PANIC_CALLED, None),
}


def _applies(case: Case) -> bool:
    if case.panic_cpu is None or case.site.route not in KINDS:
        return False
    # That of an instruction which the bug table may name is looked at there.
    return case.site.route is not Route.WARNING or not case.has_fault


def _detect(case: Case) -> Iterator[Finding]:
    site = case.site
    kind, announced = KINDS[site.route]
    if kind is FindingKind.INIT_KILLED and case.task.tgid != 1:
        kind = FindingKind.PANIC_CALLED  # do_exit() also calls it for a task that dies in an interrupt
    panics = case.last(Announced.PANIC)
    line = case.last(announced) if announced is not None else None
    evidence = [Exhibit(" < ".join(site.route_names[:8]) or "panic", "bt -p")]
    evidence += [Exhibit(said.text, "log") for said in (line, panics) if said is not None]
    way = _where(case, kind)
    yield fact(
        kind,
        *evidence,
        addresses=[] if way is None else [way.ip],
        place=case.name(way.ip, way.exact) if way is not None and way.reliable else "a place that is not known",
        message="" if panics is None else panics.fields.get("message", ""),
        said="" if line is None else line.text,
        pid=case.task.pid,
        comm=case.task.comm,
        is_written=int("write_sysrq_trigger" in site.route_names),
    )


def _where(case: Case, kind: FindingKind) -> Frame | None:
    """The first frame with a name of what the machine was about; None without."""
    frames = case.site.way
    # The detector of stalls may run on another CPU than the one that stalls.
    if kind is FindingKind.RCU_STALL:
        frames = () if case.stalled_cpu is None else case.before_the_stop(case.stalled_cpu)
    return next((frame for frame in frames if frame.location is not None), None)


DETECTOR = Detector("who called panic()", (Input.STACK,), _applies, _detect)


def _is_other_oops(case: Case) -> bool:
    return case.has_fault and case.site.route is Route.OOPS and case.fault.exception is Vector.DIVIDE_ERROR


def _divided(case: Case) -> Iterator[Finding]:
    insn, ip = case.instruction.instruction, case.fault.ip
    registers = case.fault.registers
    shown = ", ".join(f"{name} = {registers[name]:#x}" for name in ("rax", "rdx", "rcx") if name in registers)
    yield fact(
        FindingKind.DIVIDE_ERROR,
        Exhibit(f"{case.name(ip)}: {insn.text}", f"dis {ip:#x}"),
        Exhibit(shown, f"bt --why {case.fault.place}"),
        addresses=[ip],
        place=case.name(ip),
        instruction=insn.text,
    )
    yield from _divisor(case)


_PARTS = {f"r{name}x": (f"r{name}x", f"e{name}x", f"{name}x", f"{name}l") for name in "abcd"}
_PARTS |= {f"r{name}": (f"r{name}", f"e{name}", name, f"{name}l") for name in ("si", "di", "bp")}
_PARTS |= {f"r{number}": (f"r{number}", f"r{number}d", f"r{number}w", f"r{number}b") for number in range(8, 16)}


def _divisor(case: Case) -> Iterator[Finding]:
    """The divisor where it is memory, as it is now."""
    name = case.instruction.instruction.operands.lstrip("%")
    for whole, parts in _PARTS.items():
        if name in parts and whole in case.fault.registers:
            mask = (1 << (64, 32, 16, 8)[parts.index(name)]) - 1
            yield fact(
                FindingKind.DIVISOR_REGISTER,
                Exhibit(f"{whole} = {case.fault.registers[whole]:#x}", f"bt --why {case.fault.place}"),
                register=name,
                value=f"{case.fault.registers[whole] & mask:#x}",
            )
    for operand in case.instruction.operands:
        if operand.address is None:
            continue
        value = case.word(operand.address)
        if value is None:
            continue
        now = value & (1 << 8 * operand.memory.size) - 1
        yield fact(
            FindingKind.DIVISOR,
            Exhibit(f"{operand.address:#x}: {now:#x}", f"rd {operand.address:#x} 1"),
            addresses=[operand.address],
            address=f"{operand.address:#x}",
            name=case.name(operand.address),
            now=f"{now:#x}",
        )


DIVIDE = Detector("a division", (Input.STACK, Input.REGISTERS, Input.TEXT), _is_other_oops, _divided)
