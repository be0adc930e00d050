"""Where does an emulated CPU stand: at which instruction, by which rule, whose patch, called by whom?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.commands.instructions import ListedInstruction, line_at
from orcdbg.commands.steps import SteppedPlace
from orcdbg.emulation.emulator import Emulator, Limits
from orcdbg.emulation.motions import Motions
from orcdbg.emulation.pages import Page, PageSource
from orcdbg.emulation.start import Start, gs_base
from orcdbg.kernel.tasks import Task
from orcdbg.orc.site_versions import Version
from orcdbg.patches.ledger import Cluster
from orcdbg.target.session import Session
from orcdbg.unwind.frame import FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.walker import MAX_FRAMES, State

MAX_PAGES, MAX_SECONDS = 1 << 20, 86_400
MAX_FUNCTION = 1 << 16  # bytes of a function before an instruction that are gone through to show those next to it
_IN_A_LINE = 2  # frames that a line of a trace tells of


def limits(settings: Mapping[str, str]) -> Limits:
    """The limits that the settings ask for."""
    pages, instructions, seconds = (int(settings[f"step-{name}"]) for name in ("pages", "instructions", "seconds"))
    return Limits(min(max(pages, 1), MAX_PAGES), max(instructions, 1), min(max(seconds, 1), MAX_SECONDS))


class Emulation:
    """One emulation of a session: the machine, what walks go over, and what was shown last.

    Args:
        session: the stopped kernel.
        task: whose stacks are walked.
        start: the registers it begins with.
        source: where those are from, in words.
        bounds: how far it may go.
        version: the text of a patch site that stands in place of the one that ran, if any.
        previous: an emulation whose memory this one goes on with.
        frame: which frame of the task was selected.
    """

    def __init__(
        self,
        session: Session,
        task: Task,
        start: Start,
        source: str,
        bounds: Limits,
        version: Version | None = None,
        previous: Emulation | None = None,
        frame: int = 0,
    ) -> None:
        self.begun_at = (task.address, frame)
        self.session, self._previous = session, previous
        self.task, self.start, self.source, self.version = task, start, source, version
        running = session.unwinder.running.get(task.address)
        self.cpu = running[0] if running else task.cpu
        base = gs_base(session.linux, self.cpu or 0, running[1] if running else None)
        self._pages = PageSource(session.memory, session.code)
        self.emulator = Emulator(self._page, session.is_text, start.registers, base, bounds, start.words)
        self.motions = Motions(self.emulator)
        self._instructions: dict[int, ListedInstruction] = {}
        self._unwinder = session.kernel.unwinder_over(self.emulator.memory)
        self._overlay = self._unwinder.terrain.overlay
        self.shown: Mapping[str, int] = self.emulator.registers()

    def _page(self, address: int) -> Page:
        """A page of the kernel, with the version of the site that was asked for."""
        page = self._pages.page(address)
        if self._previous is not None and not self.session.is_text(address):
            return replace(page, data=self._previous.emulator.memory.read(address, PAGE))
        one = self.version
        if one is None or one.address + len(one.text) <= address or one.address >= address + PAGE:
            return page
        data = bytearray(page.data)
        low, high = max(one.address, address), min(one.address + len(one.text), address + PAGE)
        data[low - address : high - address] = one.text[low - one.address : high - one.address]
        unknown = tuple(span for span in page.unknown if span[1] <= low or span[0] >= high)
        return replace(page, data=bytes(data), unknown=unknown, physical=None)

    def trace(self, most: int = MAX_FRAMES) -> StackTrace:
        """The stack of the emulated CPU, or its innermost frames."""
        values = {name: RegisterValue(value, "emulated") for name, value in self.emulator.registers().items()}
        state = State(self.emulator.ip, True, values, FrameKind.INTERRUPT, None)
        return self._unwinder.from_state(self.task, state, "emulated", most)

    def place(self, changed: Mapping[str, int], trace: StackTrace | None = None) -> SteppedPlace:
        """Where the CPU stands; `changed` as in SteppedPlace."""
        frames = (trace or self.trace(_IN_A_LINE)).frames
        return SteppedPlace(
            self.instruction(self.emulator.ip), frames[0], frames[1] if len(frames) > 1 else None, changed
        )

    def instruction(self, address: int) -> ListedInstruction:
        """The instruction at an address, with what is behind it; text does not change while it is run."""
        found = self._instructions.get(address)
        if found is None:
            found = line_at(self.session, self.emulator.memory, address, self._overlay)
            self._instructions[address] = found
        return found

    def rules(self, addresses: Iterable[int]) -> dict[int, str | None]:
        """The CFA rules that hold at addresses, in the text of this emulation."""
        found = {address: self._overlay.at(address, True).rule for address in addresses}
        return {address: str(rule) if rule else None for address, rule in found.items()}

    def changes(self, before: Mapping[str, int]) -> dict[str, int]:
        """The registers that are not as they were, rip aside."""
        now = self.emulator.registers()
        return {name: value for name, value in now.items() if value != before.get(name) and name != "rip"}

    def site(self, address: int) -> Cluster:
        """The patch site that covers an address, else the function's next one whose stack effect may differ."""
        session = self.session
        found = session.stack_ledger.find(address)
        if found is None:
            place = session.names.at(address)
            end = place.start + place.size if place else address
            found = next(iter(session.stack_ledger.between(address, end)), None)
        if found is None:
            raise OrcdbgError(f"no patch site from {address:#x} to its function's end", "--site ADDR names one")
        return found

    def around(self, before: int, after: int) -> list[ListedInstruction]:
        """The instructions next to where the CPU stands."""
        ip = self.emulator.ip
        location = self.session.names.at(ip)
        # A false module may have one symbol, a gigabyte before.
        at = location.start if location and ip - location.start <= MAX_FUNCTION else ip
        earlier: list[ListedInstruction] = []
        later: list[ListedInstruction] = []
        try:
            while len(later) < after:
                line = self.instruction(at)
                (earlier if at < ip else later).append(line)
                at = line.address + len(line.raw)
        except MemoryFault:
            pass  # text that cannot be had ends the list
        return earlier[-before:] + later


def with_version(old: Emulation, version: Version | None) -> Emulation:
    """An emulation from where another stands, over another version of a site, with the same stops."""
    start = replace(old.start, registers=old.emulator.registers(), words=None)
    _, frame = old.begun_at
    new = Emulation(old.session, old.task, start, old.source, old.emulator.limits, version, old, frame)
    new.motions.breakpoints, new.motions.watches = old.motions.breakpoints, old.motions.watches
    return new
