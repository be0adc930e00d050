"""How are the stacks of thousands of sleeping tasks walked together, one depth at a time?

All stacks take their n-th step at once: each distinct ip is judged a single time, by the functions that the careful walk
asks, and the step itself is arithmetic over arrays. A stack that needs care anywhere (a corrected rule, a doubt, a rewritten
return address, a missing page, saved registers of the kernel) is left out as a whole, and its owner walks it alone: what
is found here is what `Walker` finds, or nothing (decision 16).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.reading import AddressSpace, U64Array, read_memory_pieces
from orcdbg.base.sizes import U64
from orcdbg.kernel.stacks import StackKind, bytes_at_top
from orcdbg.orc.effective import AsBuilt
from orcdbg.orc.rows import OrcRegister, RowType
from orcdbg.unwind.batch.equal_stacks import EqualStacks, Level, SharedFrames, StacksOfBatch
from orcdbg.unwind.frame import NEW_TASK, End, Frame, FrameKind
from orcdbg.unwind.judge.evidence import Witness
from orcdbg.unwind.saved_registers import USER_CS
from orcdbg.unwind.walker import Terrain, explained
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
MAX_STACK_BYTES = 4096  # of one stack that are looked at; a task that sleeps deeper is walked alone
MAX_DEPTH = 96
BATCH = 8192
_CARE, _CALL, _REGISTERS, _END = range(4)
_KEPT, _BELOW_CFA, _BY_BP = range(3)
# Rows in numbers, which arrays are computed with; what is not listed needs care.
_KIND_OF = {RowType.CALL: _CALL, RowType.REGS: _REGISTERS}
_BP_KIND_OF = {OrcRegister.UNDEFINED: _KEPT, OrcRegister.PREV_SP: _BELOW_CFA, OrcRegister.BP: _BY_BP}
_CS, _SS = PT_REGS["cs"] // 8, PT_REGS["ss"] // 8


class Sleeper(NamedTuple):
    """A task that was switched out: `sp` is its saved stack pointer, [begin, end) its stack."""

    sp: int
    begin: int
    end: int
    is_kernel_thread: bool


class Found(NamedTuple):
    """A walk that needed no care: its frames, and how it ended."""

    frames: SharedFrames
    end: End


class _SavedPointer(NamedTuple):
    """What an indirect call tells, with the place of the register that it went by: a distance from the stack's end."""

    witness: Witness
    offset: int


class _Step(NamedTuple):
    """What an ip says: how to come from its frame to the caller, and the frame as far as the ip decides it."""

    kind: int
    by_bp: bool
    offset: int
    bp_kind: int
    bp_offset: int
    prototype: Frame


def _is_usable(sleeper: Sleeper) -> bool:
    """Whether a stack is one: words, in kernel memory, used no deeper than is looked at here."""
    sp, begin, end, _ = sleeper
    return sp % 8 == end % 8 == 0 and begin >> 63 == 1 and begin <= sp < end <= sp + MAX_STACK_BYTES


class _Stacks:
    """The used part of each stack, read once."""

    def __init__(self, memory: AddressSpace, sleepers: Sequence[Sleeper]) -> None:
        self.sp = np.array([s.sp for s in sleepers], dtype=np.uint64)
        self.end = np.array([s.end for s in sleepers], dtype=np.uint64)
        self.kernel_thread: Mask = np.array([s.is_kernel_thread for s in sleepers], dtype=bool)
        self._first = np.zeros(len(sleepers), dtype=np.intp)
        self._known: Mask = np.zeros(len(sleepers), dtype=bool)
        total, kept = 0, list[bytes]()
        usable = [number for number, sleeper in enumerate(sleepers) if _is_usable(sleeper)]
        used = [sleepers[number] for number in usable]
        pieces = read_memory_pieces(memory, [s.sp for s in used], [s.end - s.sp for s in used])
        for number, data in zip(usable, pieces, strict=True):
            if data is not None:
                kept.append(data)
                self._first[number], self._known[number] = total, True
                total += len(data) // 8
        self._words = np.frombuffer(b"".join(kept), dtype="<u8")

    def holds(self, members: Indices, addresses: U64Array, size: int) -> Mask:
        """Which of the `size` bytes at `addresses` are on the used part of the members' stacks, on a word boundary."""
        inside = (addresses >= self.sp[members]) & (addresses <= self.end[members] - np.uint64(size))
        held: Mask = self._known[members] & inside & (addresses % np.uint64(8) == 0)
        return held

    def words(self, members: Indices, addresses: U64Array) -> U64Array:
        """The words at `addresses`, which must be held."""
        distance = (addresses - self.sp[members]) // np.uint64(8)
        found: U64Array = self._words[self._first[members] + distance.astype(np.intp)]
        return found


