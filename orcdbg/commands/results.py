"""What do commands answer with, before it becomes text or JSON?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orcdbg.image.source_position import Position
from orcdbg.kernel.modules import Module
from orcdbg.kernel.tasks import Task
from orcdbg.orc.check import CheckReport
from orcdbg.orc.effective import Effective
from orcdbg.orc.table import OrcEntry, OrcTable
from orcdbg.orc.union import UnionTable
from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.site import PatchSite
from orcdbg.patches.text import TextSource
from orcdbg.unwind.frame import Frame, Registers, StackTrace


class Result(Protocol):
    """Any answer. Views know each kind; a plug-in's own kind brings `to_json` and `to_text`."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A command that has nothing to say."""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain lines, such as help."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Stacks:
    """Stack traces, in the order asked for; `syscalls` names the system call a task is in, by task address.

    `positions` are places in the source by the address that a frame is looked up at; empty where none were asked for.
    """

    stacks: Sequence[StackTrace]
    syscalls: Mapping[int, str] = field(default_factory=dict)
    problems: Sequence[str] = ()
    positions: Mapping[int, Position] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrameDetail:
    """One frame with everything behind it: `sites` cover its ip, `memory` is their text as it is now, None if missing."""

    trace: StackTrace
    frame: Frame
    base_register: str | None
    sites: Sequence[PatchSite]
    memory: bytes | None
    instructions: Sequence[Instruction]
    bp_rule: str | None
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class FrameRegisters:
    """The registers known in one frame, and why the callee-saved ones among the others are not."""

    frame: Frame
    registers: Registers
    unknown: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OrcAnswer:
    """The ORC row for an address and the rule that holds there."""

    address: int
    symbol: str | None
    entry: OrcEntry | None
    effective: Effective
    bp_rule: str | None


@dataclass(frozen=True, slots=True)
class SiteState:
    """A patch site and the bytes that are there now, None where the snapshot lacks them."""

    site: PatchSite
    memory: bytes | None
    symbol: str | None


@dataclass(frozen=True, slots=True)
class Sites:
    """Patch sites in order of address, then in the order in which the kernel applied them."""

    sites: Sequence[SiteState]
    total: int


@dataclass(frozen=True, slots=True)
class Check:
    """Boundaries where the kernel's ORC rows do not hold; `symbols` names them by address."""

    report: CheckReport
    symbols: Mapping[int, str | None]
    exit_status: int


@dataclass(frozen=True, slots=True)
class StaticCheck:
    """The same of a vmlinux alone, over all alternatives of each site."""

    union: UnionTable
    symbols: Mapping[int, str | None]
    exit_status: int


@dataclass(frozen=True, slots=True)
class Union:
    """The rows that would describe all alternatives of each site."""

    union: UnionTable
    symbols: Mapping[int, str | None]


@dataclass(frozen=True, slots=True)
class OrcDump:
    """A whole ORC table."""

    table: OrcTable
    layout: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The account of all text: the kernel's own, and each module's by name.

    `symbols` names the wrong stretches by address, `unaudited` says of which module's text there is no account, and why.
    """

    kernel: AuditReport
    modules: Mapping[str, AuditReport]
    symbols: Mapping[int, str | None]
    unaudited: Mapping[str, str]
    exit_status: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """A replayed text that was written to a file, and the places in it whose bytes are not known."""

    path: str
    address: int
    size: int
    symbols: int
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a disassembly. `image` is what the build had there, None where it is the same."""

    address: int
    raw: bytes
    mnemonic: str
    operands: str
    location: str | None
    symbol: str | None
    offset: int | None
    image: bytes | None
    rule: str | None
    stated_rule: str | None
    site: PatchSite | None
    adjust: int
    site_image: str | None


@dataclass(frozen=True, slots=True)
class Disassembly:
    """Instructions in order of address; `source` says whether they are from memory or replayed.

    `positions` are places in the source by address; empty where none were asked for.
    """

    instructions: Sequence[Instruction]
    source: TextSource
    show_image: bool
    positions: Mapping[int, Position] = field(default_factory=dict)
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SymbolLine:
    """One symbol: `size` up to the next one."""

    address: int
    letter: str
    name: str
    offset: int
    size: int
    module: str | None


@dataclass(frozen=True, slots=True)
class Symbols:
    """Symbols that were asked for."""

    symbols: Sequence[SymbolLine]


@dataclass(frozen=True, slots=True)
class Words:
    """Memory as words of `width` bytes."""

    address: int
    width: int
    data: bytes
    names: Sequence[str | None] | None


@dataclass(frozen=True, slots=True)
class Tasks:
    """A task list; `absent` are names of `Task` fields that this kernel lacks."""

    tasks: Sequence[Task]
    running: frozenset[int]
    problems: Sequence[str]
    absent: Sequence[str]


@dataclass(frozen=True, slots=True)
class Modules:
    """Loaded modules."""

    modules: Sequence[Module]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of `sys`: a label, its value (None when it cannot be told) and why it is absent."""

    key: str
    label: str
    value: str | int | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """What is known of the whole machine."""

    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings and the selected task."""

    values: Mapping[str, str]
    task: Task | None
    cpu: int | None
    frame: int
