"""Stepping through the sample: rules at every boundary, texts that might have been, and words for what cannot be run."""

from __future__ import annotations

from typing import Any

import pytest

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.context import Context
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.steps import Steps
from orcdbg.commands.stops import Stops
from orcdbg.emulation.start import UnknownRegisters
from orcdbg.emulation.stops import StoppedBy
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain

# Frame 6 stands behind the patched-in pushf; this is the state before it.
BEFORE = "--frame 6 --args rip-=1 rsp+=8"
SITE = "lock_is_held_type+0x51"


@pytest.fixture
def run(registry: Registry, debugger: Debugger) -> Any:
    """Runs a line over one selection."""
    return lambda line: registry.run(debugger, line)


def test_the_cfa_is_the_same_at_the_three_boundaries_of_the_patched_site(run: Any) -> None:
    """sp+64, sp+72, sp+64: as the instructions say and the row does not; the mechanism is named, the caller stays."""
    steps = run(f"step 2 {BEFORE} --trace")
    found = encode(steps)
    assert [place["text"] for place in found["trace"]] == ["pushfq", "popq %rax", "nop"]
    assert [place["rule"] for place in found["trace"]] == ["sp+64", "sp+72", "sp+64"]
    assert [place["orc_rule"] for place in found["trace"]] == ["sp+64", "sp+64", "sp+64"]
    assert [place["source"] for place in found["trace"]] == ["orc", "patch", "orc"]
    assert len({place["cfa"] for place in found["trace"]}) == 1
    assert {place["caller_symbol"] for place in found["trace"]} == {"rcu_read_lock_any_held"}
    assert {(place["mechanism"], place["patch"]) for place in found["trace"]} == {("paravirt", "irq.save_fl")}
    assert all(place["reliable"] for place in found["trace"])
    assert found["trace"][1]["changed"] == {"rax": "0x246", "rsp": "0xffa000000014fd88"}
    assert (found["stopped_by"], found["instructions"], found["end"]) == ("count", 2, "user")


def test_displays_follow_the_emulated_cpu(run: Any, debugger: Debugger) -> None:
    """Its registers, and memory that it wrote; the history does not count them, and one that fails leaves the others."""
    first = encode(run("display/x $rax"))["displays"][0]
    run("display *(unsigned long *)$rsp")
    run("display *(int *)0")
    steps = run(f"step 4 {BEFORE}")
    shown = encode(steps)["displays"]
    assert [each["number"] for each in shown] == [1, 2, 3]
    assert shown[0]["values"][0]["value"] == 0x246 != first["values"][0]["value"]
    assert shown[1]["values"][0]["value"] == 0x246  # pushed by the instruction before
    assert (shown[2]["values"], "not " in shown[2]["error"]) == ([], True)
    text = plain(lines_of(steps, None)).splitlines()
    assert text[-3:-1] == ["1: /x $rax = 0x246", "2: *(unsigned long *)$rsp = 582"]
    assert debugger.values.add(debugger.session.program.value("int", 1)) == 1
    assert encode(run("undisplay 2"))["displays"] == encode(run("info display"))["displays"]
    assert [each["number"] for each in encode(run("display"))["displays"]] == [1, 3]
    with pytest.raises(NotFound):
        run("undisplay 2")
    with pytest.raises(NotFound):
        run("display no_such_variable")
    assert encode(run("undisplay"))["displays"] == []
    assert run("step").displays == ()


def test_the_callers_never_change_while_the_function_runs(run: Any, debugger: Debugger) -> None:
    """At every instruction up to its return, all frames are sure and the callers those of the snapshot."""
    known = [(frame.ip, frame.sp) for frame in debugger.trace().frames[7:]]
    run(f"step 0 {BEFORE}")
    stops = 0
    while True:
        steps = run("next")
        frames = steps.stack.frames
        assert not any(frame.doubt or not frame.reliable for frame in frames)
        if frames[0].location.symbol != "lock_is_held_type":
            break
        assert [(frame.ip, frame.sp) for frame in frames[1:]] == known
        stops += 1
    assert stops >= 15
    assert (frames[0].ip, frames[0].sp) == known[0]


