"""The ten points that are said of every dump, in this order."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from orcdbg.analysis.case import Case
from orcdbg.analysis.detectors.bad_pointers import is_bad_call
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, Untold, derived, fact
from orcdbg.analysis.pointers import describe, involved_pointers
from orcdbg.analysis.signature import first_frame_outside, first_waiting
from orcdbg.base.errors import OrcdbgError
from orcdbg.base.intervals import number_runs
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.headlines import Announced
from orcdbg.kernel.modules import Module
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems import machine
from orcdbg.subsystems.memory_totals import memory_totals
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace
from orcdbg.unwind.saved_registers import is_user

_MAX_GROUPS = 12
_MAX_BLOCKED = 1 << 14
_MAX_FUNCTION = 1 << 16
_INTERRUPTS = 1 << 9  # X86_EFLAGS_IF


class HeadPoint(enum.Enum):
    """A point of the head; the values are the JSON contract's words."""

    MESSAGE = "message"
    CONTEXT = "context"
    INSTRUCTION = "instruction"
    POINTERS = "pointers"
    TEXT = "text"
    FRAME = "frame"
    CPUS = "cpus"
    BLOCKED = "blocked"
    MEMORY = "memory"
    LOG = "log"


def head(case: Case) -> tuple[dict[HeadPoint, list[Finding]], list[Untold]]:
    """All points; what one cannot tell is `unknown`, and costs no other."""
    points: dict[HeadPoint, list[Finding]] = {}
    unknown: list[Untold] = []
    for point, parts in _PARTS.items():
        found = points.setdefault(point, [])
        for part in parts:
            try:
                found.extend(part(case))
            except OrcdbgError as error:
                unknown.append(Untold(point.value, error.message))
    return points, unknown


# 1


def _message(case: Case) -> Iterator[Finding]:
    """From the log, and from the stack."""
    panic = case.last(Announced.PANIC)
    if panic is not None:
        yield fact(FindingKind.MESSAGE, Exhibit(panic.text, "log"), message=panic.text)
    elif case.panic_cpu is None and not case.headlines:
        yield fact(FindingKind.NO_DEATH, Exhibit("no such record of facility 0; panic_cpu is -1", "log"))
    for line in case.headlines:
        if line.announced is not Announced.PANIC:
            yield fact(FindingKind.ANNOUNCED, Exhibit(line.text, "log"), message=line.text)


def _panicking(case: Case) -> Iterator[Finding]:
    if case.panic_cpu is None:
        return
    yield fact(
        FindingKind.PANICKED,
        Exhibit(f"panic_cpu = {case.panic_cpu}", "bt -p"),
        cpu=case.panic_cpu,
        route=case.site.route.value,
        names=" < ".join(case.site.route_names[:8]),
    )


def _uptime(case: Case) -> Iterator[Finding]:
    yield fact(FindingKind.UPTIME, Exhibit("tk_core", "sys"), nanoseconds=machine.uptime(case.session.program))


def _load(case: Case) -> Iterator[Finding]:
    averages = ", ".join(f"{value:.2f}" for value in machine.load_averages(case.session.program))
    yield fact(FindingKind.LOAD, Exhibit("avenrun", "sys"), averages=averages)


def _taint(case: Case) -> Iterator[Finding]:
    mask = machine.taint_mask(case.session.program)
    yield fact(FindingKind.TAINT, Exhibit(f"tainted_mask = {mask:#x}", "sys -t"), letters=machine.taint_letters(mask))


def _command_line(case: Case) -> Iterator[Finding]:
    line = machine.command_line(case.session.program).strip()
    yield fact(FindingKind.COMMAND_LINE, Exhibit(line, "sys"), line=line)


def _present(case: Case) -> Iterator[Finding]:
    present = machine.cpu_set(case.session.program, "__cpu_present_mask")
    online = machine.cpu_set(case.session.program, "__cpu_online_mask")
    yield fact(
        FindingKind.CPUS_PRESENT,
        Exhibit(f"present {number_runs(present)}, online {number_runs(online)}", "sys"),
        present=len(present),
        online=len(online),
        stopped=len(case.session.snapshot.cpus),
    )


# 2


def _context(case: Case) -> Iterator[Finding]:
    if case.panic_cpu is None:
        return
    task = case.task
    yield fact(
        FindingKind.CONTEXT,
        Exhibit(f"task {task.address:#x}", "bt -p"),
        addresses=[task.address],
        pid=task.pid,
        comm=task.comm,
        stack=case.site.way[0].stack.value if case.site.way else "unknown",
    )
    fault = case.site.fault
    if fault is None:
        return
    flags = fault.registers.get("rflags", 0)
    yield fact(
        FindingKind.EXCEPTION,
        Exhibit(", ".join(f"{name}={value:#x}" for name, value in fault.registers.items()), f"bt --why {fault.place}"),
        addresses=[fault.ip],
        entry=fault.entry,
        place=case.name(fault.ip),
        interrupts="on" if flags & _INTERRUPTS else "off",
        mode="user" if is_user(fault.frame.registers) else "kernel",
    )


