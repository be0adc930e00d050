"""Where functions keep their callers' registers: made-up functions, run by an emulator, at every instruction."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_MODE_64, Uc
from unicorn import x86_const as uc

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import BytesSpace
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import AsBuilt, Effective, Unknown
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister
from orcdbg.orc.table import OrcEntry
from orcdbg.unwind.registers.saves import FunctionSaves
from orcdbg.x86.registers import CALLEE_SAVED
from tests.build.code import MadeKernelCode

CODE, STACK, SIZE = 0x100000, 0x200000, 0x10000
_NUMBER = {"rbx": 3, "rbp": 5, "r12": 12, "r13": 13, "r14": 14, "r15": 15}
_UC = {name: getattr(uc, f"UC_X86_REG_{name.upper()}") for name in CALLEE_SAVED}


def _rex(number: int, rest: bytes) -> bytes:
    return (b"\x41" if number > 7 else b"") + rest


def push(name: str) -> bytes:
    """`push %name`."""
    return _rex(_NUMBER[name], bytes([0x50 + (_NUMBER[name] & 7)]))


def pop(name: str) -> bytes:
    """`pop %name`."""
    return _rex(_NUMBER[name], bytes([0x58 + (_NUMBER[name] & 7)]))


def set_to(name: str, value: int) -> bytes:
    """`mov $value, %name`, 32 bits."""
    return _rex(_NUMBER[name], bytes([0xB8 + (_NUMBER[name] & 7)])) + value.to_bytes(4, "little")


def move(name: str, offset: int, load: bool) -> bytes:
    """`mov %name, offset(%rsp)`, or back."""
    number = _NUMBER[name]
    rex = 0x48 | (4 if number > 7 else 0)
    return bytes([rex, 0x8B if load else 0x89, 0x44 | (number & 7) << 3, 0x24, offset])


class Made:
    """A function as it is written: its text, and the depth of the stack at each boundary."""

    def __init__(self) -> None:
        self.text = b""
        self.depth = 8
        self.depths = {CODE: 8}

    def add(self, code: bytes, pushed: int = 0) -> None:
        """An instruction."""
        self.text += code
        self.depth += pushed
        self.depths[CODE + len(self.text)] = self.depth


class _DepthsOf:
    """Rules that describe a made function."""

    def __init__(self, made: Made) -> None:
        self._made = made

    def at(self, ip: int, exact: bool) -> Effective:
        """The rule at a boundary."""
        assert exact
        if ip not in self._made.depths:
            return Unknown()
        entry = OrcEntry("table", 0, ip, None, bytes(6), FUNCTION_ENTRY)
        return AsBuilt(entry, CfaRule(OrcRegister.SP, self._made.depths[ip]))


def saves_of(made: Made, text_there: bool = True, built: bytes = b"") -> FunctionSaves:
    """The analysis over a made function, with rows that describe it; its text as built, where that was another."""
    place = Location("made", CODE, len(made.text), None, True)

    def missing(address: int, size: int) -> Exception:
        return NotInSnapshot("text", address, size)

    text = BytesSpace(CODE, made.text if text_there else b"", missing)
    before = BytesSpace(CODE, built, missing) if built else text
    code = MadeKernelCode(text, lambda address: place, {"made": (CODE, len(made.text))}, was=before)
    return FunctionSaves(code, _DepthsOf(made))


def make(random: Random) -> Made:
    """A function with some registers pushed, some moved to slots, branches, and a body that overwrites what it saved."""
    made, names = Made(), random.sample(CALLEE_SAVED, random.randint(0, 6))
    pushed = names[: random.randint(0, len(names))]
    moved = names[len(pushed) :]
    early = random.random() < 0.5
    if early:
        made.add(b"\x48\x85\xff")  # test %rdi,%rdi
        made.add(b"\x75\x01")  # jne over the return
        made.add(b"\xc3")
    for name in pushed:
        made.add(push(name), 8)
    room = 8 * (len(moved) + random.randint(1, 3))
    made.add(b"\x48\x83\xec" + bytes([room]), room)
    for index, name in enumerate(moved):
        made.add(move(name, 8 * index, load=False))
    for _ in range(random.randint(0, 8)):
        choice = random.randrange(3)
        if choice == 0 and names:
            made.add(set_to(random.choice(names), random.getrandbits(31)))
        elif choice == 1:
            made.add(b"\x89\x44\x24" + bytes([8 * len(moved) + 4]))  # mov %eax into the last slots
        elif names:
            skipped = set_to(random.choice(names), random.getrandbits(31))
            made.add(b"\x48\x85\xf6")  # test %rsi,%rsi
            made.add(b"\x74" + bytes([len(skipped)]))
            made.add(skipped)
    for index, name in enumerate(moved):
        made.add(move(name, 8 * index, load=True))
    made.add(b"\x48\x83\xc4" + bytes([room]), -room)
    for name in reversed(pushed):
        made.add(pop(name), -8)
    made.add(b"\xc3")
    return made


def claims_that_fail(made: Made, rows: Mapping[int, Row], random: Random) -> list[str]:
    """Runs the function, and compares at every instruction what the rows say with the registers it was entered with."""
    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    machine.mem_map(CODE, SIZE)
    machine.mem_map(STACK, SIZE)
    machine.mem_write(CODE, made.text.ljust(SIZE, b"\xf4"))
    cfa = STACK + SIZE // 2
    machine.mem_write(cfa - 8, (CODE + SIZE - 16).to_bytes(8, "little"))
    entered = {name: random.getrandbits(63) for name in CALLEE_SAVED}
    for name, value in entered.items():
        machine.reg_write(_UC[name], value)
    machine.reg_write(uc.UC_X86_REG_RSP, cfa - 8)
    machine.reg_write(uc.UC_X86_REG_RDI, random.randint(0, 1))
    machine.reg_write(uc.UC_X86_REG_RSI, random.randint(0, 1))
    wrong: list[str] = []

    def look(engine: Uc, address: int, size: int, data: object) -> None:
        if address not in rows:
            return
        for name in CALLEE_SAVED:
            place = rows[address].saved.get(name, Place("register", 0))
            if place is None:
                continue
            if place.base == "cfa":
                found = int.from_bytes(engine.mem_read(cfa + place.offset, 8), "little")
            else:
                found = int(engine.reg_read(_UC[name]))
            if found != entered[name]:
                wrong.append(f"{address - CODE:#x} {name} {place}")

    machine.hook_add(UC_HOOK_CODE, look)
    machine.emu_start(CODE, CODE + SIZE - 16, count=200)
    return wrong


@pytest.mark.parametrize("seed", range(60))
def test_what_is_said_of_a_function_holds_when_it_runs(seed: int) -> None:
    """At every instruction, each register is where the row says; and no instruction is without a row."""
    random = Random(seed)
    made = make(random)
    saves = saves_of(made)
    rows = {address: saves.row(address, True) for address in made.depths if address < CODE + len(made.text)}
    known = {address: row for address, row in rows.items() if row is not None}
    assert set(known) == set(rows)
    assert all(place is not None for row in known.values() for place in row.saved.values())
    for _ in range(3):
        assert claims_that_fail(made, known, random) == []


def test_a_register_that_was_overwritten_without_being_saved_is_not_known() -> None:
    """No value is better than a wrong one."""
    made = Made()
    for code in (set_to("rbx", 1), b"\x90", b"\xc3"):
        made.add(code)
    row = saves_of(made).row(CODE + 5, True)
    assert row is not None
    assert row.saved == {"rbx": None}


def test_a_slot_that_was_overwritten_no_longer_counts() -> None:
    """rbx is pushed and changed, and then something else is stored over the slot."""
    made = Made()
    made.add(push("rbx"), 8)
    made.add(set_to("rbx", 1))
    made.add(b"\x89\x44\x24\x04")  # mov %eax, 4(%rsp): the upper half of the slot
    made.add(b"\x90")
    row = saves_of(made).row(CODE + len(made.text) - 1, True)
    assert row is not None
    assert row.saved["rbx"] is None


@pytest.mark.parametrize(
    ("code", "is_kept"),
    [
        (b"\x0f\x95\x44\x24\x0f", True),  # setne 0xf(%rsp): one byte
        (b"\x0f\x95\x44\x24\x10", False),
        (b"\x0f\x01\x44\x24\x06", True),  # sgdt 6(%rsp): ten bytes
        (b"\x0f\x01\x44\x24\x07", False),
        (b"\x48\xf7\x64\x24\x10", True),  # mulq 0x10(%rsp): only read
        (b"\x48\x39\x44\x24\x10", True),  # cmp %rax, 0x10(%rsp)
        (b"\xf0\x0f\xb1\x54\x24\x0c", True),  # lock cmpxchg %edx, 0xc(%rsp)
        (b"\xf0\x0f\xb1\x54\x24\x0d", False),
        (b"\xf0\x0f\xba\x6c\x24\x10\x05", False),  # lock btsl $5, 0x10(%rsp)
        (b"\x48\x0f\xba\x6c\x24\x08\x00", True),  # btsq $0, 8(%rsp)
        (b"\x0f\xba\x6c\x24\x0c\x1f", True),  # btsl $31, 0xc(%rsp)
        (b"\x48\x0f\xba\x6c\x24\x0c\x00", False),  # btsq $0, 0xc(%rsp): into the slot
        (b"\x48\x0f\xab\x44\x24\x08", False),  # bts %rax, 8(%rsp): any bit from there on
        (b"\x0f\xae\x04\x24", False),  # fxsave (%rsp): more than is known here
    ],
)
def test_a_store_beside_a_slot_is_as_long_as_it_is(code: bytes, is_kept: bool) -> None:
    """A slot is lost by a store that reaches into it, and by no other."""
    made = Made()
    made.add(push("rbx"), 8)
    made.add(b"\x48\x83\xec\x10", 16)  # sub $16, %rsp: the slot is at 16(%rsp)
    made.add(set_to("rbx", 1))
    made.add(code)
    made.add(b"\x90")
    row = saves_of(made).row(CODE + len(made.text) - 1, True)
    assert row is not None
    assert row.saved["rbx"] == (Place("cfa", -16) if is_kept else None)


def test_where_one_text_has_no_boundary_the_other_has_no_instruction() -> None:
    """A call is patched to `popcnt` and a NOP. The call's last byte, read as an instruction, would go past a save."""
    made = Made()
    made.add(b"\x48\x83\xec\x10", 16)
    made.add(b"\xf3\x0f\xb8\xc7")
    made.add(b"\x90")
    made.add(b"\x48\x89\x1c\x24")  # mov %rbx, (%rsp)
    made.add(set_to("rbx", 1))
    made.add(b"\x90")
    built = made.text.replace(b"\xf3\x0f\xb8\xc7\x90", b"\xe8\0\0\0\x3d")  # 3d and four bytes more: cmp
    row = saves_of(made, built=built).row(CODE + len(made.text) - 1, True)
    assert row is not None
    assert row.saved["rbx"] == Place("cfa", -24)