def test_as_built_the_site_calls_and_comes_back_with_the_same_registers(run: Any) -> None:
    """--text image: a call through pv_ops, the same registers at the site's end, and no boundary with a deeper stack."""
    steps = run(f"step 5 {BEFORE} --trace --text image")
    texts = [place.instruction.mnemonic for place in steps.trace]
    assert texts == ["callq", "pushfq", "popq", "retq", "movq", "cli"]
    assert [place.instruction.symbol for place in steps.trace[1:4]] == ["native_save_fl"] * 3
    what_if = encode(steps)["what_if"]
    assert what_if["differing"] == []
    assert what_if["mechanisms"] == ["paravirt"]
    assert [one["pushed"] for one in what_if["patched"]["boundaries"]] == [0, 8, 0, 0, 0]
    assert [one["rule"] for one in what_if["patched"]["boundaries"]] == ["sp+64", "sp+72", "sp+64", "sp+64", "sp+64"]
    assert [(one["pushed"], one["rule"]) for one in what_if["other"]["boundaries"]] == [(0, "sp+64"), (0, "sp+64")]
    assert (what_if["patched"]["executed"], what_if["other"]["executed"]) == (4, 4)
    assert "the same registers" in plain(lines_of(steps, 100))


def test_other_texts_of_a_site_are_chosen_by_number(run: Any) -> None:
    """0 is as built; a number that is none lists what there is; in the middle of the site nothing can be exchanged."""
    assert encode(run(f"step {BEFORE} --text alternative=0"))["what_if"]["other"]["bytes"].startswith("ff1425")
    found = encode(run(f"step {BEFORE} --text alternative=1"))["what_if"]
    assert found["other"]["bytes"] == found["patched"]["bytes"]
    with pytest.raises(NotFound, match="alternative=7") as raised:
        run(f"step {BEFORE} --text alternative=7")
    assert raised.value.hint == "image, patched, or alternative=N: 0 as built; 1 irq.save_fl"
    run("step 0 --restart --frame 6")
    with pytest.raises(OrcdbgError, match="inside the site"):
        run(f"step --text image --site {SITE}")
    with pytest.raises(OrcdbgError, match="no patch site"):
        run("step --frame 6 --args rip=native_save_fl --text image")
    with pytest.raises(UsageError):
        run(f"step --site {SITE}")


def test_memory_written_before_is_kept_with_another_text(run: Any) -> None:
    """The version changes, the emulated memory does not."""
    run(f"step 0 {BEFORE}")
    run("until lock_is_held_type+0x5c")
    kept = run("context").stack.words[0]
    assert kept[0] == 0x246
    run("step --text image")
    assert run("context").stack.words[0] == kept


def test_backwards_undoes_registers_and_memory(run: Any) -> None:
    """rsi after step gives the same context; more than was run ends at the start, with a word."""
    run(f"step 0 {BEFORE}")
    before = encode(run("context"))
    run("step 12")
    steps = run("rsi 12")
    assert (steps.stopped_by, steps.instructions, steps.position) == (StoppedBy.COUNT, -12, 0)
    again = encode(run("context"))
    assert {k: again[k] for k in ("registers", "stack", "frames")} == {
        k: before[k] for k in ("registers", "stack", "frames")
    }
    run("step")
    assert run("rsi 5").stopped_by == StoppedBy.START


def test_breakpoints_watches_and_returns_stop(run: Any) -> None:
    """Each with its word; `delete` forgets them."""
    run(f"step 0 {BEFORE} rflags=0x202")
    assert run("break lock_is_held_type+0x58").stops == [(1, 0xFFFFFFFF813A48E8, 0, "lock_is_held_type+0x58/0x110")]
    stopped = run("step 100")
    assert (stopped.stopped_by, stopped.trace[-1].instruction.offset) == (StoppedBy.BREAKPOINT, 0x58)
    assert isinstance(run("delete 1"), Stops)
    slot = f"{stopped.registers['rsp']:#x}"
    run(f"watch {slot}")
    watched = run("step 100")
    assert (watched.stopped_by, watched.trace[-1].instruction.offset) == (StoppedBy.WATCHPOINT, 0x5C)
    assert watched.why is not None
    assert watched.why.endswith("from 0000000000000246 to 0000000000000202")
    assert run("delete").stops == []
    finished = run("finish")
    assert (finished.stopped_by, finished.why) == (StoppedBy.BREAKPOINT, "the function has returned")
    assert finished.trace[-1].instruction.symbol == "rcu_read_lock_any_held"
    with pytest.raises(NotFound):
        run("delete 3")


