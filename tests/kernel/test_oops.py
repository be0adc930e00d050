"""Call traces in a kernel's log: every form in which the four kernels print them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.kernel.log import LogRecord
from orcdbg.kernel.oops import PrintedFrame, PrintedTrace, parse_frame, parse_owner, printed_traces
from orcdbg.target.session import Session

USER = 1  # the facility of what a program writes by /dev/kmsg, if it names none


def records(text: str, caller: str | None = "C0", facility: int = 0) -> list[LogRecord]:
    """A record for each line."""
    return [LogRecord(n, n, 4, facility, caller, line) for n, line in enumerate(text.strip("\n").split("\n"))]


PANIC = """
CPU: 0 UID: 0 PID: 153 Comm: syslogd Not tainted 6.12.107+deb13-cloud-amd64 #1  Debian 6.12.107-1
Hardware name: QEMU Standard PC
Call Trace:
 <NMI>
 panic+0x118/0x2db
 ? _printk+0x6c/0x87
 end_repeat_nmi+0xf/0x53
RIP: 0010:_raw_spin_lock_irqsave+0xb/0x50
Code: cc cc <58> 0f 1f
RSP: 0018:ff832e8e0060b9f8 EFLAGS: 00000246
RAX: ffffffffa1bcb170 RBX: ff352b2a82641800 RCX: ff832e8e0060baa4
 </NMI>
 <TASK>
 pktgen_thread_worker+0x1625/0x1b00 [pktgen]
 entry_SYSCALL_64_after_hwframe+0x76/0x7e
RIP: 0033:0x47b6fd
RSP: 002b:00007ffd605d2ba8 EFLAGS: 00000246 ORIG_RAX: 0000000000000000
 </TASK>
Kernel Offset: 0x20200000
 not_in_it+0x1/0x2
"""


def test_a_panics_trace_is_read_whole() -> None:
    """Sure lines, guesses, interrupted ips, modules; to the user's registers and no further."""
    (trace,) = printed_traces(records(PANIC))
    assert (trace.pid, trace.comm, trace.cpu, trace.reached_user) == (153, "syslogd", 0, True)
    assert [(one.name, one.sure, one.is_rip) for one in trace.frames] == [
        ("panic+0x118/0x2db", True, False),
        ("_printk+0x6c/0x87", False, False),
        ("end_repeat_nmi+0xf/0x53", True, False),
        ("_raw_spin_lock_irqsave+0xb/0x50", True, True),
        ("pktgen_thread_worker+0x1625/0x1b00 [pktgen]", True, False),
        ("entry_SYSCALL_64_after_hwframe+0x76/0x7e", True, False),
    ]


OOPS = """
CPU: 0 PID: 126 Comm: cat Not tainted 5.10.0-32-cloud-amd64 #1 Debian 5.10.223-1
Hardware name: QEMU Standard PC
RIP: 0010:function_trace_call+0x3/0x120
Code: 1f 44 00 00 41 56 4c 8b
RSP: 0018:ffffb880c01dbe50 EFLAGS: 00000282
Call Trace:
 ? __die_body.cold+0x1a/0x1f
 ? exc_page_fault+0x78/0x160
 0xffffffffc01db06a
 ? vfs_write+0x5/0x270
 vfs_write+0x5/0x270
RIP: 0033:0x47b7a0
Modules linked in: loop
---[ end trace c422b43549842204 ]---
RIP: 0010:function_trace_call+0x3/0x120
"""


def test_an_oops_own_rip_is_below_the_first_line_that_is_sure() -> None:
    """It is printed in front of the trace; lines after a `?` that stand first are of the handling of the fault."""
    (trace,) = printed_traces(records(OOPS))
    assert [(one.name, one.sure, one.is_rip) for one in trace.frames] == [
        ("__die_body.cold+0x1a/0x1f", False, False),
        ("exc_page_fault+0x78/0x160", False, False),
        ("function_trace_call+0x3/0x120", True, True),
        ("0xffffffffc01db06a", True, False),
        ("vfs_write+0x5/0x270", False, False),
        ("vfs_write+0x5/0x270", True, False),
    ]
    assert trace.reached_user