class _Column(NamedTuple):
    """One depth, over all members: what stands there for those that came so far."""

    ip: U64Array
    sp: U64Array
    cfa: U64Array
    bp: U64Array
    bp_slot: U64Array


class _Walk:
    """The walk of one batch: who is still on the way, and where."""

    def __init__(self, count: int) -> None:
        self.columns: list[_Column] = []
        self.lengths = np.zeros(count, dtype=np.intp)
        self.user = np.zeros((count, PT_REGS_SIZE // 8), dtype=np.uint64)
        self.is_user: Mask = np.zeros(count, dtype=bool)
        self.alive: Indices = np.empty(0, dtype=np.intp)
        self.ip: U64Array = np.empty(0, dtype=np.uint64)
        self.sp = self.bp = self.ip
        self._count = count

    def note(self, cfa: U64Array, bp_slot: U64Array) -> None:
        """Adds a depth: of each that is on the way, where it stands and what its frame says of its caller."""
        column = _Column(*(np.zeros(self._count, dtype=np.uint64) for _ in range(5)))
        for target, values in zip(column, (self.ip, self.sp, cfa, self.bp, bp_slot), strict=True):
            target[self.alive] = values
        self.columns.append(column)

    def arrive(self, members: Indices) -> None:
        """These are at their end."""
        self.lengths[members] = len(self.columns)


class Lockstep:
    """Walks many stacks of one snapshot together.

    Args:
        terrain: what the careful walk goes over.
        layout: where `struct inactive_task_frame` keeps each register.
        size: that structure's size.
        is_start: whether a task that is not new can have been switched out with this saved ip.
    """

    def __init__(self, terrain: Terrain, layout: Mapping[str, int], size: int, is_start: Callable[[int], bool]) -> None:
        self._terrain = terrain
        self._bytes_at_top = np.uint64(bytes_at_top(terrain.code.linux))
        self._layout = layout
        self._size = size
        self._is_start = is_start
        self._steps: dict[int, _Step] = {}
        self._returns: dict[int, bool] = {}
        self._starts: dict[int, bool] = {}
        self._shapes: dict[bytes, EqualStacks | None] = {}
        self._witnesses: dict[EqualStacks, list[_SavedPointer]] = {}

    def walk(self, sleepers: Sequence[Sleeper]) -> list[Found | None]:
        """For each task what its walk found, None where it needs the careful walk."""
        found: list[Found | None] = []
        for first in range(0, len(sleepers), BATCH):
            found += self._walk_batch(sleepers[first : first + BATCH])
        return found

    def _walk_batch(self, sleepers: Sequence[Sleeper]) -> list[Found | None]:
        stacks, walk = _Stacks(self._terrain.code.memory, sleepers), _Walk(len(sleepers))
        everyone = np.arange(len(sleepers))
        walk.alive = everyone[stacks.holds(everyone, stacks.sp, self._size)]
        saved = {name: self._saved(stacks, walk.alive, offset) for name, offset in self._layout.items()}
        walk.ip, walk.bp = saved["rip"][walk.alive], saved["rbp"][walk.alive]
        walk.sp = stacks.sp[walk.alive] + np.uint64(self._size)
        _keep(walk, _judged(walk.ip, self._starts, self._is_start))
        while len(walk.alive) and len(walk.columns) < MAX_DEPTH:
            self._step_all(stacks, walk)
        batch = StacksOfBatch(stacks.end, saved, [column.bp for column in walk.columns], walk.user)
        return self._results(stacks, walk, batch)

    def _saved(self, stacks: _Stacks, alive: Indices, offset: int) -> U64Array:
        out = np.zeros(len(stacks.sp), dtype=np.uint64)
        out[alive] = stacks.words(alive, stacks.sp[alive] + np.uint64(offset))
        return out

    def _step_all(self, stacks: _Stacks, walk: _Walk) -> None:
        """One step of every stack that is on the way; those that arrive, or need care, leave."""
        distinct, which = np.unique(walk.ip, return_inverse=True)
        steps = [self._step(ip) for ip in distinct.tolist()]
        kind = np.array([step.kind for step in steps])[which]
        offset = np.array([step.offset & U64 for step in steps], dtype=np.uint64)[which]
        bp_kind = np.array([step.bp_kind for step in steps])[which]
        bp_offset = np.array([step.bp_offset & U64 for step in steps], dtype=np.uint64)[which]
        alive = walk.alive
        cfa = np.where(np.array([step.by_bp for step in steps])[which], walk.bp, walk.sp) + offset
        cfa[kind == _END] = 0
        bp_slot = np.where(bp_kind == _BY_BP, walk.bp, cfa) + bp_offset
        saves = (kind == _CALL) & (bp_kind != _KEPT)
        bp_slot[~saves] = 0
        walk.note(cfa, bp_slot)

        at_top = stacks.end[alive] - walk.sp == self._bytes_at_top
        walk.arrive(alive[(kind == _END) & at_top & stacks.kernel_thread[alive]])
        in_user = (kind == _REGISTERS) & stacks.holds(alive, cfa, PT_REGS_SIZE)
        self._arrive_in_user(stacks, walk, alive[in_user], cfa[in_user])

        goes_on = (kind == _CALL) & stacks.holds(alive, cfa - np.uint64(8), 8) & (cfa > walk.sp)
        goes_on &= ~saves | stacks.holds(alive, bp_slot, 8)
        _keep(walk, goes_on)
        cfa, bp_slot, saves = cfa[goes_on], bp_slot[goes_on], saves[goes_on]
        walk.ip = stacks.words(walk.alive, cfa - np.uint64(8))
        walk.bp[saves] = stacks.words(walk.alive[saves], bp_slot[saves])
        walk.sp = cfa
        _keep(walk, _judged(walk.ip, self._returns, self._can_return_to))

    def _arrive_in_user(self, stacks: _Stacks, walk: _Walk, members: Indices, cfa: U64Array) -> None:
        """Ends walks at saved registers that are those of user mode beyond doubt."""
        for number in range(PT_REGS_SIZE // 8):
            walk.user[members, number] = stacks.words(members, cfa + np.uint64(8 * number))
        cs, ss = walk.user[members, _CS] & np.uint64(0xFFFF), walk.user[members, _SS]
        sure = members[np.isin(cs, np.array(USER_CS, dtype=np.uint64)) & (ss & np.uint64(3) == 3)]
        walk.is_user[sure] = True
        walk.arrive(sure)

    def _can_return_to(self, ip: int) -> bool:
        """Whether the careful walk takes this return address, and sees nothing to doubt in it."""
        code = self._terrain.code
        if ip in self._terrain.overlay.returns.by_start or not (code.is_text(ip) or code.is_text(ip - 1)):
            return False
        return code.follows_call(ip) is not False

    def _step(self, ip: int) -> _Step:
        if ip not in self._steps:
            self._steps[ip] = self._new_step(ip)
        return self._steps[ip]

    def _new_step(self, ip: int) -> _Step:
        effective = self._terrain.overlay.at(ip, False)
        bare = Frame(0, FrameKind.CALL, StackKind.TASK, ip, False, self._terrain.code.locate(ip - 1), {})
        frame = explained(bare, effective)
        care = _Step(_CARE, False, 0, _KEPT, 0, frame)
        if not isinstance(effective, AsBuilt) or frame.doubt is not None:
            return care
        row, rule = effective.entry.row, effective.rule
        if row.type is RowType.END_OF_STACK:
            is_first = frame.location is not None and frame.location.symbol in NEW_TASK
            return _Step(_END if is_first else _CARE, False, 0, _KEPT, 0, frame)
        kind, bp_kind = _KIND_OF.get(row.type, _CARE), _BP_KIND_OF.get(row.bp_reg)
        if rule is None or not (rule.counts_from_sp or rule.counts_from_bp) or bp_kind is None:
            return care
        return _Step(kind, rule.counts_from_bp, rule.offset, bp_kind, row.bp_offset, frame)

    def _results(self, stacks: _Stacks, walk: _Walk, batch: StacksOfBatch) -> list[Found | None]:
        """The finished walks, each with the shape that it shares with its equals."""
        found: list[Found | None] = [None] * len(walk.lengths)
        for length in np.unique(walk.lengths[walk.lengths > 0]).tolist():
            members = np.flatnonzero(walk.lengths == length)
            key = _key(walk.columns[:length], members, stacks)
            _, firsts, which = np.unique(key, return_index=True, return_inverse=True)
            shapes = [self._shape(key[i].tobytes(), int(members[i]), length, walk, stacks) for i in firsts]
            for number, shape in enumerate(shapes):
                if shape is None:
                    continue
                if shape not in self._witnesses:
                    self._witnesses[shape] = self._saved_pointers(
                        SharedFrames(shape, batch, int(members[firsts[number]]))
                    )
                end = End.USER if shape.ends_in_user else End.KTHREAD
                for member in self._unrefuted(shape, members[which == number], stacks, walk).tolist():
                    found[member] = Found(SharedFrames(shape, batch, member), end)
        return found

    def _shape(self, key: bytes, member: int, length: int, walk: _Walk, stacks: _Stacks) -> EqualStacks | None:
        """What the members with this key share; None where their frames do not bear each other out."""
        if key not in self._shapes:
            shape = self._new_shape(member, length, walk, stacks)
            self._shapes[key] = shape if self._is_borne_out(shape) else None
        return self._shapes[key]

    def _saved_pointers(self, frames: SharedFrames) -> list[_SavedPointer]:
        """Where stacks of one shape keep the registers that their indirect calls went through."""
        evidence, shape = self._terrain.evidence, frames.shape
        calls = [level.prototype for level in shape.levels]
        witnesses = evidence.witnesses(calls)
        if not witnesses:
            return []
        whole, found = frames[: len(calls)], list[_SavedPointer]()
        for witness in witnesses:
            saved = evidence.saved(witness, whole)
            if saved is not None:
                start = shape.start + shape.layout[witness.read.register]
                found.append(_SavedPointer(witness, start if saved.slot is None else saved.slot - frames.top))
        return found

    def _unrefuted(self, shape: EqualStacks, members: Indices, stacks: _Stacks, walk: _Walk) -> Indices:
        """Those of the members whose indirect calls went where their frames say, as far as what they saved tells."""
        evidence = self._terrain.evidence
        for witness, offset in self._witnesses[shape]:
            slots = stacks.end[members] + np.uint64(offset & U64)
            is_held = stacks.holds(members, slots, 8)
            members, slots = members[is_held], slots[is_held]
            is_bp = witness.read.register == "rbp"
            values = walk.columns[witness.depth].bp[members] if is_bp else stacks.words(members, slots)
            stands = {value: evidence.refuted(witness, value) is None for value in set(values.tolist())}
            members = members[np.array([stands[value] for value in values.tolist()], dtype=bool)]
        return members

    def _is_borne_out(self, shape: EqualStacks) -> bool:
        frames, last = [level.prototype for level in shape.levels], shape.levels[-1]
        depths = [None if level.cfa is None else level.cfa - level.sp for level in shape.levels]
        gap = None if last.cfa is None or not shape.ends_in_user else -last.cfa - PT_REGS_SIZE
        return self._terrain.evidence.is_plain(frames, depths, gap)

    def _new_shape(self, member: int, length: int, walk: _Walk, stacks: _Stacks) -> EqualStacks:
        """What `member` has in common with every stack of the same key."""
        top, start = int(stacks.end[member]), int(stacks.sp[member])
        levels: list[Level] = []
        came_from = start + self._size - 8
        for number, column in enumerate(walk.columns[:length]):
            ip, sp, cfa, _, bp_slot = (int(values[member]) for values in column)
            frame, is_last = self._steps[ip].prototype, number == length - 1
            if levels:
                frame = self._terrain.evidence.with_tail_call(levels[-1].prototype, frame)
            slot = cfa + (PT_REGS["rip"] if is_last else -8)
            has_caller = bool(walk.is_user[member]) or not is_last
            levels.append(
                Level(
                    frame,
                    came_from - top,
                    sp - top,
                    cfa - top if has_caller else None,
                    slot - top if has_caller else None,
                    bp_slot - top if bp_slot else None,
                )
            )
            came_from = slot
        return EqualStacks(tuple(levels), start - top, self._layout, bool(walk.is_user[member]))


def _keep(walk: _Walk, mask: Mask) -> None:
    """Leaves on the way those that `mask` says."""
    walk.alive = walk.alive[mask]
    walk.ip, walk.sp, walk.bp = walk.ip[mask], walk.sp[mask], walk.bp[mask]


def _judged(ips: U64Array, known: dict[int, bool], judge: Callable[[int], bool]) -> Mask:
    """Which ips pass, each distinct one judged once."""
    distinct, which = np.unique(ips, return_inverse=True)
    for ip in distinct.tolist():
        if ip not in known:
            known[ip] = judge(ip)
    verdicts: Mask = np.array([known[ip] for ip in distinct.tolist()], dtype=bool)[which]
    return verdicts


def _key(columns: Sequence[_Column], members: Indices, stacks: _Stacks) -> npt.NDArray[np.void]:
    """One value a member, equal for those whose walks differ in nothing but the stack's place and what it saved."""
    top = stacks.end[members]
    words = [stacks.sp[members] - top]
    for column in columns:
        cfa, slot = column.cfa[members], column.bp_slot[members]
        words += [column.ip[members], np.where(cfa == 0, cfa, cfa - top), np.where(slot == 0, slot, slot - top)]
    rows = np.ascontiguousarray(np.stack(words, axis=1))
    return rows.view(np.dtype((np.void, rows.shape[1] * 8))).ravel()
