"""orcdbg decode: what does a printed report of the kernel say, with its vmlinux or without, and what does it not?"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orcdbg.analysis.findings import Finding, FindingKind
from orcdbg.analysis.printed_cause import printed_cause
from orcdbg.analysis.printed_death import PrintedDeath, printed_death
from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.commands.result import Result
from orcdbg.image.source_position import Position
from orcdbg.kernel.headlines import Headline, headlines
from orcdbg.kernel.oops import PrintedFrame, PrintedTrace, printed_traces
from orcdbg.kernel.oops_details import PrintedKernel, PrintedRegisters, printed_kernel, printed_registers
from orcdbg.kernel.pasted_log import PastedText, read_pasted
from orcdbg.target.module_debug import ModuleFolders
from orcdbg.target.printed_kernel import (
    CodeLine,
    GuessVerdict,
    PrintedImage,
    PrintedSlide,
    code_lines,
    judge_guesses,
)
from orcdbg.target.printed_modules import PrintedModules

# A log of sysrq-t has some hundred; the rest says so.
MAX_TRACES = 256


class OnlyDump(enum.Enum):
    """What a printed report does not tell and a dump would; the values are the JSON contract's words."""

    IMAGE = "image"
    SLIDE = "slide"
    RETURN_SLOTS = "return-slots"
    PATCHES = "patches"
    SLAB = "slab"
    LOADED_FROM = "loaded-from"
    WAITS = "waits"
    OTHER_CPUS = "other-cpus"
    PLANTED = "planted"


@dataclass(frozen=True, slots=True)
class DecodedLine:
    """A line of a trace.

    Attributes:
        printed: as it stands in the text.
        address: its link address; None without an image, or where the image cannot tell it.
        position: its place in the source, the functions inlined there too.
        verdict: what the image says of a line after a `?`; None for others.
    """

    printed: PrintedFrame
    address: int | None
    position: Position | None
    verdict: GuessVerdict | None


@dataclass(frozen=True, slots=True)
class DecodedTrace:
    """A trace with its lines."""

    trace: PrintedTrace
    lines: Sequence[DecodedLine]


@dataclass(frozen=True, slots=True)
class Decoded(Result):
    """A printed report.

    Attributes:
        kernel: whose it is, as far as it says.
        death: what it says that the kernel died of; `cause` is the same as a finding, where the text has its values.
        said: all that its lines announce.
        traces: all of them, in order.
        code: the instructions around the RIP of the death.
        image: the vmlinux's path; None without.
        slide: None where it cannot be known.
        names: of values of the death's registers that lie in the image, by register.
        only_dump: what a dump would tell besides.
        problems: what could not be had.
    """

    kernel: PrintedKernel
    death: PrintedDeath
    said: Sequence[Headline]
    traces: Sequence[DecodedTrace]
    cause: Finding | None = None
    code: Sequence[CodeLine] = ()
    image: str | None = None
    slide: PrintedSlide | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    only_dump: Sequence[OnlyDump] = ()
    problems: Sequence[str] = ()


def decode_report(
    data: bytes, image_path: str | None = None, module_folders: Sequence[str] = (), debug_folders: Sequence[str] = ()
) -> Decoded:
    """What a printed report says.

    Args:
        data: the text.
        image_path: a vmlinux; None for what can be said without.
        module_folders: where files of modules are.
        debug_folders: where debugging information is looked for that was split off.

    Raises:
        UnsupportedFormat: the text is none, or the image is none.
        NotFound: no report of the kernel is in it.
        NotThisBuild: the report is of another kernel than the image.
    """
    text = read_pasted(data)
    kernel = printed_kernel(text.records)
    said = list(headlines(text.records))
    traces = printed_traces(text.records)
    registers = printed_registers(text.records)
    if not said and not traces:
        raise NotFound(
            "report of the kernel", "in this text", "it takes an oops, a panic, a lockup, a hung task, a warning"
        )

    death = printed_death(said, traces, registers)
    folders = ModuleFolders()
    for folder in module_folders:
        folders.add_folder(folder)
    modules = PrintedModules(folders, kernel.releases)

    image = None if image_path is None else PrintedImage(image_path, debug_folders)
    if image is not None:
        image.refuse_others(kernel, [frame for trace in traces for frame in trace.frames if frame.sure])
    reader = _Reader(image, modules)
    decoded = [reader.trace(trace) for trace in traces[:MAX_TRACES]]
    slide = None if image is None else image.slide(kernel)
    code = reader.code(death.registers, None if slide is None else slide.value)
    at_rip = next((one.instruction for one in code if one.is_marked), None)
    return Decoded(
        kernel,
        death,
        said,
        decoded,
        printed_cause(death, said, at_rip),
        code,
        image_path,
        slide,
        _names(image, slide, death.registers),
        list(_only_dump(image, slide, death)),
        [*_problems(text, traces, image, kernel, slide, reader, modules), *_changed_code(code)],
    )