NESTED_OOPS = """
CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 7.2.13+deb14-cloud-amd64 #1 PREEMPT(lazy)  Debian 7.2.13-1
Hardware name: QEMU Standard PC
RIP: 0010:error_entry+0xd/0x170
Code: fd ff ff 85 db 0f 85
RSP: 0018:ff55139800010000 EFLAGS: 00000086
Call Trace:
 <TASK>
 ? die+0x33/0x90
RIP: 0010:clear_highpages_kasan_tagged+0x23/0x30
RSP: 0018:ff55139800013810 EFLAGS: 00000286
 ? asm_sysvec_apic_timer_interrupt+0x1a/0x20
 get_page_from_freelist+0x3e3/0x24c0
RIP: 0033:0x4610d3
"""


def test_an_oops_rip_is_inside_of_a_rip_that_the_trace_begins_with() -> None:
    """As where the stack overflows in an interrupt's entry, and what was interrupted is the first line that is sure."""
    (trace,) = printed_traces(records(NESTED_OOPS))
    assert [(one.name, one.sure, one.is_rip) for one in trace.frames] == [
        ("die+0x33/0x90", False, False),
        ("error_entry+0xd/0x170", True, True),
        ("clear_highpages_kasan_tagged+0x23/0x30", True, True),
        ("asm_sysvec_apic_timer_interrupt+0x1a/0x20", False, False),
        ("get_page_from_freelist+0x3e3/0x24c0", True, False),
    ]


@pytest.mark.parametrize("where", ["0x0", "0xdead000000000100"])
def test_a_rip_where_no_code_is_has_its_address_for_a_name(where: str) -> None:
    """And where the kernel is sure of no line, it is the innermost."""
    text = OOPS.replace("function_trace_call+0x3/0x120", where).replace(" 0xff", " ? 0xff").replace(" vfs", " ? vfs")
    (trace,) = printed_traces(records(text))
    assert (trace.frames[0].name, trace.frames[0].is_rip, trace.frames[0].sure) == (where, True, True)
    assert {one.sure for one in trace.frames[1:]} == {False}


def test_the_users_rip_in_front_of_a_trace_is_no_frame_of_it() -> None:
    """As a task's that dies in user mode, where the kernel prints a trace all the same; nor is the RIP of another task."""
    (trace,) = printed_traces(records(OOPS.replace("0010:function_trace_call+0x3/0x120", "0033:0x47b7a0")))
    assert [one for one in trace.frames if one.is_rip] == []
    second = "CPU: 1 PID: 7 Comm: other Not tainted 5.10\nCall Trace:\n f+0x1/0x2"
    first = OOPS.partition("Call Trace:")[0]
    (other,) = printed_traces(records(first + second))
    assert [one.name for one in other.frames] == ["f+0x1/0x2"]


def test_traces_of_two_printers_do_not_mix() -> None:
    """sysrq-l lets several CPUs print at once."""
    second = PANIC.replace("PID: 153 Comm: syslogd", "PID: 7 Comm: other").replace("panic+0x118", "stop+0x1")
    mixed = [one for pair in zip(records(PANIC), records(second, "C1"), strict=True) for one in pair]
    traces = printed_traces(mixed)
    assert sorted((trace.pid, trace.frames[0].symbol, len(trace.frames)) for trace in traces) == [
        (7, "stop", 6),
        (153, "panic", 6),
    ]


