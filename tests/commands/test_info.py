"""gdb's `info`, and variables beside frames, on the sample, whose image has no DWARF."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.local_variables import FrameVariables
from orcdbg.commands.registry import Registry
from orcdbg.commands.regs import FrameRegisters
from orcdbg.commands.stacks import Stacks
from orcdbg.views.as_json import encode


def test_variables_without_debugging_information_say_so(registry: Registry, debugger: Debugger) -> None:
    """Instead of an empty list that might be taken for a function without any."""
    for line in ("info locals", "info args 2", "i locals"):
        found = registry.run(debugger, line)
        assert isinstance(found, FrameVariables)
        assert found.problem is not None
        assert not found.variables


def test_info_registers_are_those_of_regs(registry: Registry, debugger: Debugger) -> None:
    """Of the same frame."""
    found, same = registry.run(debugger, "info registers 3"), registry.run(debugger, "regs 3")
    assert isinstance(found, FrameRegisters)
    assert found == same


def test_single_registers_are_named_as_gdb_names_them(registry: Registry, debugger: Debugger) -> None:
    """Of the selected frame or of another; what is not known has a reason, and what is none an error."""
    whole = registry.run(debugger, "regs")
    assert isinstance(whole, FrameRegisters)
    for line in ("info registers rip rsp", "i r $pc $sp", "regs 0 rip rsp"):
        found = registry.run(debugger, line)
        assert isinstance(found, FrameRegisters)
        assert found.registers == {name: whole.registers[name] for name in ("rip", "rsp")}
        assert not found.unknown
    caller = registry.run(debugger, "info registers 1 rip rax")
    assert isinstance(caller, FrameRegisters)
    assert caller.frame.index == 1
    assert list(caller.registers) == ["rip"]
    assert "preserve" in caller.unknown["rax"].why
    assert encode(caller)["unknown_codes"] == {"rax": "not-saved"}
    for wrong in ("regs xmm99", "regs -1", "info registers rip 3"):
        with pytest.raises(NotFound):
            registry.run(debugger, wrong)


def test_an_unknown_word_names_the_known_ones(registry: Registry, debugger: Debugger) -> None:
    """And a frame's number is a number."""
    with pytest.raises(UsageError, match="'locals'"):
        registry.run(debugger, "info weather")
    with pytest.raises(UsageError) as caught:
        registry.run(debugger, "info")
    assert "locals" in str(caught.value.hint)
    for line in ("info locals x", "info args 1 2", "info frame -1"):
        with pytest.raises(UsageError, match="not the number of a frame"):
            registry.run(debugger, line)


def test_info_frame_leaves_the_selection(registry: Registry, debugger: Debugger) -> None:
    """Unlike `frame`, as in gdb."""
    registry.run(debugger, "info frame 2")
    assert debugger.frame_index == 0
    registry.run(debugger, "frame 2")
    assert debugger.frame_index == 2


def test_locals_have_every_kernel_frame(registry: Registry, debugger: Debugger) -> None:
    """By task and number; what groups stacks has none of one frame's."""
    found = registry.run(debugger, "bt --locals")
    assert isinstance(found, Stacks)
    (trace,) = found.stacks
    assert {index for _, index in found.variables} == {f.index for f in trace.frames if f.location is not None}
    for option in ("--group", "--crash"):
        with pytest.raises(UsageError):
            registry.run(debugger, f"bt --locals {option}")


def test_a_name_means_no_variable_without_debugging_information(debugger: Debugger) -> None:
    """And the symbol of that name is what an expression means."""
    assert debugger.find_local("current") is None
