"""bt --check: our frames beside the kernel's own trace."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orcdbg.commands.log_check import LogCheck, LogChecks, RowStatus, compare, log_names, renamer
from orcdbg.kernel.oops import PrintedFrame, PrintedTrace
from orcdbg.kernel.ret_stack import Tracer
from orcdbg.orc.reasons import CallerLeftOut, ReturnAddressInRegister
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind, Recovered
from orcdbg.unwind.reasons import CpuNotSaved
from orcdbg.views.log_check import checks_json, checks_lines
from orcdbg.views.page import plain
from tests.conftest import RunProgram


@pytest.fixture(scope="module")
def frames(sample: Session) -> tuple[list[Frame], list[str]]:
    """The frames of a sleeping task without a mark, and their names as the kernel prints them."""
    found = [f for f in sample.unwinder.trace(sample.task(1)).frames if f.kind != FrameKind.USER]
    return found, [sample.names.describe(f.ip, f.exact) or "" for f in found]


def printed(names: list[str]) -> list[PrintedFrame]:
    """A log that is sure of all these."""
    out = []
    for name in names:
        symbol, _, rest = name.partition("+")
        offset, _, size = rest.partition("/")
        out.append(PrintedFrame(symbol, int(offset, 16), int(size, 16), None, True))
    return out


def statuses(frames: tuple[list[Frame], list[str]], log: list[PrintedFrame]) -> list[RowStatus]:
    """What is said of each row."""
    return [row.status for row in compare(frames[1], frames[0], log)]


def test_equal_traces_are_the_same(frames: tuple[list[Frame], list[str]]) -> None:
    """Line by line."""
    assert set(statuses(frames, printed(frames[1]))) == {RowStatus.SAME}


def test_a_sure_line_that_we_lack_is_missing(frames: tuple[list[Frame], list[str]]) -> None:
    """Our walk lost a frame, or the kernel's made one up: both cannot be right."""
    log = printed(frames[1])
    log.insert(2, PrintedFrame("lost", 1, 2, None, True))
    assert statuses(frames, log)[:4] == [RowStatus.SAME, RowStatus.SAME, RowStatus.MISSING, RowStatus.SAME]


def test_a_frame_that_the_log_lacks_is_extra(frames: tuple[list[Frame], list[str]]) -> None:
    """The kernel prints every word that could be one, if only after a `?`."""
    log = printed(frames[1])
    del log[2]
    assert statuses(frames, log)[:4] == [RowStatus.SAME, RowStatus.SAME, RowStatus.EXTRA, RowStatus.SAME]


def test_a_frame_that_the_kernels_rows_leave_out_is_no_contradiction(frames: tuple[list[Frame], list[str]]) -> None:
    """An NMI in the second half of error_entry: no row finds what called it, printed too late after a `?`, or never."""
    log = printed(frames[1])
    del log[2]
    for note in (CallerLeftOut(), ReturnAddressInRegister("rsi", are_all_saved=False)):
        own = [*frames[0][:1], replace(frames[0][1], notes=(note,)), *frames[0][2:]]
        assert statuses((own, frames[1]), log)[:4] == [
            RowStatus.SAME,
            RowStatus.SAME,
            RowStatus.OMITTED,
            RowStatus.SAME,
        ]


def test_an_interrupted_first_instruction_is_a_return_address_to_a_kernel_that_lost_the_stack(sample: Session) -> None:
    """Printed after a `?`, with the name of the function before it (5.10, a stack that overflowed in a thunk)."""
    frame = replace(sample.unwinder.trace(sample.task(1)).frames[0], kind=FrameKind.INTERRUPT, exact=True)
    line = PrintedFrame("before", 0x12, 0x12, None, False)
    assert [row.status for row in compare(["thunk+0x0/0x20"], [frame], [line], also_called=[{"before+0x12/0x12"}])] == [
        RowStatus.GUESS
    ]
    assert [row.status for row in compare(["thunk+0x0/0x20"], [frame], [line])] == [RowStatus.STALE, RowStatus.SINCE]


