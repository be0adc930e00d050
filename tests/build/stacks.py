"""Stacks made by hand, over text in functions of one ORC row each: where a walk has to come to is known by construction."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.errors import BadAddress
from orcdbg.base.reading import BytesSpace
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.ledger import PatchLedger
from orcdbg.unwind.frame import FrameKind, RegisterValue
from orcdbg.unwind.true_returns import TrueReturns
from orcdbg.unwind.walker import State, Terrain, Walk, Walker
from tests.build.code import MadeKernelCode, made_terrain, nothing
from tests.build.memory import SparseMemory

TEXT = 0xFFFFFFFF81000000
TOP = 0xFFFFC90000014000
STACK = Stack(StackKind.TASK, TOP - 0x4000, TOP)
IRQ = Stack(StackKind.IRQ, 0xFFFFC90000100000, 0xFFFFC90000104000)
FUNCTION = 0x100  # bytes of text a made-up function occupies
END = OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.END_OF_STACK, False)


class World:
    """Text in functions of 256 bytes, one ORC row each, and stacks."""

    def __init__(self, rows: dict[int, OrcRow], stacks: tuple[Stack, ...] = (STACK,)) -> None:
        self.rows = rows
        self.memory = SparseMemory()
        self.words: dict[int, int] = {}
        self.stacks = stacks
        self.follows_call: bool | None = True
        self.symbols = {"return_to_handler": TEXT + 0xF000}
        self.ledger = PatchLedger([], BytesSpace(TEXT, bytes(0x10000), lambda a, s: BadAddress("text", a, s)))

    def find(self, address: int) -> OrcEntry | None:
        """The row of the function that holds an address."""
        number = (address - TEXT) // FUNCTION
        row = self.rows.get(number)
        return None if row is None else OrcEntry("test", number, TEXT + number * FUNCTION, None, bytes(6), row)

    def locate(self, address: int) -> Location | None:
        """`fN` for function N."""
        number = (address - TEXT) // FUNCTION
        return (
            Location(self.name(number), TEXT + number * FUNCTION, FUNCTION, None, True) if number in self.rows else None
        )

    def name(self, number: int) -> str:
        """`fN`; the function whose row ends the stack is where new tasks begin."""
        return "ret_from_fork" if self.rows[number] is END else f"f{number}"

    def terrain(self) -> Terrain:
        """What walks of this world go over."""
        symbols = {name: (address, 16) for name, address in self.symbols.items()}
        code = MadeKernelCode(
            self.memory, self.locate, symbols, nothing(), calls=self.follows_call, find_cluster=self.ledger.find
        )
        return made_terrain(code, self)

    def walk(self, ip: int, sp: int, **others: int) -> Walk:
        """The walk from given registers."""
        for stack in self.stacks:
            size = (stack.end - stack.begin) // 8
            self.memory.put_words(stack.begin, *(self.words.get(stack.begin + 8 * i, 0) for i in range(size)))
        registers = {name: RegisterValue(value, "given") for name, value in {"rip": ip, "rsp": sp, **others}.items()}
        return self.walker(self.stacks).walk(State(ip, True, registers, FrameKind.INTERRUPT, None))

    def walker(self, stacks: Sequence[Stack]) -> Walker:
        """What walks over these stacks; the task that they are of has traced nothing."""
        terrain = self.terrain()
        return Walker(terrain, stacks, TrueReturns(terrain.code.linux, terrain.overlay.returns, 0))


def call(
    offset: int, base: OrcRegister = OrcRegister.SP, bp: tuple[OrcRegister, int] = (OrcRegister.UNDEFINED, 0)
) -> OrcRow:
    """A row of an ordinary function."""
    return OrcRow(base, offset, *bp, RowType.CALL, False)