@pytest.mark.parametrize(
    ("line", "owner"),
    [
        ("CPU: 1 PID: 94 Comm: init Not tainted 5.10.0-32", (94, "init", 1)),
        ("CPU: 0 UID: 0 PID: 94 Comm: a b Tainted: G        W", (94, "a b", 0)),
        ("task:init            state:S stack:    0 pid:    1 ppid:     0 flags:0x00000000", (1, "init", None)),
        ("task:kworker/0:1     state:I stack:0     pid:12    tgid:12    ppid:2      flags:0x4000", (12, "kworker/0:1", None)),
        ("init            S    0     1      0 0x00000000", (1, "init", None)),
        ("nothing of the kind", None),
    ],
)  # fmt: skip
def test_the_task_of_a_trace_is_named_in_front_of_it(line: str, owner: tuple[int, str, int | None] | None) -> None:
    """By an oops, or by sysrq-t."""
    assert parse_owner(line) == owner


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        (" do_wait+0x160/0x2f0", PrintedFrame("do_wait", 0x160, 0x2F0, None, True)),
        (" ? do_wait+0x160/0x2f0", PrintedFrame("do_wait", 0x160, 0x2F0, None, False)),
        (" <TASK> do_wait.isra.0+0x1/0x2", PrintedFrame("do_wait.isra.0", 1, 2, None, True)),
        (" [<ffffffff81012345>] ? do_wait+0x1/0x2", PrintedFrame("do_wait", 1, 2, None, False)),
        (" f+0x1/0x2 [pktgen abcdef0123]", PrintedFrame("f", 1, 2, "pktgen", True)),
        ("RAX: 0000000000000000", None),
        (" 0xffffffffc01db06a", PrintedFrame("", 0, 0, None, True, address=0xFFFFFFFFC01DB06A)),
        (" ? 0xffffffffc01db06a", PrintedFrame("", 0, 0, None, False, address=0xFFFFFFFFC01DB06A)),
        (" 0xffffffffc01db06a is no line of a trace", None),
    ],
)
def test_lines_of_traces(line: str, frame: PrintedFrame | None) -> None:
    """Today's form and the older ones."""
    assert parse_frame(line) == frame


def test_what_a_program_wrote_is_no_trace() -> None:
    """However much it looks like one."""
    assert printed_traces(records(PANIC)) != []
    assert printed_traces(records(PANIC, facility=USER)) == []


def test_what_a_program_wrote_is_not_in_the_kernels_trace() -> None:
    """Neither a line between its lines, nor an owner in front of it, nor does anything end it, also from one caller."""
    (expected,) = printed_traces(records(PANIC))
    false_lines = [
        "CPU: 1 PID: 1 Comm: init Not tainted",
        "RIP: 0010:false+0x1/0x2",
        " false+0x1/0x2",
        "Call Trace:",
        "hello",
    ]
    mixed = []
    for record in records(PANIC):
        mixed += [record, *(replace(record, facility=USER, text=text) for text in false_lines)]
    assert printed_traces(mixed) == [expected]
    # A record that is the kernel's own would have changed it.
    assert printed_traces([replace(record, facility=0) for record in mixed]) != [expected]


def test_a_trace_without_a_task_is_no_ones() -> None:
    """Nothing is guessed about whose it is."""
    assert printed_traces(records("Call Trace:\n f+0x1/0x2")) == []


@given(st.lists(st.text(max_size=80), max_size=40))
def test_any_log_gives_traces_or_none(lines: list[str]) -> None:
    """A log is whatever somebody printed."""
    found = printed_traces([LogRecord(n, 0, 0, 0, None, line) for n, line in enumerate(lines)])
    assert all(isinstance(one, PrintedTrace) for one in found)


def test_the_samples_log_has_its_panic(sample: Session) -> None:
    """The one trace of the bundled sample's NMI."""
    from orcdbg.kernel.log import read_log

    traces = printed_traces(read_log(sample.linux)[0])
    assert (traces[-1].pid, traces[-1].comm, traces[-1].cpu) == (135, "cat", 0)
    assert [one.name for one in traces[-1].frames if one.is_rip] == ["lock_is_held_type+0x52/0x110"]
