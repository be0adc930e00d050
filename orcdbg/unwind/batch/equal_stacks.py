"""What do stacks share whose tasks came the same way, and how does one of them become frames?

Such stacks differ in where they lie and in what they saved; all else (names, rows, rules, distances) is the same and kept
once. Frames are made when somebody looks at them: of twenty thousand stacks most are only counted, or printed by a view
that knows that they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

from orcdbg.base.reading import U64Array
from orcdbg.base.sizes import U64
from orcdbg.kernel.stacks import StackKind
from orcdbg.unwind.frame import Frame, FrameKind, Registers, RegisterValue
from orcdbg.unwind.starts import switched_out_registers
from orcdbg.x86.registers import PT_REGS


@dataclass(frozen=True, slots=True)
class StacksOfBatch:
    """Stacks that were walked together, one a column: what differs between equal ones.

    `tops` are the stacks' ends, `saved` the registers of each `struct inactive_task_frame` by name, `bps` rbp by depth,
    `user` the 21 words of each pt_regs of user mode.
    """

    tops: U64Array
    saved: Mapping[str, U64Array]
    bps: Sequence[U64Array]
    user: U64Array


@dataclass(frozen=True, slots=True)
class Level:
    """One depth of equal stacks: the frame as far as its ip decides it; all distances are from the stack's end.

    `cfa` is None where the stack ends, `return_slot` too; `bp_slot` is where this frame saved its caller's rbp.
    """

    prototype: Frame
    came_from: int
    sp: int
    cfa: int | None
    return_slot: int | None
    bp_slot: int | None


@dataclass(frozen=True, slots=True, eq=False)
class EqualStacks:
    """What stacks have in common that came the same way; one object for all of them, and told by that.

    `levels` go from the innermost frame outwards, `start` is the saved stack pointer's distance from the stack's end,
    `layout` that of `struct inactive_task_frame`, `ends_in_user` says that user registers follow the last level.
    """

    levels: tuple[Level, ...]
    start: int
    layout: Mapping[str, int]
    ends_in_user: bool

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.levels) + self.ends_in_user

    def saver(self, index: int) -> int | None:
        """The depth below `index` whose frame saved the rbp that frame `index` has; None where it is that of the start."""
        return next((i for i in reversed(range(index)) if self.levels[i].bp_slot is not None), None)


class SavedRegisters(Mapping[str, RegisterValue]):
    """The registers in a pt_regs at `address`, made when they are asked for."""

    __slots__ = ("_address", "_words")

    def __init__(self, words: U64Array, address: int) -> None:
        self._words = words
        self._address = address

    def value(self, name: str) -> int:
        """The value alone."""
        value = int(self._words[PT_REGS[name] // 8])
        return value & 0xFFFF if name in ("cs", "ss") else value

    def __getitem__(self, name: str) -> RegisterValue:
        return RegisterValue(self.value(name), f"pt_regs {self._address:#x} +{PT_REGS[name]}")

    def __iter__(self) -> Iterator[str]:
        return iter(PT_REGS)

    def __len__(self) -> int:
        return len(PT_REGS)


class SharedFrames(Sequence[Frame]):
    """The frames of one stack among equal ones; equal to the tuple of them.

    Args:
        shape: what it shares.
        batch: what it does not.
        column: which of the batch it is.
    """

    __slots__ = ("_batch", "_column", "shape")

    def __init__(self, shape: EqualStacks, batch: StacksOfBatch, column: int) -> None:
        self.shape = shape
        self._batch = batch
        self._column = column

    @property
    def top(self) -> int:
        """The stack's end, from which the shape's distances count."""
        return int(self._batch.tops[self._column])

    def bps(self) -> list[int]:
        """rbp in each frame but that of user mode."""
        return [int(self._batch.bps[depth][self._column]) for depth in range(len(self.shape.levels))]

    def user_value(self, name: str) -> int | None:
        """A register of user mode, without a frame made for it; None where the stack does not end there."""
        if not self.shape.ends_in_user:
            return None
        return SavedRegisters(self._batch.user[self._column], 0).value(name)

    def __len__(self) -> int:
        return len(self.shape)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Frame, ...]: ...
    def __getitem__(self, index: int | slice) -> Frame | tuple[Frame, ...]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return tuple(self._frame(number) for number in numbers)
        return self._frame(numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | SharedFrames):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))

    def _frame(self, index: int) -> Frame:
        levels, top = self.shape.levels, self.top
        if index == len(levels):
            return self._user_frame(top + (levels[-1].cfa or 0))
        level = levels[index]
        return replace(
            level.prototype,
            index=index,
            registers=self._registers(index, top) if index else self._first_registers(top),
            came_from=top + level.came_from,
            cfa=None if level.cfa is None else top + level.cfa,
            return_slot=None if level.return_slot is None else top + level.return_slot,
        )

    def _user_frame(self, address: int) -> Frame:
        registers = SavedRegisters(self._batch.user[self._column], address)
        ip = registers["rip"].value
        return Frame(
            len(self) - 1, FrameKind.USER, StackKind.UNKNOWN, ip, True, None, registers, address + PT_REGS["rip"]
        )

    def _first_registers(self, top: int) -> Registers:
        values = {name: int(words[self._column]) for name, words in self._batch.saved.items()}
        return switched_out_registers(values, top + self.shape.start, self.shape.layout, top + self.shape.levels[0].sp)

    def _registers(self, index: int, top: int) -> Registers:
        """As the careful walk names them: the caller's ip, stack pointer and rbp."""
        below, level = self.shape.levels[index - 1], self.shape.levels[index]
        slot = top + (below.return_slot or 0)
        registers = {
            "rip": RegisterValue(level.prototype.ip, f"return slot {slot:#x} of frame #{index - 1}"),
            "rsp": RegisterValue(top + level.sp, f"CFA of frame #{index - 1}"),
        }
        saver = self.shape.saver(index)
        if saver is None:
            return registers | {"rbp": self._first_registers(top)["rbp"]}
        where = top + (self.shape.levels[saver].bp_slot or 0) & U64
        value = int(self._batch.bps[index][self._column])
        return registers | {"rbp": RegisterValue(value, f"saved at {where:#x} by frame #{saver}")}
