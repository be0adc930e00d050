"""Which boundaries does execution reach from here, and what is known at each?

Everybody who reads a meaning out of instructions asks this: how far the stack pointer has moved, which slot holds the
caller's rbx, whether a word is still in rsi. The walk is the same each time and stands here; what is followed is a state,
and what an instruction does to a state is its owner's knowledge, a `Flow`.

`follow` goes along branches and brings together what paths say where they meet. `straight` goes through text in the order
of its bytes, for code that is known to run so.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from orcdbg.x86.instructions import Instruction, decode, decode_one

State = TypeVar("State")

LONGEST = 15
"""Bytes of the longest instruction (Intel SDM volume 2, 2.3.11)."""


class DecodedText:
    """Instructions of one stretch of text, each decoded once.

    Args:
        code: the bytes.
        address: where they lie.
    """

    def __init__(self, code: bytes, address: int) -> None:
        self.start = address
        self.end = address + len(code)
        self._code = code
        self._known: dict[int, Instruction | None] = {}

    def holds(self, address: int) -> bool:
        """Whether an instruction may begin at `address`: the end itself is outside."""
        return self.start <= address < self.end

    def instruction(self, address: int) -> Instruction | None:
        """The instruction at `address`; None outside of the text, and where the bytes are none."""
        if address not in self._known:
            self._known[address] = self._decoded(address)
        return self._known[address]

    def bytes_at(self, address: int) -> bytes:
        """The bytes that the instruction at `address` may have, and more; fewer at the text's end."""
        offset = address - self.start
        return self._code[offset : offset + LONGEST]

    def _decoded(self, address: int) -> Instruction | None:
        return decode_one(self.bytes_at(address), address) if self.holds(address) else None

    def successors(self, insn: Instruction) -> Iterator[int]:
        """Where execution goes from an instruction, as far as that follows from it alone.

        A direct jump's target, if that is inside, then the next instruction, which may be the text's end. A call counts as
        an instruction that comes back.
        """
        if insn.target is not None and not insn.is_call and self.holds(insn.target):
            yield insn.target
        if not insn.ends_flow:
            yield insn.end


class Flow(Protocol[State]):
    """What is followed, and what instructions do to it."""

    def steps(self, address: int, state: State, /) -> Iterable[tuple[int, State]]:
        """Where execution goes from the boundary at `address`, and the state that it takes there; nothing ends the path."""

    def arrive(self, address: int, state: State, /) -> State | None:
        """The state as it holds at `address`, where a path brings it; None where that path cannot be one."""

    def meet(self, known: State, arrived: State, /) -> State:
        """What still holds at a boundary that a further path reaches; equal to `known` where nothing is new.

        It may only ever take knowledge away, so that a walk comes to an end.
        """


@dataclass(frozen=True, slots=True)
class Followed(Generic[State]):
    """What a walk found.

    Args:
        states: by the address of each boundary that was reached, in the order in which they were first reached.
        came_from: for each of those the boundary that it was first reached from; those that the walk began with have none.
        is_complete: False where the budget ran out. Then a path may be missing, and no state is sure.
    """

    states: dict[int, State]
    came_from: dict[int, int]
    is_complete: bool

    def way(self, address: int) -> list[int]:
        """The boundaries on the way by which `address` was first reached, from the beginning on, without its own."""
        found: list[int] = []
        before = self.came_from.get(address)
        while before is not None:
            found.append(before)
            before = self.came_from.get(before)
        return found[::-1]


def follow(begin: Mapping[int, State], flow: Flow[State], budget: int, settled: Container[int] = ()) -> Followed[State]:
    """Follows execution along every branch until no boundary learns anything new.

    Args:
        begin: boundaries to begin at, and what is known there.
        flow: what is followed.
        budget: boundaries that are looked at, each again for each time that it learnt something. Text is what a hostile
            snapshot holds: without a bound a state of many parts could be taken apart one at a time, all over a large text.
        settled: boundaries that an earlier walk has dealt with, which are not entered.
    """
    states: dict[int, State] = {}
    came_from: dict[int, int] = {}
    # In the order of arrival, the last one first, each once: what arrives while a boundary waits is looked at with it.
    pending: dict[int, None] = {}

    def arrive(address: int, state: State, before: int | None) -> None:
        arrived = None if address in settled else flow.arrive(address, state)
        if arrived is None:
            return

        if address not in states:
            states[address] = arrived
            if before is not None:
                came_from[address] = before
        else:
            known = states[address]
            met = flow.meet(known, arrived)
            if met == known:
                return
            states[address] = met

        pending.pop(address, None)
        pending[address] = None

    for address, state in begin.items():
        arrive(address, state, None)

    while pending:
        if not budget:
            return Followed(states, came_from, False)
        budget -= 1

        address, _ = pending.popitem()
        for target, after in flow.steps(address, states[address]):
            arrive(target, after, address)

    return Followed(states, came_from, True)


def straight(
    code: bytes, address: int, state: State, after: Callable[[State, Instruction], State]
) -> Iterator[tuple[int, State]]:
    """Each boundary of `code` in the order of its bytes, whatever branches there are, with what is known there.

    Args:
        code: the text, which lies at `address`.
        address: where the first instruction is.
        state: what is known before it.
        after: what is known behind an instruction, by what was known before it.

    The end of the last instruction counts as a boundary. Bytes that are no instruction end it.
    """
    yield address, state
    for insn in decode(code, address):
        state = after(state, insn)
        yield insn.end, state