def test_what_cannot_be_run_stops_with_a_word_and_can_be_skipped(run: Any) -> None:
    """A control register; after it the function returns to the frame that stands for its caller."""
    stopped = run("step 5 --frame 6 --at native_read_cr0")
    assert (stopped.stopped_by, stopped.instructions) == (StoppedBy.UNSUPPORTED, 0)
    assert stopped.why == "movq %cr0, %rax: privileged: it changes or reads a state of the CPU that is not emulated"
    skipped = run("step 2 --skip")
    assert [text for _, text in skipped.skipped] == ["movq %cr0, %rax"]
    assert skipped.trace[-1].instruction.offset == 0x52
    assert "skipped  movq %cr0, %rax" in plain(lines_of(skipped, None))


def test_registers_that_nobody_knows_are_named_and_not_made_up(run: Any) -> None:
    """A sleeping frame: an error names them; --zero takes them as 0 and says so; --args gives them."""
    run("set 1")
    with pytest.raises(UnknownRegisters, match="rax, rcx, rdx") as raised:
        run("step")
    assert "--zero" in (raised.value.hint or "")
    steps = run("step --restart --zero")
    assert {"rax", "rflags"} <= set(steps.zeroed)
    assert (steps.registers["rax"], steps.registers["rflags"]) == (0, 2)
    assert "rax" not in run("step --restart --zero --args rax=7").zeroed
    with pytest.raises(NotFound, match="rax"):
        run("step --restart --zero --args rax+=7")
    for bad in ("eax=1", "rax", "rax*=2"):
        with pytest.raises(UsageError):
            run(f"step --args {bad}")


def test_a_call_of_a_function_has_the_selected_frame_as_caller(run: Any) -> None:
    """The state right after a call from a sleeping frame: all frames are sure."""
    run("set 1")
    steps = run("step --at native_save_fl --zero")
    assert isinstance(steps, Steps)
    frames = steps.stack.frames
    assert frames[0].ip == frames[0].location.start if frames[0].location else None
    assert not any(frame.doubt for frame in frames)
    returned = run("finish")
    assert (returned.stopped_by, returned.instructions) == (StoppedBy.BREAKPOINT, 3)


def test_user_frames_and_missing_pages_are_refused(run: Any) -> None:
    """User code is no kernel code; a page that the snapshot lacks is named."""
    with pytest.raises(OrcdbgError, match="user code"):
        run("step --frame 15")
    fault = run("step 9 --frame 6 --args rip=lock_is_held_type+0x63 r12=0xff11000005000000")
    assert (fault.stopped_by, fault.instructions) == (StoppedBy.FAULT, 0)
    assert "0xff11000005000000" in (fault.why or "")


def test_limits_are_settings(run: Any) -> None:
    """How many instructions one command may run."""
    run("set step-instructions 10")
    stopped = run(f"step 100 {BEFORE}")
    assert (stopped.stopped_by, stopped.instructions) == (StoppedBy.LIMIT, 10)
    with pytest.raises(UsageError):
        run("set step-pages many")


def test_context_is_one_screen_with_changes_marked(run: Any) -> None:
    """Code with an arrow, registers with stars, stack with names, frames."""
    run(f"step 2 {BEFORE}")
    found = run("context")
    assert isinstance(found, Context)
    text = plain(lines_of(found, 100))
    assert len(text.splitlines()) <= 50
    assert "*   rax 0000000000000246" in text
    assert "~>ffffffff813a48e3" in text
    assert "rcu_read_lock_any_held+0x4e/0xa0" in text
    assert "*" not in plain(lines_of(run("context"), 100)).partition("rax")[2].partition("ffa0")[0].replace("*0x", "")


def test_the_snapshot_is_as_before(run: Any, debugger: Debugger) -> None:
    """Whatever was stepped: the same stack, the same memory."""
    slot = debugger.frame(6).sp
    before = debugger.session.memory.read(slot, 64), [frame.ip for frame in debugger.trace().frames]
    run(f"step 40 {BEFORE}")
    after = debugger.session.memory.read(slot, 64), [frame.ip for frame in Debugger(debugger.session).trace().frames]
    assert before == after


def test_going_back_before_anything_was_stepped_is_an_error(run: Any) -> None:
    """With the way to begin."""
    with pytest.raises(OrcdbgError, match="nothing was stepped"):
        run("rsi")
    with pytest.raises(UsageError):
        run("step -- -3")