def test_another_name_of_the_same_place_is_the_same(sample: Session) -> None:
    """Of several symbols at one address the kernel may print one that we do not; an offset or a size it prints counts."""
    rename = renamer(sample)
    place = sample.names.at(sample.linux.address("memmove"))
    assert place is not None
    other = next(name for name in ("memmove", "__memmove") if name != place.symbol)
    line = PrintedFrame(other, 4, place.size, None, True)
    assert rename(line) == f"{place.symbol}+0x4/{place.size:#x}"
    unlike = [replace(line, size=place.size + 1), replace(line, module="kvm"), replace(line, symbol="nowhere")]
    assert [rename(one) for one in unlike] == [one.name for one in unlike]
    frame = sample.unwinder.trace(sample.task(1)).frames[0]
    assert [row.status for row in compare([rename(line)], [frame], [line], rename)] == [RowStatus.SAME]


def test_a_guess_of_the_log_confirms_a_frame(frames: tuple[list[Frame], list[str]]) -> None:
    """The kernel's unwinder had given up there."""
    log = [replace(one, sure=index < 2) for index, one in enumerate(printed(frames[1]))]
    assert statuses(frames, log)[:3] == [RowStatus.SAME, RowStatus.SAME, RowStatus.GUESS]


def test_a_stale_guess_of_the_log_is_no_contradiction(frames: tuple[list[Frame], list[str]]) -> None:
    """That is what the `?` means."""
    log = printed(frames[1])
    log.insert(3, PrintedFrame("stale", 1, 2, None, False))
    assert statuses(frames, log)[3] == RowStatus.STALE


def test_what_returned_or_was_called_since_is_no_contradiction(frames: tuple[list[Frame], list[str]]) -> None:
    """A panic's CPU ran on after it had printed."""
    log = [PrintedFrame("dump_stack", 1, 2, None, True), *printed(frames[1])[2:]]
    assert statuses(frames, log)[:4] == [RowStatus.RETURNED, RowStatus.SINCE, RowStatus.SINCE, RowStatus.SAME]


def test_a_frame_that_is_marked_is_never_a_contradiction(frames: tuple[list[Frame], list[str]]) -> None:
    """It was not claimed."""
    marked = [replace(f, reliable=f.index != 2) for f in frames[0]]
    log = printed(frames[1])
    del log[2]
    assert [row.status for row in compare(frames[1], marked, log)][2] is RowStatus.DOUBT


def test_the_log_ends_before_we_do(frames: tuple[list[Frame], list[str]]) -> None:
    """A trace whose rest was overwritten."""
    assert statuses(frames, printed(frames[1])[:3])[2:4] == [RowStatus.SAME, RowStatus.BEYOND]


def test_nothing_in_common_is_said_as_such(frames: tuple[list[Frame], list[str]]) -> None:
    """The task has moved on altogether."""
    assert set(statuses(frames, [PrintedFrame("other", 1, 2, None, True)])) == {RowStatus.RETURNED, RowStatus.SINCE}


def test_an_empty_walk_agrees_with_nothing(frames: tuple[list[Frame], list[str]], sample: Session) -> None:
    """A CPU without registers has no frames: no line of the log had returned by then, as far as anybody knows."""
    log = printed(frames[1])
    rows = compare([], [], log)
    assert [(row.status, row.printed) for row in rows] == [(RowStatus.UNCOMPARED, one) for one in log]
    trace = replace(sample.unwinder.trace(sample.task(1)), frames=(), end_reason=CpuNotSaved(3))
    text, status, shown = answer(LogCheck(trace, PrintedTrace(1, "init", 0, 0, log), rows))
    assert (status, shown["agrees"], shown["compared"], shown["contradictions"]) == (5, False, 0, 0)
    assert "NOTHING WAS COMPARED, since this stack has no frames: running on CPU 3" in text
    assert "No contradiction" not in text


