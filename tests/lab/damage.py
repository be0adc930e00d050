"""What does a walk show when a single word of memory is not what it was: is a frame wrong, or left out, without a mark?

The word is changed as the walk reads it, in a layer over memory, so that one snapshot serves for thousands of words. What
the walk shows is held against what it showed of undamaged memory.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import Stack, StackKind, cpu_stacks
from orcdbg.kernel.tasks import read_task
from orcdbg.orc.rows import OrcRegister
from orcdbg.snapshot.machine import CpuState
from orcdbg.target.stopped_kernel import StoppedKernel
from orcdbg.unwind.frame import End, Frame, FrameKind, StackTrace
from orcdbg.unwind.starts import inactive_frame, stacks_of
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.x86.registers import IRET_FRAME, PT_REGS

WORD = 8


class WordKind(enum.Enum):
    """What a word of memory is for a walk."""

    RETURN_SLOT = "return slot"
    SAVED_RBP = "saved rbp"
    STACK_LINK = "link from the interrupt stack"
    OTHER_OF_STACK = "other word of a stack"
    INACTIVE_IP = "inactive_task_frame ret_addr"
    INACTIVE_RBP = "inactive_task_frame bp"
    INACTIVE_OTHER = "inactive_task_frame other"
    KERNEL_IP = "kernel pt_regs ip"
    KERNEL_SP = "kernel pt_regs sp"
    KERNEL_CS = "kernel pt_regs cs"
    KERNEL_FLAGS = "kernel pt_regs flags"
    KERNEL_RBP = "kernel pt_regs bp"
    KERNEL_OTHER = "kernel pt_regs other"
    USER_IP = "user pt_regs ip"
    USER_SP = "user pt_regs sp"
    USER_CS = "user pt_regs cs"
    USER_FLAGS = "user pt_regs flags"
    USER_OTHER = "user pt_regs other"
    ORIG_AX = "pt_regs orig_ax"
    THREAD_SP = "thread.sp"
    TASK_STRUCT = "other word of task_struct"
    RECORD = "tracer's record, or other data of the kernel"
    CPU_STACK = "word of a CPU's own stack"
    PER_CPU = "per-CPU word"


_OF_SAVED = {"rip": "IP", "rsp": "SP", "cs": "CS", "rflags": "FLAGS", "rbp": "RBP"}
_OF_INACTIVE = {"rip": WordKind.INACTIVE_IP, "rbp": WordKind.INACTIVE_RBP}


class Change(enum.Enum):
    """What stands in the word's place."""

    OTHER_RETURN = "another return address"
    OTHER_FUNCTION = "another function's address"
    NEAR = "8 more or less"
    BIT = "one bit flipped"
    SAME_STACK = "another address of this stack"
    OTHER_STACK = "an address of another stack"
    OTHER_WORD = "another word of this stack"
    ZERO = "zero"
    GARBAGE = "garbage"


class Outcome(enum.Enum):
    """What the damage did to the walk."""

    SAME = "same frames"
    MARKED = "marked"
    REFUSED = "refused"
    NAMED = "of a named class"
    WRONG = "wrong without a mark"


class NamedClass(enum.Enum):
    """Damage that cannot be told from the truth: one frame has another ip, which fits all else that is in memory."""

    USER = "the program's own ip and stack pointer, or where its vDSO is, which nothing else tells"
    SAME_FUNCTION = "an interrupted ip that is another instruction of what the next frame's call leads to"
    ALIGNED = "an interrupted stack pointer that is 8 off, which the CPU's alignment hides, of a frame found by rbp"
    SAME_CALLEE = "a return address behind another call of the same function"
    BY_POINTER = "a return address behind a call by a pointer, and pointers lead to the function below"


class Damage(NamedTuple):
    """One word, what it is, and what stands there instead."""

    address: int
    kind: WordKind
    change: Change
    before: int
    after: int


class Undamaged(NamedTuple):
    """A walk that nothing spoke against, and the words that it stands on, by their kinds."""

    trace: StackTrace
    stacks: Sequence[Stack]
    words: Mapping[WordKind, Sequence[int]]


class DamagedMemory:
    """Memory in which one word may be another: an AddressSpace, which also notes what is read of it."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory
        self.reads: set[int] | None = None
        self.address = 0
        self.word: bytes | None = None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, with the word in its place."""
        data = self._memory.read(address, size)
        if self.reads is not None:
            self.reads.update(range(address & -WORD, address + size, WORD))
        if self.word is None or address >= self.address + WORD or address + size <= self.address:
            return data

        start, end = max(address, self.address), min(address + size, self.address + WORD)
        part = self.word[start - self.address : end - self.address]
        return data[: start - address] + part + data[end - address :]


