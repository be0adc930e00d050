"""How do the signals of a task look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.sig import SignalTable
from orcdbg.subsystems.signals import SIG_DFL, SIG_IGN, SIGNALS, QueuedSignal, Signals, signal_name
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, view

_HANDLERS = {SIG_DFL: "SIG_DFL", SIG_IGN: "SIG_IGN"}
# The bits of sa_flags that have names (include/uapi/asm-generic/signal-defs.h, arch/x86/include/uapi/asm/signal.h).
_FLAGS = (
    *((0x1, "NOCLDSTOP"), (0x2, "NOCLDWAIT"), (0x4, "SIGINFO"), (0x400_0000, "RESTORER"), (0x800_0000, "ONSTACK")),
    *((0x1000_0000, "RESTART"), (0x4000_0000, "NODEFER"), (0x8000_0000, "RESETHAND")),
)


def signal_names(mask: int) -> list[str]:
    """The names of the signals in a mask."""
    return [signal_name(number) for number in range(1, SIGNALS + 1) if mask >> number - 1 & 1]


def _mask(label: str, mask: int) -> Line:
    return line((f"{label:>15}: ", "label"), f"{mask:016x}  {' '.join(signal_names(mask))}")


def _lines(result: SignalTable, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(one.task)
        yield from _signals(one.signals)
    yield from problem_lines(result.problems)


def _signals(signals: Signals) -> Iterator[Line]:
    threads = "-" if signals.threads is None else signals.threads
    yield line(
        ("SIGNAL_STRUCT: ", "label"), f"{address(signals.signal_struct)}  ", ("NR_THREADS: ", "label"), f"{threads}"
    )
    # Those that do what they do by default say nothing.
    rows = (
        (
            one.number,
            _HANDLERS.get(one.handler, f"{one.handler:x}"),
            f"{one.mask:016x}",
            ",".join(word for bit, word in _FLAGS if one.flags & bit) or f"{one.flags:x}",
            signal_name(one.number),
        )
        for one in signals.handling
        if one.handler != SIG_DFL
    )
    yield from columns((">SIG", ">HANDLER", "MASK", "FLAGS", "NAME"), rows)
    yield _mask("BLOCKED", signals.blocked)
    yield _mask("PENDING", signals.pending)
    yield from _queued(signals.queued)
    yield _mask("SHARED PENDING", signals.shared_pending)
    yield from _queued(signals.shared_queued)


def _queued(queued: list[QueuedSignal]) -> Iterator[Line]:
    if queued:
        rows = ((one.number, one.code, address(one.address), signal_name(one.number)) for one in queued)
        yield from columns((">SIG", ">CODE", "SIGQUEUE", "NAME"), rows)


def _signals_json(signals: Signals) -> Json:
    handling = [
        record(one, ("handler",), mask=f"{one.mask:#x}", flags=f"{one.flags:#x}", name=signal_name(one.number))
        for one in signals.handling
    ]
    return record(
        signals,
        ("signal_struct",),
        handling=handling,
        blocked=signal_names(signals.blocked),
        pending=signal_names(signals.pending),
        shared_pending=signal_names(signals.shared_pending),
        queued=[record(one, ("address",)) for one in signals.queued],
        shared_queued=[record(one, ("address",)) for one in signals.shared_queued],
    )


def _json(result: SignalTable) -> Json:
    tasks = [task_json(one.task) | _signals_json(one.signals) for one in result.tasks]
    return {"tasks": tasks, "problems": list(result.problems)}


view(SignalTable, text=_lines, json=_json)
