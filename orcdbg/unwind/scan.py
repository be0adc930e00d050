"""What may lie above the place where a walk stopped, and does it go on anywhere?

Only after a walk has stopped, and said why, the words above are looked at. A return address, or saved registers, from which
a new walk comes to a proper end, or at least some callers that are proved, is where the stack may go on. Return addresses
on the way there may be frames, or left over from calls that are long over. All of it is guessed and says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, stretches
from orcdbg.base.reasons import Reason
from orcdbg.base.walks import Budget
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.orc.effective import Source
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import Frame, FrameKind, RegisterValue
from orcdbg.unwind.judge.calls import Calls
from orcdbg.unwind.reasons import MaybeOfEarlierCall, ReachedThroughGuess, ResumedByGuess, TextOnStack
from orcdbg.unwind.saved_registers import (
    CODE_SEGMENTS,
    LISTED_ABOVE,
    USER_PADDINGS,
    implausible,
    is_user,
    saved_registers,
)
from orcdbg.unwind.walker import State, Walk, WalkEnd
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

_WHAT = "guesses above broken walks, in words looked over"
MAX_LINES = 24  # guessed frames that are no part of a chain
MAX_ATTEMPTS = 96  # walks that are tried
MAX_FRAMES = 256
PROVED = 2  # calls that a chain without an end must have proved
WORDS_A_WALK = 128  # what a walk that is tried counts for in a budget of words
_SELECTOR = np.uint64(0xFFFF)


def words_of(memory: AddressSpace, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The aligned words of a stack from an address on, with where they are; those on missing pages left out."""
    for start, data in stretches(memory, begin + 7 & ~7, end):
        words = np.frombuffer(data, "<u8", len(data) // 8)
        yield from zip(range(start, start + len(data), 8), words.tolist(), strict=False)


class _Guesses:
    """What was found above one walk, and what it cost.

    Attributes:
        frames: the guessed frames, numbered from `index` on.
        lines: how many of them are no part of a chain.
        attempts: walks that were tried.
    """

    def __init__(self, index: int, budget: Budget) -> None:
        self._index = index
        self.budget = budget
        self.frames: list[Frame] = []
        self.lines = 0
        self.attempts = 0

    @property
    def next_index(self) -> int:
        """The number of the next frame."""
        return self._index + len(self.frames)

    def add_line(self, frame: Frame) -> None:
        """Adds a return address that may be a frame, or left over."""
        self.frames.append(frame)
        self.lines += 1

    def add_chain(self, chain: Walk) -> None:
        """Adds the frames of a walk that went somewhere."""
        self.frames += _guessed(chain.frames, self.next_index)


class Scan:
    """Looks for the rest of one walk.

    Args:
        code: the kernel.
        calls: what is known of its calls.
        stacks: those that the walk may touch.
        walk_on: walks from a state, and judges what it found.
    """

    def __init__(self, code: Code, calls: Calls, stacks: Sequence[Stack], walk_on: Callable[[State], Walk]) -> None:
        self._code = code
        self._calls = calls
        self._stacks = stacks
        self._walk_on = walk_on

    def above(self, sp: int, index: int, budget: Budget) -> list[Frame]:
        """Guessed frames above a place where a walk stopped.

        Args:
            sp: the place; where it is on no known stack, there are none.
            index: the number of the first frame.
            budget: in words; what it does not have left is not looked over.
        """
        guesses = _Guesses(index, budget)
        position = sp
        while (stack := self._stack_of(position)) is not None:
            chain = self._next_chain(stack, position, guesses)
            if chain is None or len(guesses.frames) >= MAX_FRAMES:
                break

            guesses.add_chain(chain)
            position = chain.frames[-1].sp
            if chain.end is not WalkEnd.STOPPED:
                break
        return guesses.frames

    def _next_chain(self, stack: Stack, begin: int, guesses: _Guesses) -> Walk | None:
        """The first walk from a word above `begin` that is worth showing; the return addresses before it are guesses too."""
        if not guesses.budget.take(_WHAT, begin, (stack.end - begin) // 8):
            return None

        for at, word in self._promising(begin, stack.end):
            state = self._candidate(at, word, stack)
            if state is None:
                continue
            if guesses.attempts >= MAX_ATTEMPTS or not guesses.budget.take(_WHAT, at, WORDS_A_WALK):
                return None

            guesses.attempts += 1
            chain = self._walk_on(state)
            if _is_good(chain, self._calls):
                return chain

            if state.kind is FrameKind.CALL and guesses.lines < MAX_LINES:
                guesses.add_line(self.line(at, word, guesses.next_index, MaybeOfEarlierCall()))
        return None

    def _promising(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The few words of a stack that can be a return address, or the first of a pt_regs, by what costs least to look at."""
        for start, data in stretches(self._code.memory, begin + 7 & ~7, end):
            words = np.frombuffer(data, "<u8", len(data) // 8)
            is_promising = words >= np.uint64(LISTED_ABOVE)

            # A pt_regs has its code segment at one distance from its first word, and few numbers of 16 bits are one.
            selectors = words[PT_REGS["cs"] // 8 :] & _SELECTOR
            is_promising[: len(selectors)] |= np.isin(selectors, CODE_SEGMENTS)
            # A program may run in any segment of its own (LDT), but only at the stack's top are there registers of user mode.
            for padding in USER_PADDINGS:
                place = (end - PT_REGS_SIZE - padding - start) // 8
                if 0 <= place < len(words):
                    is_promising[place] = True

            for place in np.flatnonzero(is_promising).tolist():
                yield start + 8 * place, int(words[place])

    def text(self, stack: Stack, begin: int) -> Iterator[Frame]:
        """Every address of text on a stack from `begin` up, as a guess."""
        index = 0
        for at, word in words_of(self._code.memory, max(begin, stack.begin), stack.end):
            if word >> 63 and (self._code.is_text(word) or self._code.is_text(word - 1)):
                is_return = self.is_return(word)
                yield self.line(at, word, index, TextOnStack(is_return), not is_return)
                index += 1

    def line(self, at: int, word: int, index: int, why: Reason, exact: bool = False) -> Frame:
        """A text address on the stack as a guessed frame."""
        stack = self._stack_of(at)
        registers = {"rip": RegisterValue(word, f"word {at:#x}"), "rsp": RegisterValue(at + 8, f"after word {at:#x}")}
        return Frame(
            index=index,
            kind=FrameKind.CALL,
            stack=StackKind.UNKNOWN if stack is None else stack.kind,
            ip=word,
            exact=exact,
            location=self._code.locate(word if exact else word - 1),
            registers=registers,
            came_from=at,
            source=Source.SCAN,
            reliable=False,
            doubt=why,
        )

    def _stack_of(self, address: int) -> Stack | None:
        return next((stack for stack in self._stacks if stack.holds(address, 8)), None)

    def _candidate(self, at: int, word: int, stack: Stack) -> State | None:
        """The state that a walk could begin with at a word: of a caller, or of interrupted code."""
        if self.is_return(word):
            registers = {"rip": RegisterValue(word, f"word {at:#x}"), "rsp": RegisterValue(at + 8, f"word {at:#x} + 8")}
            return State(word, False, registers, FrameKind.CALL, at)
        return self.saved(at, stack)

    def is_return(self, word: int) -> bool:
        """True for an address of text behind a call."""
        if not word >> 63 or not self._code.is_text(word - 1) or self._code.follows_call(word) is not True:
            return False
        return self._calls.ends_call(word) is not False

    def saved(self, at: int, stack: Stack) -> State | None:
        """The state that registers saved at `at` describe, where they can be a whole pt_regs."""
        if not stack.holds(at, PT_REGS_SIZE):
            return None
        try:
            data = self._code.memory.read(at, PT_REGS_SIZE)
        except MemoryFault:
            return None
        registers = saved_registers(data, PT_REGS, f"pt_regs {at:#x}")
        ip = registers["rip"].value
        if implausible(registers) is not None or ip == 0:
            return None
        if is_user(registers):
            at_top = stack.kind is StackKind.TASK and stack.end - at - PT_REGS_SIZE in USER_PADDINGS and not ip >> 47
            return State(ip, True, registers, FrameKind.INTERRUPT, at + PT_REGS["rip"]) if at_top else None
        if not self._code.is_text(ip) or self._calls.is_boundary(ip) is False:
            return None
        return State(ip, True, registers, FrameKind.INTERRUPT, at + PT_REGS["rip"])


def _is_good(walk: Walk, calls: Calls) -> bool:
    """Whether a walk from a guess is worth showing as one chain."""
    sure = [frame for frame in walk.frames if frame.mark.is_sure]
    if walk.end is not WalkEnd.STOPPED:
        return len(sure) == len(walk.frames)
    proved = 0
    for below, frame in itertools.pairwise(sure):
        if (
            frame.kind is not FrameKind.CALL
            or below.location is None
            or calls.leads_to(frame.ip, below.location) is not True
        ):
            break
        proved += 1
    return proved >= PROVED


def _guessed(frames: Sequence[Frame], index: int) -> list[Frame]:
    """A chain's frames as guesses, numbered from `index` on."""
    from_registers = frames[0].kind in (FrameKind.INTERRUPT, FrameKind.USER)
    out = []
    for number, frame in enumerate(frames, index):
        if number == index:
            doubt: Reason = ResumedByGuess(from_registers)
        else:
            doubt = frame.doubt or ReachedThroughGuess(index)
        out.append(replace(frame, index=number, reliable=False, doubt=doubt))
    return out