def test_a_boundary_whose_orc_row_contradicts_is_not_passed() -> None:
    """As behind a call that does not return, where other code with another stack begins."""
    made = Made()
    made.add(b"\xe8\0\0\0\0")
    made.add(b"\x90")
    made.depths[CODE + 5] = 64
    assert saves_of(made).row(CODE, True) == Row()
    assert saves_of(made).row(CODE + 5, False) == Row()  # a return address: the state is that of the call
    assert saves_of(made).row(CODE + 5, True) is None


def test_a_path_that_a_row_contradicts_takes_nothing_from_the_others() -> None:
    """Behind a call that does not return, code begins that a jump leads to before anything was pushed: rbx is as it was."""
    made = Made()
    made.add(b"\x74\x0b")  # je over all of this
    made.add(push("rbx"), 8)
    made.add(set_to("rbx", 1))
    made.add(b"\xe8\0\0\0\0", -8)  # by its row, what stands behind has nothing on the stack
    made.add(b"\x90")
    made.add(b"\xc3")
    saves = saves_of(made)
    assert saves.row(CODE + len(made.text) - 2, True) == Row()
    inside = saves.row(CODE + len(made.text) - 7, True)
    assert inside is not None
    assert inside.saved == {"rbx": Place("cfa", -16)}


def test_text_that_is_missing_gives_no_row() -> None:
    """And no error."""
    made = Made()
    made.add(b"\x90")
    assert saves_of(made, text_there=False).row(CODE, True) is None
