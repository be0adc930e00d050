"""What do an image and a snapshot together make: one stopped kernel, ready to be asked?

Everything is built on first use, so that a question costs only what it needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from orcdbg.base.errors import MemoryFault, Mismatch, NotFound, OrcdbgError
from orcdbg.base.reading import AddressSpace, read_cstring
from orcdbg.base.walks import Budget
from orcdbg.formats.callframe import Row
from orcdbg.formats.elf import SHF_EXECINSTR
from orcdbg.image.debug_files import candidates
from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.exception_table import ExceptionTable
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.modules import module_orc, orc_budget
from orcdbg.kernel.names import Names
from orcdbg.kernel.tasks import Task, list_tasks
from orcdbg.orc.check import CheckReport
from orcdbg.orc.effective import Effective
from orcdbg.orc.image_table import image_layout, image_table, sp_indirect_adds_last
from orcdbg.orc.layout import LayoutChoice
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.rules.entry_code import saving_functions
from orcdbg.orc.rules.lost_tables import UnlistedPatches
from orcdbg.orc.rules.return_trampolines import ReturnTrampolines
from orcdbg.orc.rules.undefined_rows import UnstatedFunctions
from orcdbg.orc.table import OrcEntry, OrcTable
from orcdbg.patches.audit.account import AuditReport, Replayed
from orcdbg.patches.audit.core_text import audit_kernel, replayed_kernel
from orcdbg.patches.journal import Journal, JournalLedger, check_journal
from orcdbg.patches.ledger import Cluster, PatchLedger
from orcdbg.patches.mechanisms.jump_labels import branches_between
from orcdbg.patches.mechanisms.relocation import BuiltText
from orcdbg.patches.module_sites import ModuleSites
from orcdbg.patches.replay import Build, all_passes, lasting_passes, stack_passes
from orcdbg.patches.site import PatchPass
from orcdbg.patches.text import PatchedText
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.own_cpus import own_cpus
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import Placement, find_placement
from orcdbg.symbols.btf import Btf, StructIndex
from orcdbg.symbols.kallsyms import vmlinux_symbols
from orcdbg.symbols.table import SymbolTable
from orcdbg.unwind.judge.calls import AsLinked, Calls
from orcdbg.unwind.judge.evidence import Evidence
from orcdbg.unwind.judge.pointers import Constants, Pointers, constant_bounds
from orcdbg.unwind.registers.finder import RegisterFinder
from orcdbg.unwind.registers.saves import FunctionSaves
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.unwind.walker import Terrain
from orcdbg.x86.branches import LONGEST_CALL, direct_call_target, ends_with_call

_NO_IMAGE = (
    "no image: names, types and ORC rows are those in the snapshot's memory; the tables of patched places are not there, "
    "so corrections follow from instructions, and `patch` has nothing to compare with"
)
MakePasses = Callable[[Build], Sequence[PatchPass]]
# What stays, whatever memory does.
_OF_IMAGE = frozenset(["symbols", "types", "built", "text_ranges", "orc_layout", "orc_table", "debug"])


class Session:
    """A stopped kernel.

    Args:
        image: the vmlinux.
        snapshot: the stopped machine.
        slide: run-time minus link address, where the user knows better than the snapshot.
        phys_base: physical address of the image base, likewise.
        extra_passes: patch mechanisms of plug-ins, run after the built-in ones.
        mapped: the kernel's place and memory, where somebody else reads that by virtual address.

    Raises:
        Mismatch: the image is of another kernel.
        OrcdbgError: the kernel cannot be found in the snapshot.
    """

    def __init__(
        self,
        image: Image,
        snapshot: Snapshot,
        slide: int | None = None,
        phys_base: int | None = None,
        extra_passes: Sequence[MakePasses] = (),
        mapped: tuple[Placement, KernelMemory] | None = None,
    ) -> None:
        self._extra_passes = extra_passes
        self.journal: Journal | None = None
        self.image = image
        self.snapshot = snapshot
        self.warnings: list[str] = list(snapshot.warnings)
        self._refuse_other_build()
        if mapped is not None:
            self.placement, self.memory = mapped
        else:
            place = self.placement = find_placement(snapshot, self.link_address, slide, phys_base, self._built_banner)
            self.memory = KernelMemory(snapshot.physical, place.root, place.levels, place.sme_mask)
        self.slide = self.placement.slide
        self._check_banner()
        if image.is_memory:
            self.warnings.append(_NO_IMAGE)

    def move(self, snapshot: Snapshot) -> None:
        """Forgets all that was read from memory: the machine ran on, and is now as `snapshot` says."""
        self.snapshot = snapshot
        self.memory.forget()
        for name, made in vars(type(self)).items():
            if isinstance(made, functools.cached_property) and name not in _OF_IMAGE:
                vars(self).pop(name, None)

    def link_address(self, name: str) -> int | None:
        """The link address of a symbol of the image, None where it has none of that name."""
        symbol = self.symbols.find(name)
        return None if symbol is None else symbol.address

    def _refuse_other_build(self) -> None:
        """Compares build-ids, before anything else is believed."""
        theirs, ours = self.snapshot.vmcoreinfo.get("BUILD-ID"), self.image.build_id
        if theirs and ours and theirs.strip().lower() != ours:
            raise Mismatch("build-id", ours, theirs.strip())

    def _built_banner(self) -> bytes:
        link = self.link_address("linux_banner")
        return b"" if link is None else read_cstring(self.image, link, 512)

    def _check_banner(self) -> None:
        """Reads the kernel's banner back from where it must be."""
        symbol = self.symbols.find("linux_banner")
        if symbol is None:
            return
        built = read_cstring(self.image, symbol.address, 512).decode("latin-1").strip()
        try:
            found = read_cstring(self.memory, symbol.address + self.slide, 512).decode("latin-1").strip()
        except MemoryFault as error:
            self.warnings.append(f"the kernel's banner cannot be read, so the image is unchecked: {error}")
            return
        if found != built:
            shown = found if found.startswith("Linux version") else "not found where it should be"
            release = self.snapshot.vmcoreinfo.get("OSRELEASE")
            raise Mismatch("banner", built, f"{shown} (OSRELEASE {release})" if release else shown)

    @property
    def files(self) -> tuple[str, ...]:
        """What is read: image and snapshot, of several files the first, and where a split-off debug file may be."""
        try:
            debug_files = [str(path) for path, _ in candidates(self.image, self.image.debug_folders)]
        except OrcdbgError:
            debug_files = []  # the image is damaged where it would name one, so none is read
        return self.image.path, self.snapshot.path, *debug_files

    @functools.cached_property
    def symbols(self) -> SymbolTable:
        """The image's symbols, at link addresses."""
        return vmlinux_symbols(self.image)

    @functools.cached_property
    def types(self) -> StructIndex:
        """The kernel's structures."""
        return Btf(self.image.section_data(".BTF"), f"{self.image.path}: .BTF").structs

    @functools.cached_property
    def linux(self) -> Linux:
        """The kernel's variables and members by name."""
        return Linux(self.memory, self.symbols, self.types, self.slide)

    @functools.cached_property
    def names(self) -> Names:
        """Names of addresses."""
        return Names(self.linux)

    @functools.cached_property
    def features(self) -> Features:
        """CPU feature bits."""
        return Features(self.linux)

    @functools.cached_property
    def _task_list(self) -> tuple[list[Task], list[str]]:
        return list_tasks(self.linux)

    @property
    def tasks(self) -> list[Task]:
        """All tasks, the swappers first."""
        return self._task_list[0]

    @property
    def task_problems(self) -> list[str]:
        """What could not be read of the task list."""
        return self._task_list[1]

    def task(self, which: int) -> Task:
        """The task with that pid, or whose task_struct is at that address; NotFound without."""
        for task in self.tasks:
            if which in (task.pid, task.address):
                return task
        raise NotFound("task", str(which) if which < 1 << 32 else f"{which:#x}", "`ps` lists them")

    @functools.cached_property
    def built(self) -> BuiltText:
        """Text as built, at run-time addresses."""
        return BuiltText(self.image, self.slide)

    @functools.cached_property
    def build(self) -> Build:
        """What the passes of the kernel over its own text draw on."""
        return Build(self.image, self.linux, self.built, self.features)

    @functools.cached_property
    def _extra(self) -> list[PatchPass]:
        return [one for make in self._extra_passes for one in make(self.build)]

    @functools.cached_property
    def passes(self) -> list[PatchPass]:
        """Every pass of the kernel over its own text, in order."""
        if self.image.is_memory:
            return lasting_passes(self.build)
        return all_passes(self.build) + self._extra

    @functools.cached_property
    def ledger(self) -> PatchLedger | JournalLedger:
        """All patch sites; without an image, which is what they are told by, those of a journal, or none."""
        if self.journal is not None:
            return JournalLedger(self.journal.clusters)
        if self.image.is_memory:
            return PatchLedger([], self.built)
        return PatchLedger(self.passes, self.built)

    @functools.cached_property
    def stack_ledger(self) -> PatchLedger | JournalLedger:
        """The patch sites where the stack pointer may move otherwise than as built; what a walk needs, at a walk's price."""
        if self.journal is not None:
            return JournalLedger(self.journal.stack)
        return PatchLedger(stack_passes(self.build) + self._extra, self.built)

    def apply_journal(self, journal: Journal) -> None:
        """Takes patches from a journal where there is no image to tell them by; errors as of `check_journal`."""
        check_journal(
            journal, self.snapshot.vmcoreinfo.get("BUILD-ID") or self.image.build_id, self.slide, self.is_image_text
        )
        if self.image.is_memory:
            self.journal = journal
            self.warnings.remove(_NO_IMAGE)  # which it was given for its image
            self.warnings.append(
                f"no image: names, types and ORC rows are those in memory, patches those in {journal.path}"
            )
        else:
            self.warnings.append(f"{journal.path}: not used: the image and the snapshot tell the patches themselves")

    def need_patches(self) -> None:
        """Raises NotFound where nothing tells what was patched."""
        if self.journal is None:
            self.need_image("what was patched")

    def need_image(self, what: str) -> None:
        """Raises NotFound where there is no image, and says what is not known without."""
        if self.image.is_memory:
            hint = "give the vmlinux or vmlinuz of this kernel besides the snapshot"
            raise NotFound("image", f"the snapshot alone does not tell {what}", hint)

    def check(self) -> CheckReport:
        """Compares, at every boundary inside patched sites, the kernel's rows with the instructions; modules too."""
        self.need_image("which places were patched")
        report = CheckReport([])
        start, end = self.build.text
        core = (one for one in self.stack_ledger.clusters() if start <= one.address < end and one.sites)
        report.look_at(core, self.text, self.overlay.stated)
        for module in self.names.modules:
            report.look_at(self.module_sites.of(module), self.text, self.overlay.stated)
        return report

    def audit(self) -> AuditReport:
        """Compares the kernel's text in memory with what it must be."""
        self.need_image("what its text must be")
        return audit_kernel(self.build, self.built, self.passes)

    def replayed(self) -> Replayed:
        """The kernel's text as all passes leave it."""
        self.need_image("what its text must be")
        return replayed_kernel(self.build, self.built, self.passes)

    @functools.cached_property
    def text(self) -> PatchedText:
        """Kernel text as it ran: memory, or the replay where memory is not in the snapshot."""
        return PatchedText(self.memory, (self.ledger, self.stack_ledger), self.built, self.is_text)

    @functools.cached_property
    def text_ranges(self) -> list[tuple[int, int]]:
        """Run-time [start, end) of the image's executable sections that return addresses can point into."""
        sections = self.image.sections
        code = [s for s in sections if s.flags & SHF_EXECINSTR and s.name in (".text", ".init.text")]
        return [(s.address + self.slide, s.end + self.slide) for s in code]

    def is_image_text(self, address: int) -> bool:
        """True for a run-time address in the image's code."""
        return any(start <= address < end for start, end in self.text_ranges)

    def is_text(self, address: int) -> bool:
        """True for an address in code: the image's, a module's, or code that the kernel made."""
        if self.is_image_text(address):
            return True
        if not address >> 63:
            return False
        return self.names.module_at(address) is not None or self.names.made.at(address) is not None

    @functools.cached_property
    def orc_layout(self) -> LayoutChoice:
        """The kernel's ORC layout, and what decided it."""
        choice = image_layout(self.image, self.types)
        if choice.warning:
            self.warnings.append(choice.warning)
        return choice

    @functools.cached_property
    def orc_table(self) -> OrcTable:
        """The image's ORC table."""
        return image_table(self.image, self.orc_layout.layout, self.slide)

    @functools.cached_property
    def _module_tables(self) -> dict[int, OrcTable | None]:
        return {}

    @functools.cached_property
    def _module_rows(self) -> Budget:
        """What the ORC tables of all modules draw on."""
        return orc_budget()

    def find_orc(self, address: int) -> OrcEntry | None:
        """The ORC entry the kernel itself would find for a run-time address."""
        if self.is_image_text(address):
            return self.orc_table.find(address)
        module = self.names.module_at(address)
        if module is None:
            return None
        if module.address not in self._module_tables:
            try:
                ips, ips_at, rows, rows_at = module_orc(self.linux, module, self._module_rows)
                layout = self.orc_layout.layout
                table = OrcTable(f"module {module.name}", ips, ips_at, rows, rows_at, layout)
            except OrcdbgError as error:
                self.warnings.append(f"module {module.name}: no ORC table: {error}")
                table = None
            self._module_tables[module.address] = table
        found = self._module_tables[module.address]
        return None if found is None else found.find(address)

    @functools.cached_property
    def module_sites(self) -> ModuleSites:
        """Patch sites of modules, by their tables in memory."""
        return ModuleSites(self.linux, self.image.section_data(".altinstructions"))

    def _stack_cluster(self, address: int) -> Cluster | None:
        """What a walk must know of patches at an address: of the image's text, or of a module's."""
        found = self.stack_ledger.find(address)
        if found is not None or self.is_image_text(address):
            return found
        module = self.names.module_at(address)
        return None if module is None else self.module_sites.find(module, address)

    @functools.cached_property
    def overlay(self) -> OrcOverlay:
        """ORC rows corrected for patched text."""
        return self._overlay_over(self.memory)

    def _overlay_over(self, memory: AddressSpace) -> OrcOverlay:
        adds_last = sp_indirect_adds_last(self.linux)
        unstated = UnstatedFunctions(
            memory, self.built, self.names.at, self.find_orc, self.linux.find_address("__fentry__"), self._call_frame
        )
        return OrcOverlay(
            self.find_orc,
            self._stack_cluster,
            memory,
            adds_last,
            self.names.at,
            saving_functions(self.linux.find_address),
            self.return_trampolines,
            self.names.made.at,
            UnlistedPatches(self.memory, self._is_lasting_text) if self.image.is_memory and not self.journal else None,
            unstated,
        )

    @functools.cached_property
    def return_trampolines(self) -> ReturnTrampolines:
        """The code whose address stands in for return addresses that tracers and kretprobes keep."""
        return ReturnTrampolines(self.linux, self.memory)

    def _is_lasting_text(self, address: int) -> bool:
        """True for an address in core text that the boot does not give back."""
        section = self.image.section_at(address - self.slide)
        return section is not None and section.name == ".text"

    @property
    def _code_spaces(self) -> tuple[AddressSpace, AddressSpace]:
        """Text as run and as built. In memory without an image init text is neither: the boot has given it back."""
        as_linked = AsLinked(self.image, self.slide)
        return (as_linked if self.image.is_memory else self.memory, as_linked)

    def follows_call(self, address: int) -> bool | None:
        """Whether a call instruction, as run or as built, ends at `address`; None where neither text is to be had."""
        answers = []
        spaces: list[tuple[AddressSpace, int]] = [(self.image, address - self.slide)]
        if not self.image.is_memory:
            spaces.append((self.memory, address))
        for space, at in spaces:
            try:
                answers.append(ends_with_call(space.read(at - LONGEST_CALL, LONGEST_CALL)))
            except MemoryFault:
                continue
        return any(answers) if answers else None

    def call_target(self, address: int) -> int | None:
        """Where the direct call that ends at `address` goes; None where there is no such call."""
        return direct_call_target(self.text, address)

    @functools.cached_property
    def terrain(self) -> Terrain:
        """What walks go over."""
        rewritten = self.return_trampolines.by_start
        return Terrain(
            self.memory,
            self.overlay,
            self.names.at,
            self.is_text,
            self.follows_call,
            self.call_target,
            rewritten,
            evidence=self._evidence(self.memory, *self._code_spaces),
        )

    def _evidence(self, memory: AddressSpace, text: AddressSpace, built: AddressSpace) -> Evidence:
        """What judges walks over stacks in `memory`, and over text as run and as built."""
        spaces = (self.memory, AsLinked(self.image, self.slide))
        calls = Calls(text, built, self.names.at, ExceptionTable(self.linux, spaces))
        constants = Constants(self.memory, self.image, constant_bounds(self.linux), self.slide)
        pointers = Pointers((text, built), constants.read, self.names.at)
        finder = RegisterFinder(memory, None, lambda ip, exact: self.function_saves.row(ip, exact))  # made when needed
        return Evidence(calls, (pointers, finder))

    def terrain_over(self, memory: AddressSpace) -> Terrain:
        """What walks go over where memory, text included, is another: that of an emulated CPU."""

        def follows_call(address: int) -> bool | None:
            try:
                return ends_with_call(memory.read(address - LONGEST_CALL, LONGEST_CALL)) or self.follows_call(address)
            except MemoryFault:
                return self.follows_call(address)

        evidence = self._evidence(memory, memory, self.built)
        overlay = self._overlay_over(memory)
        return replace(self.terrain, memory=memory, overlay=overlay, follows_call=follows_call, evidence=evidence)

    def unwinder_over(self, memory: AddressSpace, terrain: Terrain) -> Unwinder:
        """Walks stacks in another memory, with that memory's tasks."""
        linux = Linux(memory, self.symbols, self.types, self.slide)
        return Unwinder(linux, terrain, self.cpus, self.return_trampolines)

    @functools.cached_property
    def cpus(self) -> Sequence[CpuState]:
        """The recorded CPUs that run this kernel."""
        text = self.link_address("_text")
        return own_cpus(self.snapshot, self.placement, None if text is None else text + self.slide)

    @functools.cached_property
    def unwinder(self) -> Unwinder:
        """Walks stacks."""
        return Unwinder(self.linux, self.terrain, self.cpus, self.return_trampolines)

    @functools.cached_property
    def function_saves(self) -> FunctionSaves:
        """Where functions keep their callers' registers, by their instructions."""

        def effective(address: int) -> Effective:
            return self.overlay.at(address, True)

        def branches(start: int, end: int) -> dict[int, int]:
            return branches_between(self.passes, start, end)

        return FunctionSaves(self.text, self.built, effective, self.names.at, self.names.starts_of, branches)

    @functools.cached_property
    def debug(self) -> DebugInfo:
        """The image's debugging information, at link addresses."""
        return DebugInfo(self.image, self.warnings.append)

    def _call_frame(self, address: int) -> Row | None:
        """Call frame information for a run-time address; None where the image has none."""
        table = self.debug.call_frames if self.is_image_text(address) else None
        return None if table is None else table.row(address - self.slide)

    @functools.cached_property
    def register_finder(self) -> RegisterFinder:
        """Restores callee-saved registers of stacks that were walked."""

        def by_table(ip: int, exact: bool) -> Row | None:
            return self._call_frame(ip if exact else ip - 1)

        return RegisterFinder(
            self.memory, by_table if self.debug.call_frames is not None else None, self.function_saves.row
        )