# 3


def _instruction(case: Case) -> Iterator[Finding]:
    if not case.has_fault or is_bad_call(case):
        return
    found = case.instruction
    yield fact(
        FindingKind.INSTRUCTION,
        Exhibit(f"{case.name(case.fault.ip)}: {found.instruction.raw.hex(' ')}", f"dis {case.fault.ip:#x}"),
        addresses=[case.fault.ip],
        place=case.name(case.fault.ip),
        instruction=found.instruction.text,
    )
    for operand in found.operands:
        if operand.address is None:
            continue
        names = (operand.memory.base, operand.memory.times)
        shown = ", ".join(
            f"{name} = {case.fault.registers[name]:#x}" for name in names if name in case.fault.registers and name
        )
        yield fact(
            FindingKind.OPERAND,
            Exhibit(shown or "no register", f"bt --why {case.fault.place}"),
            addresses=[operand.address],
            access="written" if operand.memory.is_written else "read" if operand.memory.is_read else "named",
            address=f"{operand.address:#x}",
            size=operand.memory.size,
        )


# 4


def _pointers(case: Case) -> Iterator[Finding]:
    for pointer in involved_pointers(case):
        yield from describe(case, pointer.role, pointer.value)


# 5


def _text(case: Case) -> Iterator[Finding]:
    if case.panic_cpu is None:
        return
    intact: list[str] = []
    for frame in case.site.way:
        location = frame.location
        if location is None or not location.is_text or not frame.reliable:
            continue
        if location.module is not None or location.size > _MAX_FUNCTION:
            yield fact(
                FindingKind.TEXT_NOT_AUDITED,
                Exhibit(location.symbol, "patch audit --modules DIR"),
                function=location.symbol,
                module=location.module or "",
            )
            continue
        wrong = changed_bytes(case, location.start, location.size)
        if wrong is None:
            yield fact(
                FindingKind.TEXT_NOT_AUDITED,
                Exhibit(location.symbol, "patch audit"),
                function=location.symbol,
                module="",
            )
        elif wrong:
            yield text_changed(case, wrong)
        else:
            intact.append(location.symbol)
    if intact:
        names = list(dict.fromkeys(intact))
        yield derived(FindingKind.TEXT_INTACT, Exhibit(", ".join(names), "patch audit"), count=len(names))


def changed_bytes(case: Case, start: int, size: int) -> list[tuple[int, int, int]] | None:
    """Bytes of a function that are not what the build and the recorded patches make: (address, expected, found).

    None where that cannot be told: memory is missing, or there is no image.
    """
    if case.session.image.is_memory:
        return None
    try:
        now = case.session.memory.read(start, size)
        expected = case.session.text.replayed(start, size)
    except OrcdbgError:
        return None
    undecided = [
        (cluster.address, cluster.end)
        for cluster in case.session.ledger.between(start, start + size)
        if cluster.expected is None
    ]
    return [
        (start + number, should, found)
        for number, (should, found) in enumerate(zip(expected, now, strict=True))
        if should != found and not any(low <= start + number < high for low, high in undecided)
    ]


def text_changed(case: Case, wrong: Sequence[tuple[int, int, int]]) -> Finding:
    """The statement that text is not what it must be."""
    first = wrong[0][0]
    shown = " ".join(f"{should:02x}" for _, should, _ in wrong[:16])
    found = " ".join(f"{now:02x}" for _, _, now in wrong[:16])
    return derived(
        FindingKind.TEXT_CHANGED,
        Exhibit(f"{first:#x}: {found}, expected {shown}", f"dis --diff {first:#x} 1"),
        addresses=[first],
        place=case.name(first),
        count=len(wrong),
        expected=shown,
        found=found,
    )


# 6


def _frame(case: Case) -> Iterator[Finding]:
    if case.panic_cpu is None:
        return
    frame = first_frame_outside(case.site)
    if frame is None or frame.location is None:
        return
    module = frame.location.module
    yield fact(
        FindingKind.FRAME,
        Exhibit(f"#{frame.index} {case.name(frame.ip, frame.exact)}", "bt -p"),
        addresses=[frame.ip],
        place=case.name(frame.ip, frame.exact),
        module=module or "",
    )
    if module is not None:
        loaded = next((one for one in case.session.names.modules if one.name == module), None)
        if loaded is not None:
            yield _module_taint(case, loaded)


def _module_taint(case: Case, module: Module) -> Finding:
    mask = case.session.linux.member("module", "taints", module.address)
    return fact(
        FindingKind.MODULE_TAINT,
        Exhibit(f"module.taints = {mask:#x}", "mod -t"),
        addresses=[module.address],
        module=module.name,
        letters=machine.taint_letters(mask),
    )


# 7