class _Reader:
    """Lines and code of a report, by an image where there is one."""

    def __init__(self, image: PrintedImage | None, modules: PrintedModules) -> None:
        self._image = image
        self._modules = modules
        self.problems: dict[str, None] = {}

    def trace(self, trace: PrintedTrace) -> DecodedTrace:
        """A trace with what the image says of each line."""
        verdicts = self._verdicts(trace)
        lines = [self._line(printed, verdicts.get(number)) for number, printed in enumerate(trace.frames)]
        return DecodedTrace(trace, lines)

    def _verdicts(self, trace: PrintedTrace) -> Mapping[int, GuessVerdict]:
        if self._image is None:
            return {}
        try:
            return judge_guesses(self._image, trace.frames)
        except OrcdbgError as error:
            self.problems[error.message] = None
            return {}

    def _line(self, printed: PrintedFrame, verdict: GuessVerdict | None) -> DecodedLine:
        before = 0 if printed.is_rip else 1
        if self._image is None or printed.module is not None:
            return DecodedLine(printed, None, self._modules.position(printed, before), None)
        try:
            address = self._image.address_of(printed)
            position = None if address is None else self._image.position(address - before)
        except OrcdbgError as error:
            self.problems[error.message] = None
            return DecodedLine(printed, None, None, verdict)
        return DecodedLine(printed, address, position, verdict)

    def code(self, registers: PrintedRegisters | None, slide: int | None) -> list[CodeLine]:
        """The instructions at RIP."""
        if registers is None or registers.code is None:
            return []
        rip = registers.rip
        offset = None if rip is None or rip.address is not None else rip.offset
        address = None if rip is None or self._image is None else self._image.address_of(rip)
        if self._image is None or address is None:
            return code_lines(registers.code, offset)
        try:
            return self._image.code(registers.code, address, slide)
        except OrcdbgError as error:
            self.problems[error.message] = None
            return code_lines(registers.code, offset)


def _names(
    image: PrintedImage | None, slide: PrintedSlide | None, registers: PrintedRegisters | None
) -> Mapping[str, str]:
    """Names of the values that lie in the image, by register."""
    if image is None or slide is None or registers is None:
        return {}
    found = {name: image.name_of(value - slide.value) for name, value in registers.values.items()}
    return {name: symbol for name, symbol in found.items() if symbol is not None}


# Kinds of which the slab allocator knows more, and of which who waits for whom does.
_OF_OBJECTS = (
    FindingKind.WILD_POINTER,
    FindingKind.NON_CANONICAL,
    FindingKind.GENERAL_PROTECTION,
    FindingKind.NULL_POINTER,
    FindingKind.LIST_CORRUPTION,
    FindingKind.REFCOUNT,
    FindingKind.BUG,
)
_OF_WAITS = (FindingKind.HUNG_TASK, FindingKind.SOFT_LOCKUP, FindingKind.HARD_LOCKUP, FindingKind.RCU_STALL)


def _only_dump(image: PrintedImage | None, slide: PrintedSlide | None, death: PrintedDeath) -> list[OnlyDump]:
    found = []
    if image is None:
        found.append(OnlyDump.IMAGE)
    elif slide is None:
        found.append(OnlyDump.SLIDE)
    found += [OnlyDump.RETURN_SLOTS, OnlyDump.PATCHES]
    if death.kind in _OF_OBJECTS:
        found += [OnlyDump.LOADED_FROM, OnlyDump.SLAB]
    if death.kind in _OF_WAITS:
        found.append(OnlyDump.WAITS)
    return [*found, OnlyDump.OTHER_CPUS, OnlyDump.PLANTED]


def _problems(
    text: PastedText,
    traces: Sequence[PrintedTrace],
    image: PrintedImage | None,
    kernel: PrintedKernel,
    slide: PrintedSlide | None,
    reader: _Reader,
    modules: PrintedModules,
) -> list[str]:
    found = list(text.problems)
    if len(traces) > MAX_TRACES:
        found.append(f"only the first {MAX_TRACES} of {len(traces)} traces are shown")
    if image is not None:
        found += image.problems
        if not kernel.releases:
            found.append(
                "the text names no release: that it is of this vmlinux is known by the sizes of functions alone"
            )
        if not image.has_lines:
            found.append(f"no source lines: {image.path}: it has no debugging information")
        if slide is None and kernel.offset is not None:
            found.append("the kernel's offset and the addresses in the text contradict each other")
    return [*found, *reader.problems, *modules.problems]


def _changed_code(code: Sequence[CodeLine]) -> list[str]:
    """What the code says against the image, or of a change of text."""
    unexplained = [one for one in code if one.built is not None and not one.mechanisms]
    if not unexplained:
        return []
    return [f"the code at RIP is not the image's in {len(unexplained)} instructions, where no patch is known"]