def test_frames_of_which_none_is_in_the_log_are_not_compared(
    frames: tuple[list[Frame], list[str]], sample: Session
) -> None:
    """Nor are frames that are all marked, which contradict nothing."""
    other = [PrintedFrame("other", 1, 2, None, True)]
    marked = [replace(frame, reliable=False) for frame in frames[0]]
    trace = sample.unwinder.trace(sample.task(1))
    for ours, log in ((frames[0], other), (marked, printed(frames[1]))):
        rows = compare(frames[1], ours, log)
        text, status, shown = answer(LogCheck(trace, PrintedTrace(1, "init", 0, 0, log), rows))
        assert (status, shown["agrees"], shown["compared"], shown["contradictions"]) == (5, False, 0, 0)
        assert "NOTHING WAS COMPARED" in text


def answer(found: LogCheck) -> tuple[str, int, Any]:
    """Text, exit status and JSON of one check."""
    result = LogChecks([found], [], [])
    return plain(checks_lines(result, None)), result.exit_status, checks_json(result)["checks"][0]


def test_a_trampoline_in_the_log_stands_for_the_return_address_that_it_replaced(sample: Session) -> None:
    """The kernel's unwinder goes on past a kretprobe's or rethook's, but prints it as if it were the caller."""
    inner, outer, *_ = sample.unwinder.trace(sample.task(1)).frames
    address = sample.linux.address("do_syscall_64")
    recovered = replace(outer, recovered=Recovered(Tracer.KRETPROBE, address))
    names = [sample.names.describe(frame.ip, frame.exact) or "" for frame in (inner, outer)]
    also = [log_names(sample, inner), log_names(sample, recovered)]
    (trampoline,) = printed([sample.names.describe(address, False) or ""])
    (first,) = printed(names[:1])
    assert trampoline.symbol != "do_syscall_64"
    assert [row.status for row in compare(names, [inner, recovered], [first, trampoline], also_called=also)] == [
        RowStatus.SAME,
        RowStatus.SAME,
    ]
    plainly = compare(
        names, [inner, outer], [first, trampoline], also_called=[log_names(sample, f) for f in (inner, outer)]
    )
    assert [row.status for row in plainly] == [RowStatus.SAME, RowStatus.MISSING, RowStatus.BEYOND]


def test_code_without_a_name_is_known_by_its_address(sample: Session) -> None:
    """Copies of ftrace's trampoline, and slots of kprobes, have a name in /proc/kallsyms and none in a trace."""
    frame = sample.unwinder.trace(sample.task(1)).frames[1]
    line = PrintedFrame("", 0, 0, None, True, address=frame.ip)
    rows = compare(["ftrace_trampoline+0x6a/0xa6"], [frame], [line], also_called=[log_names(sample, frame)])
    assert [row.status for row in rows] == [RowStatus.SAME]


def test_the_samples_panic_agrees(orcdbg_run: RunProgram) -> None:
    """Five frames the same, and eight where the kernel's own unwinder had given up and only guessed."""
    status, text, _ = orcdbg_run("demo", "-e", "bt --check")
    assert status == 0
    assert "5 the same, 8 that the log only guesses" in text
    assert text.rstrip().endswith("No contradiction.")
    (line,) = orcdbg_run("demo", "--format", "json", "-e", "bt --check")[1].splitlines()
    (check,) = json.loads(line)["result"]["checks"]
    assert (check["pid"], check["agrees"], check["contradictions"]) == (135, True, 0)


def test_a_task_that_the_log_does_not_know_is_named(orcdbg_run: RunProgram) -> None:
    """And those that it knows are listed."""
    status, _, errors = orcdbg_run("demo", "-e", "bt --check 1")
    assert status == 1
    assert "no such trace in the log of task: 1" in errors
    assert "135 cat" in errors