def _cpus(case: Case) -> Iterator[Finding]:
    for cpu, task in sorted(case.running.items()):
        frame = next(iter(case.before_the_stop(cpu)), None)
        yield fact(
            FindingKind.CPU,
            Exhibit("no frame" if frame is None else f"#{frame.index}", f"bt -c {cpu}"),
            addresses=[task.address],
            cpu=cpu,
            pid=task.pid,
            comm=task.comm,
            place="nowhere that can be told" if frame is None else _place(case, frame),
        )


def _place(case: Case, frame: Frame) -> str:
    if frame.kind is FrameKind.USER:
        return f"user mode at {frame.ip:#x}"
    return case.name(frame.ip, frame.exact)


# 8


def _waiting_place(case: Case, trace: StackTrace) -> str:
    frame = first_waiting(trace.frames)
    return "?" if frame is None else _place(case, frame)


def _blocked(case: Case) -> Iterator[Finding]:
    """Tasks that wait uninterruptibly, by where they wait."""
    blocked = [task for task in case.session.tasks if task.state == "UN"][:_MAX_BLOCKED]
    traces = case.session.unwinder.traces(blocked)
    groups: Counter[str] = Counter()
    members: dict[str, list[Task]] = {}
    for task, trace in zip(blocked, traces, strict=True):
        place = _waiting_place(case, trace)
        groups[place] += 1
        members.setdefault(place, []).append(task)
    for place, count in groups.most_common(_MAX_GROUPS):
        first = members[place][0]
        yield fact(
            FindingKind.BLOCKED,
            Exhibit(f"{first.pid} {first.comm}", f"bt {first.pid}"),
            addresses=[first.address],
            count=count,
            place=place,
            pids=", ".join(str(task.pid) for task in members[place][:8]),
        )


def _waits(case: Case) -> Iterator[Finding]:
    """Who of them waits for whom, as far as the kernel keeps it; who waits longest comes first."""
    blocked = {task.address for task in case.session.tasks if task.state == "UN"}
    known = [edge for edge in case.waits.edges if edge.waiter in blocked and edge.object is not None]
    held = [edge for edge in known if edge.holder is not None]
    for edge in sorted(held, key=lambda edge: -(edge.age or 0))[:_MAX_GROUPS]:
        waiter, holder = case.find_task(edge.waiter), case.find_task(edge.holder or 0)
        yield Finding(
            FindingKind.WAITS_FOR,
            edge.certainty,
            {
                "pid": waiter.pid,
                "comm": waiter.comm,
                "what": f"{edge.kind.value} {case.label(edge.object or 0)}",
                "holder": holder.pid,
                "holder_comm": holder.comm,
                "seconds": "?" if edge.age is None else f"{edge.age / 1e9:.1f}",
            },
            [Exhibit(f"{edge.object or 0:#x}", f"waits -v {waiter.pid}")],
            [waiter.address, holder.address],
        )


# 9


def _memory(case: Case) -> Iterator[Finding]:
    problems: list[str] = []
    totals = memory_totals(case.session.program, problems)
    megabytes = {name: pages * PAGE >> 20 for name, pages in (("total", totals.total), ("free", totals.free))}
    slabs = (totals.slab_reclaimable + totals.slab_unreclaimable) * PAGE >> 20
    yield fact(
        FindingKind.MEMORY,
        Exhibit(f"{totals.total} pages, {totals.free} free", "kmem -i"),
        total=megabytes["total"],
        free=megabytes["free"],
        available="?" if totals.available is None else totals.available * PAGE >> 20,
        anonymous=totals.anonymous * PAGE >> 20,
        slabs=slabs,
        swap=totals.swap_total * PAGE >> 20,
    )


# 10


def _log(case: Case) -> Iterator[Finding]:
    planted = [record for record in case.records if record.is_from_user_space]
    if planted:
        yield fact(
            FindingKind.PLANTED,
            Exhibit(f"records {planted[0].seq} to {planted[-1].seq}", "log"),
            count=len(planted),
            facilities=", ".join(str(number) for number in sorted({record.facility for record in planted})),
        )
    first = case.records[0].seq if case.records else 0
    if first:
        yield fact(FindingKind.LOST, Exhibit(f"the first record is {first}", "log"), count=first)
    for problem in case.log_problems:
        yield fact(FindingKind.LOG_PROBLEM, Exhibit(problem, "log"), problem=problem)


_Part = Callable[[Case], Iterator[Finding]]
_PARTS: Mapping[HeadPoint, Sequence[_Part]] = {
    HeadPoint.MESSAGE: (_message, _panicking, _uptime, _load, _taint, _command_line, _present),
    HeadPoint.CONTEXT: (_context,),
    HeadPoint.INSTRUCTION: (_instruction,),
    HeadPoint.POINTERS: (_pointers,),
    HeadPoint.TEXT: (_text,),
    HeadPoint.FRAME: (_frame,),
    HeadPoint.CPUS: (_cpus,),
    HeadPoint.BLOCKED: (_blocked, _waits),
    HeadPoint.MEMORY: (_memory,),
    HeadPoint.LOG: (_log,),
}
