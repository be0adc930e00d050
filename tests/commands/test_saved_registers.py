"""bt --regs, -e, -E, -t, -T and regs -a on the sample."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.regs import CpuRegisters
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.target.session import Session
from orcdbg.unwind.register_search import RegisterSearch
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE
from tests.build.code import MadeKernelCode, MadeRows, made_terrain
from tests.build.memory import SparseMemory
from tests.build.stacks import FUNCTION, TEXT
from tests.conftest import RunProgram


def answer(program: RunProgram, command: str) -> Any:
    """The command's JSON result."""
    return json.loads(program("demo", "--format", "json", "-e", command)[1])["result"]


def test_a_walk_from_the_panics_registers_is_the_rest_of_its_stack(orcdbg_run: RunProgram) -> None:
    """The pt_regs that the NMI saved, by its address."""
    (whole,) = answer(orcdbg_run, "bt")["stacks"]
    number = next(f["index"] for f in whole["frames"][1:] if f["kind"] == "interrupt")
    at = int(whole["frames"][number - 1]["cfa"], 16)
    (rest,) = answer(orcdbg_run, f"bt --regs {at:#x}")["stacks"]
    assert rest["registers_from"] == f"pt_regs {at:#x}"
    assert [(f["ip"], f["sp"]) for f in rest["frames"]] == [(f["ip"], f["sp"]) for f in whole["frames"][number:]]
    assert rest["end"] == "user"


def test_what_is_no_pt_regs_is_refused(orcdbg_run: RunProgram) -> None:
    """By what makes it impossible."""
    status, _, errors = orcdbg_run("demo", "-e", "bt --regs linux_banner")
    assert status != 0
    assert "no pt_regs at" in errors


@pytest.mark.parametrize("option", ["-e", "-E"])
def test_saved_registers_are_found_and_are_guesses(orcdbg_run: RunProgram, option: str) -> None:
    """The user's at the top of the stack, and those of the NMI."""
    found = answer(orcdbg_run, f"bt {option}")["saved"]
    (whole,) = answer(orcdbg_run, "bt")["stacks"]
    places = {f["cfa"] for f in whole["frames"] if f["orc"] and f["orc"]["type"] == "regs"}
    assert places
    assert places <= {one["address"] for one in found}
    assert {one["reliable"] for one in found} == {False}
    assert {one["mode"] for one in found} == {"user", "kernel"}
    assert len({one["task"] for one in found}) > (2 if option == "-E" else 1)


TOP = 0xFFFFC90000014000
STACK = Stack(StackKind.TASK, TOP - 0x1000, TOP)
KERNELS = {"rip": TEXT + FUNCTION, "cs": 0x10, "ss": 0x18, "rflags": 0x246, "rsp": TOP - 0x100}
USERS = {"rip": 0x401000, "cs": 0x33, "ss": 0x2B, "rflags": 0x202, "rsp": 0x7FFE00000000}
BEHIND_CALL = TEXT + FUNCTION + 2


def found_on(stack: Stack, at: int, registers: dict[str, int]) -> list[int]:
    """Where registers are found on a stack that has these at `at`, and a return address on top of the interrupted one."""
    memory = SparseMemory()
    memory.put(TEXT, bytes(FUNCTION) + b"\xff\xd0" + b"\x90" * (FUNCTION - 2))  # call *%rax
    values = {at + PT_REGS[name]: value for name, value in registers.items()} | {TOP - 0x100: BEHIND_CALL}
    memory.put_words(stack.begin, *(values.get(place, 0) for place in range(stack.begin, stack.end, 8)))

    def locate(address: int) -> Location | None:
        is_text = TEXT + FUNCTION <= address < TEXT + 2 * FUNCTION
        return Location("f1", TEXT + FUNCTION, FUNCTION, None, True) if is_text else None

    search = RegisterSearch(made_terrain(MadeKernelCode(memory, locate), MadeRows(lambda address: None)))
    return [one.address for one in search.on(stack)]


