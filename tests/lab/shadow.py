"""What must be on a CPU's stacks while it is stepped? Every call that it made and has not returned from, and what was before.

The calls are followed by the instructions themselves and not by any table: each that pushed a return address adds one,
each `ret` takes one away. Below them lies what was known when the stepping began: the code that an exception interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orcdbg.base.errors import OrcdbgError
from orcdbg.kernel.stacks import task_registers, task_stack
from orcdbg.kernel.tasks import current_task
from orcdbg.unwind.frame import NEW_TASK, End, Frame, StackTrace
from orcdbg.unwind.reasons import NothingConfirms
from orcdbg.views.reasons import words_or_none
from orcdbg.x86.instructions import Instruction, decode_one
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE
from tests.lab.gdbstub import StubError
from tests.lab.live import LiveKernel

Place = tuple[int, int]  # ip and stack pointer
Values = dict[str, int]
LOOP_BYTES = 64  # a call this short within a function is one of the tricks that fill the return stack buffer
WAIT, HITS, LIMIT = 30.0, 300, 900
HANDLERS = ("asm_exc_", "asm_sysvec_", "asm_common_interrupt")


class Made(NamedTuple):
    """A call: where its return address was pushed; or an exception, without a slot: the ip that it interrupted."""

    slot: int | None
    ip: int
    is_trick: bool = False


class Shadow:
    """Follows one CPU from the first instruction of an entry to its end.

    Args:
        live: the stopped guest.
        known: what the entry interrupted, innermost first.
        allowed: ips that may stand between the calls and what is known.
    """

    def __init__(self, live: LiveKernel, known: Sequence[Place], allowed: Sequence[int] = ()) -> None:
        self._live = live
        self.known = list(known)
        self._allowed = set(allowed)
        self._made: list[Made] = []
        address = live.session.linux.address
        self.entry_text = range(address("__entry_text_start"), address("__entry_text_end"))
        self.unsure: list[str] = []
        self.stops = 0
        self.frames = self.sure = 0  # of all that was judged
        self.is_left = False

    def step(self) -> Values:
        """One instruction, and the registers after it."""
        stub = self._live.stub
        before = stub.read_registers()
        insn = self._instruction(before["rip"])
        stub.step()
        after = stub.read_registers()
        if insn is not None:
            self._follow(insn, before, after)
        return after

    def _instruction(self, ip: int) -> Instruction | None:
        self._live.session.memory.forget()
        try:
            return decode_one(self._live.session.memory.read(ip, 15), ip)
        except OrcdbgError:
            return None  # at the end of a page of text

    def _follow(self, insn: Instruction, before: Values, after: Values) -> None:
        place = self._live.session.names.at(after["rip"])
        is_start = place is not None and place.start == after["rip"]
        is_branch = insn.is_call or insn.target is not None or (insn.ends_flow and insn.mnemonic not in ("int3", "ud2"))
        if insn.mnemonic.startswith(("iret", "sysret")):
            while self._made and self._made.pop().slot is not None:
                pass
            self.is_left = not self._made and after["rip"] not in self._allowed
        elif not is_branch and is_start and place is not None and place.symbol.startswith(HANDLERS):
            # The CPU pushed the address of the instruction or, after int3 and single steps, of the next; maybe an error code.
            pushed = read_words(self._live, after["rsp"], 2)
            self._made.append(Made(None, next((w for w in pushed if w in (before["rip"], insn.end)), before["rip"])))
        elif insn.is_call and after["rsp"] == before["rsp"] - 8:
            own = self._live.session.names.at(before["rip"])
            is_near = 0 <= after["rip"] - insn.end < LOOP_BYTES
            is_trick = own is not None and place is not None and own.start == place.start and is_near
            self._made.append(Made(before["rsp"] - 8, insn.end, is_trick))
        elif insn.mnemonic.startswith("ret") and self._made:
            last = self._made[-1]
            if last.slot == before["rsp"] or last.ip == after["rip"]:
                self._made.pop()
        while self._made and self._made[-1].is_trick and (self._made[-1].slot or 0) < after["rsp"]:
            self._made.pop()

    def judge(self) -> None:
        """Asks for the stack and compares: all is there, or a word says that it may not be; nothing sure is wrong."""
        trace = self._live.trace()
        self.stops += 1
        names = self._live.session.names.describe
        where, frames = names(trace.frames[0].ip), self._callers(trace)
        self.frames += len(trace.frames)
        self.sure += sum(frame.mark.is_sure for frame in trace.frames)
        active = [made.ip for made in reversed(self._made) if not made.is_trick]
        wrong = [frame for frame in frames if not self._is_true(frame, active)]
        shown = [(frame.kind, frame.stack, names(frame.ip), hex(frame.sp)) for frame in frames]
        known = [(names(ip), hex(sp)) for ip, sp in self.known]
        odd = [(names(frame.ip), hex(frame.sp)) for frame in wrong]
        assert odd == [], (where, odd, "known:", known, "called:", [names(ip) for ip in active], "shown:", shown)
        places, count = [(frame.ip, frame.sp) for frame in frames], len(self.known)
        own = [ip for ip, _ in places[: len(places) - count] if ip not in self._allowed]
        is_whole = places[-count:] == self.known and own == active
        # What speaks against a step comes before what only follows from that.
        doubts = sorted(
            (f.doubt for f in trace.frames if f.doubt), key=lambda doubt: isinstance(doubt, NothingConfirms)
        )
        reasons = [trace.end_reason] * (trace.end == End.STOPPED) + doubts
        assert is_whole or reasons, (where, shown, [names(ip) for ip in active], self.known)
        if reasons:
            self.unsure.append(f"{where}: {words_or_none(reasons[0])}")

    def _callers(self, trace: StackTrace) -> Sequence[Frame]:
        """The frames that calls and exceptions have made."""
        return trace.frames[1:]

    def _is_true(self, frame: Frame, active: Sequence[int]) -> bool:
        if not frame.reliable or frame.doubt:
            return True
        return (frame.ip, frame.sp) in self.known or frame.ip in active or frame.ip in self._allowed

    def follow(self, most: int) -> Values:
        """To the end of the entry. Entry code is judged at each instruction, other code at the first `most` of a stretch."""
        self.judge()
        elsewhere = 0
        for _ in range(LIMIT):
            registers = self.step()
            if self.is_left:
                return registers
            elsewhere = 0 if registers["rip"] in self.entry_text else elsewhere + 1
            if elsewhere > most:
                self._run_out()
                elsewhere = 0
            self.judge()
        raise AssertionError(f"no end of it: {self._live.session.names.describe(registers['rip'])}")

    def watch(self, steps: int) -> None:
        """So many instructions from anywhere, each judged."""
        self.judge()
        for _ in range(steps):
            self.step()
            if self.is_left:
                return
            self.judge()

    def _run_out(self) -> None:
        """Lets the guest run to where the outermost call of entry code comes back."""
        number, made = next(
            (number, made)
            for number, made in enumerate(self._made)
            if made.slot is not None and self._is_entry(made.ip)
        )
        stub = self._live.stub
        stub.set_breakpoint(made.ip)
        try:
            self._wait_for(made)
        finally:
            stub.clear_breakpoint(made.ip)
        del self._made[number:]
        if not self._made:
            # On top are the registers that will be restored: a signal, a probe or a fixed-up fault has changed them.
            words = read_words(self._live, stub.read_registers()["rsp"], PT_REGS_SIZE // 8)
            self.known[0] = (words[PT_REGS["rip"] // 8], words[PT_REGS["rsp"] // 8])

    def _wait_for(self, made: Made) -> None:
        """Lets the guest run until the call comes back in the task that made it."""
        stub = self._live.stub
        for _ in range(HITS):
            if not stub.resume(WAIT):
                raise StubError("nothing came back to entry code")
            # error_entry gives its return address another place, and on the way from user mode another stack.
            if abs(stub.read_registers()["rsp"] - (made.slot or 0)) <= PT_REGS_SIZE + 8:
                return
            stub.skip_breakpoint(made.ip)
        raise StubError(f"other tasks came back to entry code {HITS} times, and this one did not")

    def _is_entry(self, ip: int) -> bool:
        place = self._live.session.names.at(ip)
        return ip in self.entry_text or (place is not None and place.symbol in NEW_TASK)


def user_place(live: LiveKernel, cpu: int = 0) -> Place:
    """Where the task that a CPU runs will be in user mode, by the registers at the top of its stack."""
    linux = live.session.linux
    live.session.memory.forget()
    stack = task_stack(linux, current_task(linux, cpu) or 0)
    assert stack is not None
    words = read_words(live, task_registers(linux, stack), PT_REGS_SIZE // 8)
    return words[PT_REGS["rip"] // 8], words[PT_REGS["rsp"] // 8]


def read_words(live: LiveKernel, address: int, count: int) -> list[int]:
    """So many words of kernel memory."""
    live.session.memory.forget()
    data = live.session.memory.read(address, 8 * count)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