@dataclass
class Account:
    """What came of many words: counts by kind of word and outcome, and the wrong ones in full."""

    outcomes: Counter[tuple[WordKind, Outcome]] = field(default_factory=Counter)
    changes: Counter[tuple[Change, Outcome]] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, damage: Damage, outcome: Outcome) -> None:
        """Counts one word."""
        self.outcomes[damage.kind, outcome] += 1
        self.changes[damage.change, outcome] += 1

    @property
    def words(self) -> int:
        """How many words were damaged."""
        return self.outcomes.total()

    def add(self, other: Account) -> None:
        """Counts what another account has."""
        self.outcomes += other.outcomes
        self.changes += other.changes
        self.named += other.named
        self.wrong += other.wrong

    def lines(self) -> Iterator[str]:
        """A table by kind of word, one by kind of change, and the named classes."""
        yield f"{self.words} words damaged"
        for counts, kinds in ((self.outcomes, WordKind), (self.changes, Change)):
            for kind in kinds:
                found = {outcome: counts[kind, outcome] for outcome in Outcome}  # type: ignore[index]
                if any(found.values()):
                    parts = ", ".join(f"{count} {outcome.value}" for outcome, count in found.items() if count)
                    yield f"  {kind.value}: {parts}"
        for name, count in sorted(self.named.items()):
            yield f"  named class, {name}: {count}"


