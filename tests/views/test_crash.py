"""Stacks in crash's lines."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from orcdbg.commands.crash import CrashStacks
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.stacks import Stacks
from orcdbg.unwind.frame import End
from orcdbg.unwind.reasons import CpuNotSaved, MaybeOfEarlierEntry, StackGone
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of, text_pieces
from orcdbg.views.page import plain

# What crash 8.0.2 prints of the sample's NMI, as far as it finds the frames: an exception on another stack.
EXCEPTION = """\
    [exception RIP: lock_is_held_type+82]
    RIP: {ip}  RSP: {sp}  RFLAGS: \\w{{8}}
    RAX: \\w{{16}}  RBX: \\w{{16}}  RCX: \\w{{16}}
    RDX: \\w{{16}}  RSI: \\w{{16}}  RDI: \\w{{16}}
    RBP: \\w{{16}}   R8: \\w{{16}}   R9: \\w{{16}}
    R10: \\w{{16}}  R11: \\w{{16}}  R12: \\w{{16}}
    R13: \\w{{16}}  R14: \\w{{16}}  R15: \\w{{16}}
    ORIG_RAX: ffffffffffffffff  CS: 0010  SS: 0018
--- <NMI exception stack> ---
 #6 [{sp}] lock_is_held_type at {ip}
"""
_LINE = re.compile(
    r'PID: \d+ +TASK: \w{16}  CPU: (?:\d+|-) *COMMAND: ".*"|(?: #\d|#\d\d+) \[\w{16}\] [\w.]+ at \w{16}(?: \[\w+\])?(?:  \?)?'
    r"|    \[exception RIP: .*\]|    (?:[A-Z_0-9 ]+: \w{4,16} *)+|--- <.*> ---|bt: .*|"
)


def test_an_exception_is_shown_as_crash_shows_it(debugger: Debugger, registry: Registry) -> None:
    """The interrupted ip, all registers, the stack that is left, and the frame with its stack pointer."""
    result = registry.run(debugger, "bt --crash")
    assert isinstance(result, CrashStacks)
    frame = result.stacks.stacks[0].frames[6]
    expected = EXCEPTION.replace("[exception", r"\[exception").replace("type+82]", r"type\+82\]")
    expected = expected.replace("[{sp}]", r"\[{sp}\]").format(ip=f"{frame.ip:x}", sp=f"{frame.sp:x}")
    assert re.search(expected, plain(lines_of(result, None)))


def test_a_sleeping_task_ends_in_the_users_registers(debugger: Debugger, registry: Registry) -> None:
    """Frame 0 names the saved stack pointer, the others the slots of their return addresses; seven lines of registers."""
    result = registry.run(debugger, "foreach bt --crash")
    assert isinstance(result, CrashStacks)
    trace = next(t for t in result.stacks.stacks if t.end == End.USER and t.registers_from == "inactive_task_frame")
    lines = plain(lines_of(CrashStacks(Stacks([trace])), None)).splitlines()
    frames, user = trace.frames[:-1], trace.frames[-1]
    sp = debugger.session.linux.member("task_struct", "thread.sp", trace.task)
    assert lines[1].startswith(f" #0 [{sp:x}] __schedule at {frames[0].ip:x}")
    assert [line.split("[")[1][:16] for line in lines[2 : len(frames) + 1]] == [f"{f.came_from:x}" for f in frames[1:]]
    assert len(lines) == 1 + len(frames) + 7
    assert lines[-7].startswith(f"    RIP: {user.ip:016x}  RSP: {user.sp:016x}  RFLAGS: 00000")
    assert re.fullmatch(r"    ORIG_RAX: \w{16}  CS: 0033  SS: 002b", lines[-1])


def test_every_line_has_one_of_crashs_forms(debugger: Debugger, registry: Registry) -> None:
    """Of all tasks; and in pieces, equal stacks by their pattern, it is the same."""
    result = registry.run(debugger, "foreach bt --crash")
    assert isinstance(result, CrashStacks)
    whole = plain(lines_of(result, None))
    assert [line for line in whole.splitlines() if not _LINE.fullmatch(line)] == []
    thrice = CrashStacks(replace(result.stacks, stacks=[*result.stacks.stacks] * 3))
    assert "".join(text_pieces(thrice, None)) == plain(lines_of(thrice, None))


def test_guesses_and_reasons_are_said(debugger: Debugger, registry: Registry) -> None:
    """A doubt ends its line, a walk that stopped has a last line; JSON is that of the stacks."""
    result = registry.run(debugger, "bt --crash")
    assert isinstance(result, CrashStacks)
    trace = result.stacks.stacks[0]
    doubted = replace(trace.frames[1], reliable=False)
    stopped = replace(trace, frames=(trace.frames[0], doubted), end=End.STOPPED, end_reason=StackGone())
    lines = plain(lines_of(CrashStacks(Stacks([stopped])), None)).splitlines()
    assert [line.endswith("  ?") for line in lines] == [False, False, True, False]
    assert lines[-1] == "bt: the task has no stack any more (it has exited)"
    assert json.dumps(encode(result)) == json.dumps(encode(result.stacks))


def test_a_users_frame_that_is_a_guess_has_its_mark(debugger: Debugger, registry: Registry) -> None:
    """In crash's lines where the registers begin; in our own in column 0, and with its reason."""
    result = registry.run(debugger, "bt")
    assert isinstance(result, Stacks)
    trace = result.stacks[0]
    user = replace(trace.frames[-1], reliable=False, doubt=MaybeOfEarlierEntry())
    stacks = Stacks([replace(trace, frames=(user,), end=End.STOPPED, end_reason=CpuNotSaved(0))])

    as_crash = plain(lines_of(CrashStacks(stacks), None)).splitlines()
    assert [line.endswith("  ?") for line in as_crash] == [False, True, *[False] * (len(as_crash) - 2)]
    own = plain(lines_of(stacks, None)).splitlines()
    assert own[1].startswith("?   user mode  RIP: ")
    assert own[2].strip() == "the registers at the top of the task's stack, maybe of an earlier entry into the kernel"