LOW, HIGH = TOP - 0x400, TOP - PT_REGS_SIZE
FOUND: dict[str, tuple[int, dict[str, int]]] = {
    "the kernel's": (LOW, KERNELS),
    "NULL was called": (LOW, KERNELS | {"rip": 0, "rsp": TOP - 0x80}),
    "what is no code was called": (LOW, KERNELS | {"rip": 0xDEAD << 48, "rax": 0xDEAD << 48}),
    "under Xen": (LOW, KERNELS | {"cs": 0xE030}),
    "flags that an emulator leaves": (LOW, KERNELS | {"rflags": 0x80000246}),
    "the user's": (HIGH, USERS),
    "the user's, below FRED's 16 bytes": (HIGH - 16, USERS),
    "the user's, with flags from r11": (HIGH, USERS | {"rflags": 0xFFFF_0000_0000_0000}),
    "the user's, in a segment of its own": (HIGH, USERS | {"cs": 0xF}),
    "the user's, who called NULL": (HIGH, USERS | {"rip": 0}),
    "the user's, in the vsyscall page": (HIGH, USERS | {"rip": 0xFFFFFFFFFF600000}),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_a_walk_would_go_on_from_is_found(case: str) -> None:
    """A search that is stricter than the walk finds nothing where `bt` itself went on from registers."""
    at, registers = FOUND[case]
    assert found_on(STACK, at, registers) == [at]


@pytest.mark.parametrize(
    ("at", "registers"),
    [
        (LOW, KERNELS | {"rip": 0xDEAD << 48, "rax": 1}),
        (LOW, KERNELS | {"rip": TEXT + FUNCTION + 1}),
        (LOW, KERNELS | {"rflags": 0x244}),
        (LOW, KERNELS | {"rsp": 0x1000}),
        (LOW, KERNELS | {"cs": 0x11}),
        (LOW, USERS),
        (HIGH, USERS | {"ss": 0x18}),
    ],
)
def test_what_no_walk_would_go_on_from_is_not(at: int, registers: dict[str, int]) -> None:
    """A call that led elsewhere, no instruction's start, impossible values, and a user's below the top of a task's stack."""
    assert found_on(STACK, at, registers) == []


def test_the_users_registers_are_found_on_the_stacks_of_a_cpu() -> None:
    """Entry code keeps them there for a while."""
    entry = Stack(StackKind.ENTRY, TOP - 0x1000, TOP)
    assert found_on(entry, LOW, USERS) == [LOW]
    assert found_on(entry, LOW, USERS | {"rflags": 0}) == []


@pytest.mark.parametrize("option", ["-t", "-T"])
def test_text_addresses_are_listed_and_are_guesses(orcdbg_run: RunProgram, option: str) -> None:
    """Every frame's return address is among them, with other things."""
    (whole,) = answer(orcdbg_run, "bt 1")["stacks"]
    (found,) = answer(orcdbg_run, f"bt {option} 1")["stacks"]
    assert {f["ip"] for f in whole["frames"] if f["kind"] == "call"} - {f["ip"] for f in found["frames"]} <= {
        whole["frames"][0]["ip"]
    }
    assert {(f["reliable"], f["source"]) for f in found["frames"]} == {(False, "scan")}
    assert found["end_reason"]
    text = orcdbg_run("demo", "-e", f"bt {option} 1")[1]
    assert "scan: text, behind a call" in text
    assert all(line.startswith("?#") for line in text.splitlines() if "scan: " in line)


def test_the_registers_of_cpus_need_no_task(sample: Session, registry: Registry) -> None:
    """A snapshot whose memory is cut off has them all the same."""
    memory = SparseMemory("physical")
    session = Session(sample.image, replace(sample.snapshot, physical=memory))
    debugger = Debugger(session)
    with pytest.raises(OrcdbgError):
        registry.run(debugger, "bt")

    found = registry.run(debugger, "regs -a")
    assert isinstance(found, CpuRegisters)
    assert list(found.cpus) == list(sample.snapshot.cpus)
    whole = registry.run(Debugger(sample), "regs -a")
    assert isinstance(whole, CpuRegisters)
    assert whole.names[sample.snapshot.cpus[0].registers["rip"]].startswith("delay_tsc+0x")
