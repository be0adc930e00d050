"""Rows of entry code that no table has: from the gates, through the saving of all registers, to the return."""

from __future__ import annotations

from orcdbg.kernel.names import Location
from orcdbg.orc.derived_rows import DerivedRows
from orcdbg.orc.rows import RowType
from tests.build.code import MadeKernelCode
from tests.build.memory import SparseMemory

BASE = 0xFFFFFFFF81E00000
TABLE, CALLED = 0xFFFFFFFF83000000, 0xFFFFFFFF81000000
# mov's and pushes of PUSH_AND_CLEAR_REGS with save_ret: the return address goes into rsi, and on top again in the end.
_SAVE = "56 488b742408 48897c2408 52 51 50 4150 4151 4152 4153 53 55 4154 4155 4156 4157 56 c3"
_POPS = "415f 415e 415d 415c 5d 5b 415b 415a 4159 4158 58 59 5a 5e 5f"
_PUSHES = "57 56 52 51 50 4150 4151 4152 4153 53 55 4154 4155 4156 4157"
_FIVE = "6a2b 53 4153 6a33 51 50"  # a system call's: ss, a stack pointer, r11, cs, rcx, and the number


class _Section:
    """Entry text whose pieces are put one after another, each at a multiple of 16."""

    def __init__(self) -> None:
        self.text = bytearray(b"\xcc" * 16)
        self.symbols: dict[str, tuple[int, int]] = {}

    def add(self, name: str, *parts: str | tuple[str, str]) -> None:
        """A symbol: hexadecimal bytes, and (opcode, name) for calls and jumps to what was added before, or CALLED."""
        start = len(self.text)
        for part in parts:
            if isinstance(part, str):
                self.text += bytes.fromhex(part)
                continue
            opcode, target = part
            where = self.symbols[target][0] if target in self.symbols else CALLED
            behind = BASE + len(self.text) + 5
            self.text += bytes.fromhex(opcode) + (where - behind).to_bytes(4, "little", signed=True)
        self.symbols[name] = (BASE + start, len(self.text) - start)
        self.text += b"\xcc" * (-len(self.text) % 16)

    def code(self, gates: dict[int, str]) -> MadeKernelCode:
        """The kernel, with gates by vector."""
        table = bytearray(256 * 16)
        for vector, name in gates.items():
            handler = self.symbols[name][0]
            low = handler & 0xFFFF | (handler >> 16 & 0xFFFF) << 48
            table[16 * vector : 16 * vector + 16] = low.to_bytes(8, "little") + (handler >> 32).to_bytes(8, "little")
        memory = SparseMemory()
        memory.put(BASE, bytes(self.text))
        memory.put(TABLE, bytes(table))

        def find(address: int) -> Location | None:
            for name, (start, size) in self.symbols.items():
                if start <= address < start + size:
                    return Location(name, start, size, None, True)
            return Location("handler", CALLED, 64, None, True) if CALLED <= address < CALLED + 64 else None

        symbols = {
            **self.symbols,
            "__entry_text_start": (BASE, 0),
            "__entry_text_end": (BASE + len(self.text), 0),
            "idt_table": (TABLE, 4096),
        }
        return MadeKernelCode(memory, find, symbols)


def section() -> _Section:
    """error_entry, the way back, two exceptions, and a system call."""
    made = _Section()
    made.add("error_entry", _SAVE)
    made.add("error_return", _POPS, "4883c408 48cf")  # add $8,%rsp; iretq
    made.add("asm_exc_page_fault", ("e8", "error_entry"), "4889c4 4889e7", ("e8", "exc"), ("e9", "error_return"))
    made.add("asm_exc_overflow", "6aff", ("e8", "error_entry"), "4889c4 4889e7", ("e8", "exc"), ("e9", "error_return"))
    made.add(
        "entry_SYSCALL_64",
        "65488b242500600000",
        _FIVE,
        _PUSHES,
        "4889e7",
        ("e8", "do_syscall_64"),
        _POPS,
        "4883c408 48cf",
    )
    return made


def described(made: _Section, name: str, offset: int) -> tuple[str, RowType]:
    """The rule at an offset in a symbol, and of what it is; nothing is in doubt."""
    row = DerivedRows(made.code({14: "asm_exc_page_fault", 4: "asm_exc_overflow"})).at(made.symbols[name][0] + offset)
    assert row is not None
    assert row.doubt is None
    return str(row.rule), row.row.type


def test_the_cpus_five_words_are_above_an_error_code_where_the_vector_has_one() -> None:
    """At the first instruction, and behind the push that makes both alike."""
    made = section()
    assert described(made, "asm_exc_page_fault", 0) == ("sp+8", RowType.REGS_PARTIAL)
    assert described(made, "asm_exc_overflow", 0) == ("sp", RowType.REGS_PARTIAL)
    assert described(made, "asm_exc_overflow", 2) == ("sp+8", RowType.REGS_PARTIAL)


def test_behind_error_entry_all_registers_are_at_the_stack_pointer() -> None:
    """Also where its result is taken as the stack pointer, and on the way back, which both exceptions share."""
    made = section()
    assert [described(made, "asm_exc_page_fault", offset) for offset in (5, 8, 11, 16)] == [("sp", RowType.REGS)] * 4
    assert described(made, "error_return", 0) == ("sp", RowType.REGS)
    assert described(made, "error_return", 2) == ("sp-8", RowType.REGS)
    last = len(bytes.fromhex(_POPS)) + 4
    assert described(made, "error_return", last) == ("sp", RowType.REGS_PARTIAL)


def test_inside_error_entry_the_registers_are_above_its_return_address() -> None:
    """Once that is back on the stack."""
    assert described(section(), "error_entry", len(bytes.fromhex(_SAVE)) - 1) == ("sp+8", RowType.REGS)


def test_a_system_calls_registers_are_known_when_they_are_all_pushed() -> None:
    """Before, the row ends the stack, as where nothing is known."""
    made = section()
    behind = 9 + len(bytes.fromhex(_FIVE)) + len(bytes.fromhex(_PUSHES))
    assert described(made, "entry_SYSCALL_64", 0) == ("None", RowType.END_OF_STACK)
    assert described(made, "entry_SYSCALL_64", behind - 2) == ("None", RowType.END_OF_STACK)
    assert described(made, "entry_SYSCALL_64", behind) == ("sp", RowType.REGS)
    assert described(made, "entry_SYSCALL_64", behind + 3) == ("sp", RowType.REGS)
