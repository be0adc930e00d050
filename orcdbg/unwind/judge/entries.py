"""Which functions can the CPU have come through into this one, without another call, and may a pointer lead there?

A function whose address the build takes nowhere is entered by direct calls, and by jumps of functions of which the same
may be true. Where all of those are known and no pointer leads to any, an indirect call cannot have entered the function,
and neither can a call of anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.names import Location
from orcdbg.kernel.xen import HYPERCALL_PAGE
from orcdbg.patches.code import Code
from orcdbg.unwind.judge.calls import Jump
from orcdbg.x86.branches import target_of
from orcdbg.x86.instructions import Outlined, outline

MAX_WAYS = 64  # functions that jump to one another; beyond, the question stays open
MAX_FUNCTION = 1 << 16
_SHORT = 130  # bytes that a jump of two bytes comes to, its own among them
_ALIGNED = 16  # what compilers align functions to
_PADDING = ("nop", "int3", "xchgw", "data16")
_GOES_AWAY = ("ret", "jmp", "iret", "sysret", "sysexit", "ud", "hlt", "eret")


@dataclass(frozen=True, slots=True)
class WaysIn:
    """All functions of the image by which a function can be entered, itself among them.

    Attributes:
        starts: where those functions begin.
        names: their names, the parts that were split off counting as the whole.
    """

    starts: frozenset[int]
    names: frozenset[str]

    def include(self, function: Location) -> bool:
        """Whether code that is entered by this function may come into the one in question."""
        return function.start in self.starts or _whole(function) in self.names


class Entries:
    """Answers from the build of one kernel, kept for the next time.

    Args:
        code: the kernel.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._ways: dict[int, WaysIn | None] = {}
        self._jumps: dict[tuple[int, bool], list[tuple[int, Location | None]]] = {}
        self._next_door: dict[int, frozenset[int]] = {}

    def ways_into(self, callee: Location) -> WaysIn | None:
        """All ways into a function; None where a pointer may lead to one of them, and where they are not all known.

        Modules are left out: what they may call through a pointer they have from the image's own table of exported
        symbols, which counts as a pointer. A livepatch has its own way to any symbol; with one, nothing is known.
        """
        if callee.start not in self._ways:
            self._ways[callee.start] = self._find(callee)
        return self._ways[callee.start]

    def way_from(self, first: Location, callee: Location) -> list[Jump] | None:
        """The jumps, one after another, by which code that enters `first` comes into `callee`; None where none are found."""
        way = self._way_from(first, callee, with_conditional=False)
        return way if way is not None else self._way_from(first, callee, with_conditional=True)

    def _way_from(self, first: Location, callee: Location, with_conditional: bool) -> list[Jump] | None:
        onward: dict[int, Jump] = {}
        seen, todo = {callee.start}, [callee]
        while todo and len(seen) < MAX_WAYS and first.start not in onward:
            function = todo.pop(0)
            for address, other in self._jumps_into(function, with_conditional):
                if other is None or other.start in seen or not self._is_jump(other, address):
                    continue
                seen.add(other.start)
                todo.append(other)
                onward[other.start] = Jump(address, function.start)
        if first.start == callee.start or first.start not in onward:
            return None
        jumps, start = list[Jump](), first.start
        while start != callee.start:
            jumps.append(onward[start])
            start = jumps[-1].start
        return jumps

    def _find(self, callee: Location) -> WaysIn | None:
        references = self._code.references
        if references is None or callee.module is not None or not callee.is_text:
            return None
        # The stub of a hypercall is called by its number in the page (xen_single_call(), to 6.12).
        page = self._code.linux.find_address(HYPERCALL_PAGE)
        if page is not None and 0 <= callee.start - page < PAGE:
            return None
        # What is quickly seen to have a pointer to it ends the search before anything is decoded or sought.
        near = self._closure(callee, is_exact=False)
        if near is None:
            return None
        functions = self._closure(callee, is_exact=True)
        if functions is None or any(references.is_pointed_to(one.start - self._code.slide) for one in functions):
            return None
        return WaysIn(frozenset(one.start for one in functions), frozenset(_whole(one) for one in functions))

    def _closure(self, callee: Location, is_exact: bool) -> list[Location] | None:
        """The functions that come into this one by jumps, of near ones alone or of all; None where one has pointers to it."""
        references = self._code.references
        found, todo = {callee.start: callee}, [callee]
        while todo:
            function = todo.pop()
            if references is None or references.is_listed(function.start - self._code.slide):
                return None
            others = [other for _, other in self._jumps_into(function, with_conditional=is_exact)]
            if is_exact:
                if self._code.faults.lands_from_outside(function.start, function.start + function.size):
                    return None
                others += self._beside(function)
            for other in others:
                if other is None or other.module is not None or not other.is_text or len(found) >= MAX_WAYS:
                    return None
                if other.start not in found:
                    found[other.start] = other
                    todo.append(other)
        return list(found.values())

    def _jumps_into(self, function: Location, with_conditional: bool) -> list[tuple[int, Location | None]]:
        """Near jumps into a function: where each is, and of which function; None for code of none."""
        key = (function.start, with_conditional)
        if key not in self._jumps:
            references, slide = self._code.references, self._code.slide
            if references is None:
                return []
            start = function.start - slide
            self._jumps[key] = [
                (source + slide, self._code.locate(source + slide) if references.is_in_function(source) else None)
                for source in references.jumps_into(start, start + function.size, with_conditional)
            ]
        return self._jumps[key]

    def _beside(self, function: Location) -> list[Location | None]:
        """The functions that come into this one by short jumps or by falling, and the whole of a part that was split off."""
        found = [other for other in self._neighbours(function) if self._leads_into(other, function)]
        if _whole(function) == function.symbol:
            return [*found]
        return [*found, *(self._code.locate(whole) for whole in self._code.starts_of(_whole(function)))]

    def _is_jump(self, function: Location, address: int) -> bool:
        """Whether one of a function's instructions as built is a jump at an address."""
        try:
            code = self._code.as_linked.read(function.start, min(function.size, MAX_FUNCTION))
        except MemoryFault:
            return False
        insns = (Outlined(*insn) for insn in outline(code, function.start))
        return any(insn.address == address and insn.mnemonic.startswith("j") for insn in insns)

    def _neighbours(self, function: Location) -> list[Location]:
        """The functions near enough for a jump of two bytes, the one before always among them."""
        found = []
        for step in (-1, 1):
            place = self._code.locate(function.start - 1 if step < 0 else function.start + function.size)
            while place is not None and place.is_text and place.size > 0:
                found.append(place)
                if step < 0:
                    distance, following = function.start - place.start, place.start - 1
                else:
                    following = place.start + place.size
                    distance = following - function.start - function.size
                if distance >= _SHORT:
                    break
                place = self._code.locate(following)
        return found

    def _leads_into(self, other: Location, function: Location) -> bool:
        """Whether a function near this one jumps or falls into it; True where its text is not understood."""
        if other.start not in self._next_door:
            self._next_door[other.start] = self._targets_near(other)
        targets = self._next_door[other.start]
        return any(function.start <= target < function.start + function.size for target in targets)

    def _targets_near(self, other: Location) -> frozenset[int]:
        """Where a function jumps to, and the address behind it where it falls into that."""
        end = other.start + other.size
        try:
            code = self._code.as_linked.read(other.start, min(other.size, MAX_FUNCTION))
        except MemoryFault:
            return frozenset()
        targets, last, final = set[int](), other.start, ""
        for address, size, mnemonic, operands in outline(code, other.start):
            last = address + size
            word = mnemonic.rpartition(" ")[2]  # behind `notrack` or `bnd`
            if not word.startswith(_PADDING):
                final = word
            target = target_of(operands) if word.startswith(("j", "loop")) else None
            if target is not None:
                targets.add(target)
        # Behind a call that does not return a compiler may end a function, and the next one begins aligned.
        ends_in_call = final.startswith("call") and end % _ALIGNED == 0
        if last != end or not (ends_in_call or final.startswith(_GOES_AWAY)):
            targets.add(end)
        return frozenset(targets)


def _whole(function: Location) -> str:
    """The name of the function that a part was split off from; its own for a whole one."""
    return function.symbol.partition(".cold")[0]