class Damager:
    """Damages words of one stopped kernel.

    Args:
        kernel: the kernel.
        cpus: the registers of its CPUs.
        random: chooses words and what stands in their place.
    """

    def __init__(self, kernel: StoppedKernel, cpus: Sequence[CpuState], random: Random) -> None:
        self._kernel = kernel
        self._cpus = cpus
        self._random = random
        self._memory = DamagedMemory(kernel.memory)
        self._terrain = kernel.unwinder_over(self._memory).terrain
        self._returns: list[int] = []
        self._stack_addresses: list[int] = []
        self._functions: list[int] = []

    @property
    def _linux(self) -> Linux:
        return self._terrain.code.linux

    def walk(self, task: int) -> StackTrace:
        """The stack of a task, in memory as it is damaged now."""
        return Unwinder(self._terrain, self._cpus).trace(read_task(self._linux, task))

    def undamaged(self, task: int) -> Undamaged | None:
        """The walk of a task and its words; None where something speaks against a frame of it even now."""
        self._memory.word = None
        self.walk(task)  # what is read once, of text and types, is no word of this walk
        self._memory.reads = set()
        trace = self.walk(task)
        reads, self._memory.reads = self._memory.reads, None
        if trace.end is End.STOPPED or not all(frame.mark.is_sure for frame in trace.frames):
            return None
        stacks = stacks_of(self._linux, task, trace.cpu if trace.running else None)
        self._returns += [frame.ip for frame in trace.frames if frame.kind is FrameKind.CALL]
        self._stack_addresses += [frame.sp for frame in trace.frames if frame.kind is not FrameKind.USER]
        return Undamaged(trace, stacks, self._words(trace, stacks, reads))

    # Words

    def _words(self, trace: StackTrace, stacks: Sequence[Stack], reads: Iterable[int]) -> dict[WordKind, list[int]]:
        kinds: dict[int, WordKind] = {}
        for address, kind in self._named_words(trace):
            kinds.setdefault(address, kind)
        for address in reads:
            by_place = self._kind_by_place(address, trace.task, stacks)
            if by_place is not None:
                kinds.setdefault(address, by_place)
        for stack in stacks:
            used = [frame.sp for frame in trace.frames if stack.holds(frame.sp)]
            for address in range(min(used) & -WORD, stack.end, WORD) if used else ():
                kinds.setdefault(address, WordKind.OTHER_OF_STACK)

        found: dict[WordKind, list[int]] = defaultdict(list)
        for address, kind in sorted(kinds.items()):
            found[kind].append(address)
        return found

    def _named_words(self, trace: StackTrace) -> Iterator[tuple[int, WordKind]]:
        types = self._linux.types
        yield trace.task + types.offset("task_struct", "thread.sp"), WordKind.THREAD_SP
        if not trace.running:
            sp = self._linux.member("task_struct", "thread.sp", trace.task)
            layout, _ = inactive_frame(self._linux)
            for name, offset in layout.items():
                yield sp + offset, _OF_INACTIVE.get(name, WordKind.INACTIVE_OTHER)
        for frame, caller in zip(trace.frames, trace.frames[1:], strict=False):
            yield from self._words_of_step(frame, caller)

    @staticmethod
    def _words_of_step(frame: Frame, caller: Frame) -> Iterator[tuple[int, WordKind]]:
        slot = frame.return_slot
        if slot is not None and caller.kind is FrameKind.CALL:
            yield slot, WordKind.RETURN_SLOT
        elif slot is not None:
            whose = "USER" if caller.kind is FrameKind.USER else "KERNEL"
            is_whole = "r15" in caller.registers
            layout, begin = (PT_REGS, slot - PT_REGS["rip"]) if is_whole else (IRET_FRAME, slot)
            for name, offset in layout.items():
                kind = f"{whose}_{_OF_SAVED.get(name, 'OTHER')}"
                yield (
                    begin + offset,
                    WordKind.ORIG_AX
                    if name == "orig_rax"
                    else (WordKind[kind] if kind in WordKind.__members__ else WordKind[f"{whose}_OTHER"]),
                )

        row = None if frame.entry is None else frame.entry.row
        if row is not None and frame.cfa is not None and row.bp_reg is OrcRegister.PREV_SP:
            yield frame.cfa + row.bp_offset & U64, WordKind.SAVED_RBP
        if frame.stack is StackKind.IRQ and caller.stack is StackKind.TASK and caller.kind is FrameKind.CALL:
            # The last word of the interrupt stack has the stack pointer that was left.
            yield (frame.sp | 0xFFF) + 1 - WORD, WordKind.STACK_LINK

    def _kind_by_place(self, address: int, task: int, stacks: Sequence[Stack]) -> WordKind | None:
        if any(stack.holds(address) for stack in stacks):
            return WordKind.OTHER_OF_STACK
        if task <= address < task + self._linux.types.size("task_struct"):
            return WordKind.TASK_STRUCT
        if self._is_of_image(address):
            return None
        for cpu in range(self._linux.cpu_limit()):
            if any(stack.holds(address) for stack in cpu_stacks(self._linux, cpu)):
                return WordKind.CPU_STACK
            area = self._linux.per_cpu_offset(cpu)
            start, end = (self._linux.find_address(f"__per_cpu_{which}") for which in ("start", "end"))
            if start is not None and end is not None and start + area & U64 <= address < end + area & U64:
                return WordKind.PER_CPU
        return None if self._terrain.code.is_text(address) else WordKind.RECORD

    def _is_of_image(self, address: int) -> bool:
        start, end = self._linux.find_address("_text"), self._linux.find_address("_end")
        return start is not None and end is not None and start <= address < end

    # Damage

    def choose(self, walks: Sequence[Undamaged]) -> tuple[Undamaged, Damage] | None:
        """A word of one of the walks, each kind of word as likely as any other; None where a replacement is the same."""
        kinds = sorted({kind for walk in walks for kind in walk.words}, key=lambda kind: kind.value)
        kind = self._random.choice(kinds)
        walk = self._random.choice([walk for walk in walks if kind in walk.words])
        address = self._random.choice(walk.words[kind])
        change = self._random.choice(list(Change))
        self._memory.word = None
        before = read_u64(self._kernel.memory, address)
        after = self._replacement(change, before, address, walk)
        return None if after == before else (walk, Damage(address, kind, change, before, after))

    def _replacement(self, change: Change, before: int, address: int, walk: Undamaged) -> int:
        random, stack = self._random, next((s for s in walk.stacks if s.holds(address)), walk.stacks[0])
        match change:
            case Change.OTHER_RETURN:
                return random.choice(self._returns or self._functions_of_image())
            case Change.OTHER_FUNCTION:
                return random.choice(self._functions_of_image())
            case Change.NEAR:
                return before + random.choice((-8, 8)) & U64
            case Change.BIT:
                return before ^ 1 << random.randrange(64)
            case Change.SAME_STACK:
                return random.randrange(stack.begin, stack.end, WORD)
            case Change.OTHER_STACK:
                return random.choice(self._stack_addresses or [walk.stacks[0].end - WORD])
            case Change.OTHER_WORD:
                used = [frame.sp for frame in walk.trace.frames if stack.holds(frame.sp)]
                return read_u64(
                    self._kernel.memory, random.randrange(min(used, default=stack.begin) & -8, stack.end, 8)
                )
            case Change.ZERO:
                return 0
            case Change.GARBAGE:
                return random.getrandbits(64)

    def _functions_of_image(self) -> list[int]:
        if not self._functions:
            code, linux = self._terrain.code, self._linux
            start, end = linux.address("_stext"), linux.address("_etext")
            while len(self._functions) < 500:
                place = code.locate(self._random.randrange(start, end))
                if place is not None and place.is_text:
                    self._functions += [place.start, place.start + self._random.randrange(max(place.size, 1))]
        return self._functions

    def try_word(self, walk: Undamaged, damage: Damage, account: Account) -> Outcome:
        """Damages a word, walks, and counts what came of it."""
        self._memory.address, self._memory.word = damage.address, damage.after.to_bytes(WORD, "little")
        try:
            after = self.walk(walk.trace.task)
        except OrcdbgError:
            account.note(damage, Outcome.REFUSED)
            return Outcome.REFUSED
        finally:
            self._memory.word = None
        outcome, why = self._outcome(walk.trace, after, damage)
        account.note(damage, outcome)
        if outcome is Outcome.NAMED:
            account.named[why] += 1
        elif outcome is Outcome.WRONG:
            account.wrong.append(self._described(walk.trace, after, damage, why))
        return outcome

    def _outcome(self, before: StackTrace, after: StackTrace, damage: Damage) -> tuple[Outcome, str]:
        true = places(before)
        wrong = [f for f in after.frames if f.mark.is_sure and (f.ip, f.sp) not in true]
        doubted = after.end is End.STOPPED or not all(frame.mark.is_sure for frame in after.frames)
        if not wrong and doubted:
            return Outcome.MARKED, ""
        if places(after) == true:
            return Outcome.SAME, ""
        named = self._named_class(before, after, damage)
        if named is not None:
            return Outcome.NAMED, named.value
        return Outcome.WRONG, "a wrong frame" if wrong else "callers lost"

    def _named_class(self, before: StackTrace, after: StackTrace, damage: Damage) -> NamedClass | None:
        """Why damage cannot be told from the truth: the ip of one frame is another, and everything else is the same."""
        different = [
            (was, shown)
            for was, shown in zip(before.frames, after.frames, strict=False)
            if (was.ip, was.sp) != (shown.ip, shown.sp)
        ]
        if len(before.frames) != len(after.frames) or len(different) != 1:
            return None
        ((was, shown),) = different
        if was.kind is not shown.kind:
            return None
        if was.kind is FrameKind.USER:
            is_of_vdso = shown.came_from is None and damage.kind is WordKind.RECORD  # where sysenter will go on
            return NamedClass.USER if is_of_vdso or damage.kind in (WordKind.USER_IP, WordKind.USER_SP) else None
        if was.ip == shown.ip and damage.kind is WordKind.KERNEL_SP and shown.sp == damage.after:
            return NamedClass.ALIGNED if was.sp & -16 == shown.sp & -16 else None
        if was.sp != shown.sp or shown.ip != damage.after:
            return None

        below, calls = after.frames[shown.index - 1], self._terrain.evidence.calls
        if was.kind is not FrameKind.CALL:
            is_same = was.location is not None and was.location == shown.location
            if shown.index + 1 < len(after.frames) and shown.location is not None:
                caller = after.frames[shown.index + 1]
                is_same = is_same or calls.leads_to(caller.ip, shown.location) is not False
            return NamedClass.SAME_FUNCTION if is_same and damage.kind is WordKind.KERNEL_IP else None
        if damage.kind not in (WordKind.RETURN_SLOT, WordKind.INACTIVE_IP) or below.location is None:
            return None
        leads = calls.leads_to(shown.ip, below.location)
        if leads:
            return NamedClass.SAME_CALLEE
        return NamedClass.BY_POINTER if leads is None and self._terrain.code.call_target(shown.ip) is None else None

    def _described(self, before: StackTrace, after: StackTrace, damage: Damage, why: str) -> str:
        names = self._kernel.names.describe
        head = (
            f"{why}: {damage.kind.value} at {damage.address:#x} of {before.comm}: {names(damage.before)} "
            f"{damage.before:#x} -> {names(damage.after)} {damage.after:#x} ({damage.change.value}), end {after.end.value}"
        )
        true = places(before)
        lines = [head]
        lines += [f"  was   {f.sp:x} {names(f.ip)} {f.kind.value} slot {f.return_slot or 0:x}" for f in before.frames]
        lines += [
            f"  shows {f.sp:x} {names(f.ip)} {f.mark.value} {'' if (f.ip, f.sp) in true else 'WRONG'}"
            for f in after.frames
        ]
        return "\n".join(lines)


def places(trace: StackTrace) -> list[tuple[int, int]]:
    """ip and stack pointer of each frame."""
    return [(frame.ip, frame.sp) for frame in trace.frames]


def damage_words(damager: Damager, walks: Sequence[Undamaged], count: int) -> Account:
    """Damages so many words of these walks."""
    account = Account()
    while account.words < count:
        try:
            chosen = damager.choose(walks)
        except MemoryFault:
            continue
        if chosen is not None:
            damager.try_word(*chosen, account)
    return account
