"""Can the call before this return address have led into that function?

Yes where it is a direct call of it; no where it is a direct call, as built, of another function out of which no jump
leads there, and where it is an indirect call and no pointer leads there. What a place that is patched while the kernel
runs leaves open stays open.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.kernel.names import Location
from orcdbg.orc.rules.thunks import is_return_thunk, is_thunk
from orcdbg.patches.code import Code
from orcdbg.unwind.reasons import TailCalled
from orcdbg.x86.branches import CALL_SIZE, direct_call_target, target_of
from orcdbg.x86.instructions import Instruction, decode_one, outline

if TYPE_CHECKING:
    from orcdbg.unwind.judge.entries import Entries

MAX_FUNCTIONS = 64  # that jumps lead through, and
MAX_TEXT = 1 << 15  # bytes of theirs; beyond, the question stays open
MAX_FUNCTION_SIZE = 1 << 16
MAX_INSTRUCTION = 15
NEAR = 16  # bytes by which a patched call may miss a function's start: padding before it, ENDBR at it
# What is patched to call and jump anywhere, and what it calls; not all else that has a tracer's name.
_TRACERS = r"__fentry__|(?:arch_)?ftrace_ops_|ftrace_(?:regs_)?call|ftrace_(?:stub|epilogue|graph_|trampoline$)"
_BPF = r"bpf_dispatcher|bpf_prog_|bpf_trampoline"
_OPEN = re.compile(f"{_TRACERS}|{_BPF}")
_OF_TRACERS = re.compile(f"{_TRACERS}|{_BPF}|__SCT__|__bpf_(?:prog|tramp)")
_STATIC_CALL = "__SCT__"
_STANDS_IN = (_STATIC_CALL, "__fentry__")
_INT3 = 0xCC
_PADDING = ("nop", "int3", "xchgw", "data16")
_ENDS = ("ret", "jmp", "iret", "sysret", "ud", "hlt", "eret")


class Jump(NamedTuple):
    """A jump at `address`, a run-time address, between functions; the one at the other end begins at `start`."""

    address: int
    start: int


class Calls:
    """Answers from the text of one kernel, kept for the next time.

    Args:
        code: the kernel: its text as run and as built, and where expected faults are continued, which is another way
            out of a function.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._memory = code.as_run
        self._built = code.as_linked
        self._verdicts: dict[tuple[int, int], bool | None] = {}
        self._exits: dict[int, dict[int, int] | None] = {}
        self._exits_built: dict[int, dict[int, int] | None] = {}
        self._tail_calls: dict[tuple[int, int], TailCalled | None] = {}
        self._boundaries: dict[tuple[int, str], bool | None] = {}

    @functools.cached_property
    def _entries(self) -> Entries:
        from orcdbg.unwind.judge.entries import Entries  # most calls before return addresses are direct

        return Entries(self._code)

    def is_boundary(self, address: int) -> bool | None:
        """Whether an instruction begins at `address`, in the text as it is or as built; None where that is open."""
        return self._ask(address, address, "")

    def begins_as_built(self, address: int) -> Instruction | None:
        """The instruction that begins at `address` in text as built; None also for modules, which are not there as built."""
        place = self._code.locate(address)
        if place is None or not place.is_text or place.module is not None or not 0 < place.size <= MAX_FUNCTION_SIZE:
            return None
        try:
            code = self._built.read(place.start, address - place.start + MAX_INSTRUCTION)
        except MemoryFault:
            return None

        end = place.start
        for start, size, _, _ in outline(code, place.start):
            if start >= address:
                break
            end = start + size
        return decode_one(code[address - place.start :], address) if end == address else None

    def ends_call(self, return_address: int, word: str = "call") -> bool | None:
        """Whether an instruction that calls ends at `return_address`, likewise; or another whose name holds `word`."""
        return self._ask(return_address, return_address - 1, word)

    def may_begin(self, ip: int) -> bool:
        """False where a stack cannot begin with `ip` as a return address that was put there.

        That is a function's start, or what start-up code makes its own far return to.
        """
        place = self._code.locate(ip)
        return place is None or place.start == ip or self.ends_call(ip, "lret") is not False

    def _ask(self, address: int, inside: int, word: str) -> bool | None:
        """Whether an instruction with `word` in its name, of the function that holds `inside`, ends at `address`."""
        key = (address, word)
        if key not in self._boundaries:
            place = self._whole_code(inside)
            known = place is not None and place.is_text and 0 < place.size <= MAX_FUNCTION_SIZE
            answer = self._search(place, address, word) if place and known else None
            self._boundaries[key] = None if answer is False and place and self._is_landed_in(place) else answer
        return self._boundaries[key]

    def _whole_code(self, address: int) -> Location | None:
        """The symbol that holds an address; for the slots of kprobes, which have one name a page, only the slot there."""
        place, made = self._code.locate(address), self._code.generated_at(address)
        if place is None or made is None:
            return place
        return place._replace(start=made.start, size=made.end - made.start)

    def _search(self, place: Location, address: int, wanted: str) -> bool | None:
        if address == place.start:
            return True
        answers = []
        for space in (self._memory, self._built):
            try:
                code = space.read(place.start, address - place.start + MAX_INSTRUCTION)
            except MemoryFault:
                continue
            end, is_found = place.start, False
            for start, size, mnemonic, _ in outline(code, place.start):
                end, is_found = start + size, wanted in mnemonic
                if end >= address:
                    break
            if end == address and is_found:
                return True
            answers.append(end >= address)  # else the bytes before it are none that capstone knows
        return False if answers and all(answers) else None

    def leads_to(self, return_address: int, callee: Location) -> bool | None:
        """True where the call that ends at `return_address` enters `callee`, False where it cannot, else None."""
        key = (return_address, callee.start)
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(return_address, callee)
        return self._verdicts[key]

    def _is_landed_in(self, place: Location) -> bool:
        """Whether other functions' faults are continued there: the place has more than one beginning."""
        return self._code.faults.lands_from_outside(place.start, place.start + place.size)

    def _judge(self, return_address: int, callee: Location) -> bool | None:
        now, built = (direct_call_target(space, return_address) for space in (self._memory, self._built))
        if any(target is not None and self._enters(target, callee) for target in (now, built)):
            return True
        if is_thunk(callee) or is_return_thunk(callee):
            return None
        if self._is_indirect(return_address, now, built):
            return None if self._entries.ways_into(callee) is None else False
        if now is None:
            return self._is_gone(return_address, built, callee)
        return self._is_reached_by_call(now, built, callee)

    def _enters(self, target: int, callee: Location) -> bool:
        """Whether a call of `target` enters a function: at its start, at an ENDBR's length into it, or in padding before it.

        A small function may lie within the same distance, and is another one: __put_user_4 is 16 bytes before
        __put_user_nocheck_4.
        """
        distance = callee.start - target
        if -NEAR <= distance <= 0:
            return distance == 0 or -distance < callee.size
        return 0 < distance <= NEAR and self._is_padding(target, distance)

    def _is_padding(self, address: int, size: int) -> bool:
        """Whether nothing but padding was built there; open, and so believed, where the text cannot be read."""
        try:
            code = self._built.read(address, size)
        except MemoryFault:
            return True
        return all(mnemonic.startswith(_PADDING) for _, _, mnemonic, _ in outline(code, address))

    def _is_reached_by_call(self, now: int, built: int | None, callee: Location) -> bool | None:
        """Whether a direct call may come into `callee`: by where it goes now, and by where it went as built, if anywhere."""
        if built is not None and -NEAR <= now - built <= NEAR:
            return self.is_reached(built, callee)  # call depth tracking calls into the padding before the function

        # a patched call leads where it does now, or did as built: the trampoline of a static call only stands in for
        # what is patched in, and an indirect call that is a direct one now has been patched once, at boot
        targets = {now, now if built is None or self._is_patched_in(built) else built}
        answers = {self.is_reached(target, callee) for target in targets}
        return True if True in answers else None if None in answers else False

    def _is_indirect(self, return_address: int, now: int | None, built: int | None) -> bool:
        """Whether the call that ends there goes by a pointer, as it is and as built, in code of the image or a module."""
        if self._code.generated_at(return_address - 1) is not None:
            return False  # BPF's trampolines go on behind the first instruction of the function that they trace
        if now is None and built is None:
            return self.ends_call(return_address) is True
        is_built_so = built is not None and self._is_indirect_thunk(built)
        return (is_built_so and now is None) or (now is not None and self._goes_by_thunk(now, is_built_so))

    def _goes_by_thunk(self, target: int, is_built_so: bool) -> bool:
        """Whether a direct call goes to a thunk; one as built may go to one that has no name since (ITS, 6.15)."""
        return self._is_indirect_thunk(target) or (is_built_so and self._code.locate(target) is None)

    def _is_indirect_thunk(self, target: int) -> bool:
        place = self._code.locate(target)
        return place is not None and is_thunk(place) and not is_return_thunk(place)

    def _is_patched_in(self, built: int) -> bool:
        """True where a call as built goes to what stands in for a call that is patched in."""
        place = self._code.locate(built)
        return place is not None and place.symbol.startswith(_STANDS_IN)

    def _is_gone(self, return_address: int, built: int | None, callee: Location) -> bool | None:
        """False where the call of a stand-in is no call now, and `callee` is none of those that trace functions."""
        if (
            built is None
            or not self._is_patched_in(built)
            or callee.module is not None
            or _OF_TRACERS.match(callee.symbol)
        ):
            return None
        try:
            code = self._memory.read(return_address - CALL_SIZE, CALL_SIZE)
        except MemoryFault:
            return None
        return None if code[0] == _INT3 else False  # being patched at this moment

    def is_reached(self, target: int, callee: Location) -> bool | None:
        """Whether code that is called at `target` may come into `callee` without another call; None where that is open."""
        first = self._code.locate(target)
        if first is None:
            return None
        forward = self._is_reached_from(first, callee)
        if forward is not None or _OPEN.match(first.symbol) or _OF_TRACERS.match(callee.symbol) or is_thunk(callee):
            return forward
        ways = self._entries.ways_into(callee)
        return None if ways is None or ways.include(first) else False

    def tail_call(self, return_address: int, callee: Location) -> TailCalled | None:
        """By which jumps the direct call that ends at `return_address` comes into a function that it does not enter itself.

        None where it enters `callee`, or a part that was split off it, and where no such way is found.
        """
        key = (return_address, callee.start)
        if key not in self._tail_calls:
            targets = (direct_call_target(space, return_address) for space in (self._memory, self._built))
            called = [self._code.locate(target) for target in targets if target is not None]
            ways = (self._jumps_between(first, callee) for first in called if first is not None)
            self._tail_calls[key] = next((way for way in ways if way is not None), None)
        return self._tail_calls[key]

    def _jumps_between(self, first: Location, callee: Location) -> TailCalled | None:
        if first.symbol.partition(".cold")[0] == callee.symbol.partition(".cold")[0] or is_thunk(first):
            return None
        onward = dict[int, Jump]()
        if self._is_reached_from(first, callee, onward) is None:
            jumps = self._entries.way_from(first, callee)
            return None if jumps is None else TailCalled(first.symbol, callee.symbol, tuple(j.address for j in jumps))

        addresses, start = list[int](), callee.start
        while start != first.start:
            if start not in onward:
                return None
            addresses.insert(0, onward[start].address)
            start = onward[start].start
        return TailCalled(first.symbol, callee.symbol, tuple(addresses)) if all(addresses) else None

    def may_go_on_to(self, inside: int, callee: Location) -> bool:
        """Whether the function that holds an address can be in `callee` without a call, whatever tracers may do to it.

        Args:
            inside: an address that a tracer's record names.
            callee: what the frame is in.
        """
        first = self._code.locate(inside)
        return first is None or self._is_reached_from(first, callee, exits_of=self._exits_as_built) is not False

    def _is_reached_from(
        self,
        first: Location,
        callee: Location,
        onward: dict[int, Jump] | None = None,
        exits_of: Callable[[Location], dict[int, int] | None] | None = None,
    ) -> bool | None:
        """The same, by following the jumps of what is called.

        Args:
            first: where the search begins.
            callee: what it looks for.
            onward: is filled with how each function on the way was come to: by which jump, and of which function.
            exits_of: where a function goes on to; as it runs and as built, without it.
        """
        exits_of = exits_of or self._exits_of
        ways = {} if onward is None else onward
        found, todo, size = {first.start}, [first], 0
        while todo:
            function = todo.pop(0)
            size += function.size
            if _is_part_of(function, callee):
                return True

            exits = exits_of(function)
            if exits is None:
                return None
            new = exits.keys() - found
            for start in new:
                ways.setdefault(start, Jump(exits[start], function.start))
            if callee.start in exits:
                return True

            others = self._located(new)
            if others is None or len(found) > MAX_FUNCTIONS or size > MAX_TEXT:
                return None
            todo += others
            found |= new
        return False

    def _located(self, starts: Iterable[int]) -> list[Location] | None:
        """The functions at these addresses; None where one has no name."""
        places = [self._code.locate(start) for start in starts]
        known = [place for place in places if place is not None]
        return known if len(known) == len(places) else None

    def _exits_of(self, function: Location) -> dict[int, int] | None:
        """Starts of the functions that this one jumps or falls into, each with the address of a jump; None where that is open.

        The address is 0 where no jump leads there.
        """
        if function.start not in self._exits:
            self._exits[function.start] = self._find_exits(function)
        return self._exits[function.start]

    def _exits_as_built(self, function: Location) -> dict[int, int] | None:
        """The same by the text as built alone, in which nothing traces or probes."""
        if function.start not in self._exits_built:
            self._exits_built[function.start] = self._find_exits(function, is_running=False)
        return self._exits_built[function.start]

    def _find_exits(self, function: Location, is_running: bool = True) -> dict[int, int] | None:
        is_open = _OPEN.match(function.symbol) is not None or is_thunk(function) or function.module is not None
        if is_open or not 0 < function.size <= MAX_FUNCTION_SIZE:
            return None
        found: dict[int, int] = {}
        try:
            now, built = (space.read(function.start, function.size) for space in (self._memory, self._built))
        except MemoryFault:
            return None
        versions = [(now, True), (built, False)] if is_running else [(built, False)]
        if function.symbol.startswith(_STATIC_CALL):
            versions = [(now, True)]  # as a call of it: it leads where it does now
        for code, is_now in versions:
            exits = self._exits_in(code, function, built if is_now else None)
            if exits is None:
                return None
            found = exits | found
        end = function.start + function.size
        for landing in self._code.faults.landings_of(function.start, end):
            place = self._code.locate(landing)
            if place is None:
                return None
            found.setdefault(place.start, 0)
        return found

    def _exits_in(self, code: bytes, function: Location, built: bytes | None) -> dict[int, int] | None:
        """The same of one version of the function's text; `built` for comparison where it is the one that runs."""
        found: dict[int, int] = {}
        end, has_ended, is_first, last_call = function.start, False, True, 0
        for address, size, mnemonic, operands in outline(code, function.start):
            offset, end = address - function.start, address + size
            if mnemonic.startswith("endbr"):
                continue
            if mnemonic.startswith("int3") and not has_ended:
                if self._may_be_probe(offset, built):
                    return None
                has_ended = True  # padding, behind a call that does not return
                continue
            is_call = mnemonic.startswith("call")
            if is_first and is_call and self._may_be_traced(operands, slice(offset, offset + size), code, built):
                return None

            is_first = False
            if not mnemonic.startswith(_PADDING):
                last_call = address if is_call else 0
            has_ended = mnemonic.startswith(_ENDS) or (has_ended and mnemonic.startswith(_PADDING))
            if _is_jump(mnemonic) and not self._note_jump(found, address, operands, function):
                return None

        if end != function.start + function.size:
            return None  # bytes that are no instructions
        has_ended = has_ended or (last_call != 0 and _does_not_return(code, function.start, last_call))
        return found if has_ended else self._with_next(found, end)

    def _note_jump(self, found: dict[int, int], address: int, operands: str, function: Location) -> bool:
        """Adds where the jump at an address leads, unless it stays in its function; False where that is open."""
        start = self._jump(operands, function)
        if start is not None and start != function.start:
            found.setdefault(start, address)
        return start is not None

    def _may_be_probe(self, offset: int, built: bytes | None) -> bool:
        """Whether the int3 at an offset is, or may be, a probe that can send the CPU anywhere; `built` as in `_exits_in`."""
        return self._memory is self._built or (built is not None and built[offset] != _INT3)

    def _may_be_traced(self, operands: str, place: slice, code: bytes, built: bytes | None) -> bool:
        """Whether a function's first call is ftrace's, whose handler may send the CPU into another function.

        Args:
            operands: the call's.
            place: where in the function it is.
            code: the function's text.
            built: as in `_exits_in`.
        """
        if built is None:
            return False
        return code[place] != built[place] or self._is_patched_in(target_of(operands) or 0)

    def _with_next(self, found: dict[int, int], end: int) -> dict[int, int] | None:
        following = self._code.locate(end)
        return None if following is None else {following.start: 0} | found

    def _jump(self, operands: str, function: Location) -> int | None:
        """The start of the function that a jump enters; its own where it stays or returns; None where that is open."""
        target = target_of(operands)
        if target is None:
            return None
        if function.start <= target < function.start + function.size:
            return function.start
        references = self._code.references
        if references is not None and references.is_in_auxiliary(target - self._code.slide):
            return function.start
        place = self._code.locate(target)
        if place is None:
            return None
        if is_return_thunk(place):
            return function.start
        if is_thunk(place):
            return None
        return place.start


def _is_part_of(function: Location, callee: Location) -> bool:
    """Whether a function is the callee, or the one that the callee's cold part was split off."""
    return function.start == callee.start or function.symbol == callee.symbol.partition(".cold")[0]


def _does_not_return(code: bytes, start: int, call: int) -> bool:
    """Whether the call that ends a function's text comes back to none: another function begins with another stack depth."""
    from orcdbg.x86.stack_depth import AT_ENTRY, stack_depths  # few functions end so, and fewer are asked about

    return stack_depths(code, start).by_address.get(call, AT_ENTRY) != AT_ENTRY


def _is_jump(mnemonic: str) -> bool:
    """True for a jump of any kind; `notrack` and `bnd` may stand before the word."""
    return mnemonic.rpartition(" ")[2].startswith(("j", "loop"))
