"""What do an image and a snapshot together make: one stopped kernel, ready to be asked?

A session ties together what lasts (`BuiltKernel`) and what memory's moves undo (`StoppedKernel`), and gives both under
the names that are documented in docs/library.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault, Mismatch, NotFound, OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.image.debug_files import candidates
from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.kernel.tasks import Task
from orcdbg.orc.layout import LayoutChoice
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.kernel_code import KernelCode
from orcdbg.patches.kernel_patches import KernelPatches, MakePasses
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.text import PatchedText
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import vmcoreinfo_of_build
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import Placement, find_placement
from orcdbg.symbols.btf import StructIndex
from orcdbg.symbols.kallsyms import vmlinux_symbols
from orcdbg.symbols.table import SymbolTable
from orcdbg.target.built_kernel import BuiltKernel, built_banner
from orcdbg.target.stopped_kernel import StoppedKernel
from orcdbg.unwind.registers.finder import RegisterFinder
from orcdbg.unwind.unwinder import Unwinder

if TYPE_CHECKING:
    from orcdbg.patches.journal import Journal, JournalLedger
    from orcdbg.target.kernel_types import FoundTypes, TypeOptions
    from orcdbg.target.memory_parts import MemoryParts
    from orcdbg.target.module_debug import ModuleFolders
    from orcdbg.typed.objects import Object
    from orcdbg.typed.program import Program
    from orcdbg.typed.types import Type
    from orcdbg.variables.local_variables import LocalVariables

_NO_IMAGE = (
    "no image: names, types and ORC rows are those in the snapshot's memory; the tables of patched places are not there, "
    "so corrections follow from instructions, and `patch` has nothing to compare with"
)


class Session:
    """A stopped kernel.

    Args:
        image: the vmlinux.
        snapshot: the stopped machine.
        slide: run-time minus link address, where the user knows better than the snapshot.
        phys_base: physical address of the image base, likewise.
        extra_passes: patch mechanisms of plug-ins, run after the built-in ones.
        mapped: the kernel's place and memory, where somebody else reads that by virtual address.
        type_options: where the user says that types are which the image lacks.

    Attributes:
        image: the vmlinux, at link addresses.
        snapshot: the machine as it is now.
        symbols: the image's symbols, at link addresses.
        placement: where the kernel is.
        memory: kernel virtual memory.
        slide: run-time minus link addresses.
        warnings: what the user should know, in words.
        built_kernel: what lasts with the image.
        kernel: what is known of this stop; another object after each move.

    Raises:
        Mismatch: the image is of another kernel.
        OrcdbgError: the kernel, or its types, cannot be found.
    """

    def __init__(
        self,
        image: Image,
        snapshot: Snapshot,
        slide: int | None = None,
        phys_base: int | None = None,
        extra_passes: Sequence[MakePasses] = (),
        mapped: tuple[Placement, KernelMemory] | None = None,
        type_options: TypeOptions | None = None,
    ) -> None:
        self.image = image
        self.snapshot = snapshot
        self.symbols: SymbolTable = vmlinux_symbols(image)
        self.warnings: list[str] = list(snapshot.warnings)
        self._extra_passes = extra_passes
        self._journal: Journal | None = None
        self._module_folders: ModuleFolders | None = None

        self._refuse_other_build()
        if mapped is not None:
            self.placement, self.memory = mapped
        else:
            place = find_placement(self.snapshot, self.link_address, slide, phys_base, self._built_banner)
            self.placement = place
            self.warnings += [
                f"{source} is not used: the kernel's banner is not where it says, but where {place.source} says"
                for source in place.contradicted
            ]
            self.memory = KernelMemory(snapshot.physical, place.root, place.levels, place.sme_mask)
        self.slide = self.placement.slide
        self._check_banner()
        if image.is_memory:
            self.warnings.append(_NO_IMAGE)

        running = self.memory, self.snapshot.vmcoreinfo
        self.built_kernel = BuiltKernel(image, self.symbols, self.slide, self.warnings, type_options, running)
        self.kernel = self._stopped()

    def _stopped(self) -> StoppedKernel:
        """The kernel as memory is now."""
        return StoppedKernel(
            self.built_kernel,
            self.snapshot,
            self.placement,
            self.memory,
            self._extra_passes,
            self._journal,
            self.warnings,
            self._module_folders,
        )

    def add_module_folder(self, folder: str) -> None:
        """Takes the files of modules below a folder for their types, variables and source lines; UsageError without one."""
        self._named_module_files().add_folder(folder)

    def add_module_file(self, module: str, path: str) -> None:
        """Takes a file for a module's, before those of folders. Whether it is of the module's build is seen on first use."""
        self._named_module_files().add_file(module, path)

    def module_files(self, module: str) -> Sequence[Path] | None:
        """The files that were named for modules and may be this one's; None where none were named for any."""
        return None if self._module_folders is None else self._module_folders.of(module)

    def _named_module_files(self) -> ModuleFolders:
        """The list to add to; what was found out without the files may be otherwise with them."""
        if self._module_folders is None:
            from orcdbg.target.module_debug import ModuleFolders

            self._module_folders = ModuleFolders()
        self.kernel = self._stopped()
        return self._module_folders

    def move(self, snapshot: Snapshot) -> None:
        """Forgets all that was read from memory: the machine ran on, and is now as `snapshot` says."""
        self.snapshot = snapshot
        self.memory.forget()
        self.__dict__.pop("kernel_memory", None)
        self.kernel = self._stopped()

    def apply_journal(self, journal: Journal) -> None:
        """Takes patches from a journal where there is no image to tell them by; errors as of `check_journal`."""
        from orcdbg.patches.journal import check_journal

        build_id = self.snapshot.vmcoreinfo.get("BUILD-ID") or self.image.build_id
        check_journal(journal, build_id, self.slide, self.is_image_text)
        if not self.image.is_memory:
            self.warnings.append(f"{journal.path}: not used: the image and the snapshot tell the patches themselves")
            return
        self.warnings.remove(_NO_IMAGE)  # which it was given for its image
        self.warnings.append(
            f"no image: names, types and ORC rows are those in memory, patches those in {journal.path}"
        )
        self._journal = journal
        self.kernel = self._stopped()

    # Whether the files belong together

    def link_address(self, name: str) -> int | None:
        """The link address of a symbol of the image, None where it has none of that name."""
        symbol = self.symbols.find(name)
        return None if symbol is None else symbol.address

    def _refuse_other_build(self) -> None:
        """Compares build-ids, before anything else is believed; of several VMCOREINFOs the one of this build is taken."""
        theirs, ours = self.snapshot.vmcoreinfo.get("BUILD-ID"), self.image.build_id
        if not theirs or not ours or theirs.strip().lower() == ours:
            return
        own = vmcoreinfo_of_build(self.snapshot.notes, ours)
        if own is None:
            raise Mismatch("build-id", ours, theirs.strip())
        self.snapshot = replace(self.snapshot, vmcoreinfo=own)
        self.warnings.append(f"another VMCOREINFO is used than the first, which is of build {theirs.strip()}")

    def _built_banner(self) -> bytes:
        return built_banner(self.image, self.symbols)

    def _check_banner(self) -> None:
        """Reads the kernel's banner back from where it must be."""
        symbol = self.symbols.find("linux_banner")
        if symbol is None:
            return
        built = self._built_banner().decode("latin-1").strip()
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

    # What lasts

    @property
    def types(self) -> StructIndex:
        """The kernel's structures."""
        return self.built_kernel.types

    @property
    def found_types(self) -> FoundTypes:
        """The kernel's types, and where they are from."""
        return self.built_kernel.found_types

    @property
    def built(self) -> BuiltText:
        """Text as built, at run-time addresses."""
        return self.built_kernel.code.built

    @property
    def text_ranges(self) -> list[tuple[int, int]]:
        """Run-time [start, end) of the image's executable sections that return addresses can point into."""
        return self.built_kernel.code.ranges

    def is_image_text(self, address: int) -> bool:
        """True for a run-time address in the image's code."""
        return self.built_kernel.code.holds(address)

    @property
    def orc_layout(self) -> LayoutChoice:
        """The kernel's ORC layout, and what decided it."""
        return self.built_kernel.orc.choice

    @property
    def debug(self) -> DebugInfo:
        """The image's debugging information, at link addresses."""
        return self.built_kernel.debug

    @property
    def has_debug(self) -> bool:
        """Whether there is DWARF of the image, or files of modules that may have some."""
        return self.debug.file is not None or self._module_folders is not None

    # What memory tells

    @property
    def linux(self) -> Linux:
        """The kernel's variables and members by name."""
        return self.kernel.linux

    @property
    def names(self) -> Names:
        """Names of addresses."""
        return self.kernel.names

    @property
    def program(self) -> Program:
        """Typed data: variables and structures in memory as C sees them."""
        return self.kernel.program

    def object(self, type_: Type | str, address: int) -> Object:
        """What is at an address, as a type: `session.object("task_struct", address).comm.string_()`.

        Raises:
            NotFound: the kernel has no such type.
        """
        return self.program.object(type_, address)

    def variable(self, name: str, cpu: int | None = None, module: str | None = None) -> Object:
        """A variable of the kernel: `int(session.variable("runqueues", cpu=1).nr_running)`; errors as of `Program.variable`."""
        return self.program.variable(name, cpu, module)

    @functools.cached_property
    def kernel_memory(self) -> MemoryParts:
        """Pages, slab objects, vmalloc areas, stacks, user memory: `orcdbg.target.address_findings` asks them all."""
        from orcdbg.target.memory_parts import MemoryParts  # a walk needs none of it

        return MemoryParts(self)

    @property
    def features(self) -> Features:
        """CPU feature bits."""
        return self.kernel.features

    @property
    def tasks(self) -> list[Task]:
        """All tasks, the swappers first."""
        return self.kernel.task_list[0]

    @property
    def task_problems(self) -> list[str]:
        """What could not be read of the task list."""
        return self.kernel.task_list[1]

    def task(self, which: int) -> Task:
        """The task with that pid, or whose task_struct is at that address; NotFound without."""
        for task in self.tasks:
            if which in (task.pid, task.address):
                return task
        raise NotFound("task", str(which) if which < 1 << 32 else f"{which:#x}", "`ps` lists them")

    @property
    def patches(self) -> KernelPatches:
        """What the kernel wrote over its text, and who tells of it."""
        return self.kernel.patches

    @property
    def build(self) -> Build:
        """What the passes of the kernel over its own text draw on."""
        return self.kernel.patches.build

    @property
    def ledger(self) -> PatchLedger | JournalLedger:
        """All patch sites; without an image, which is what they are told by, those of a journal, or none."""
        return self.kernel.patches.ledger

    @property
    def stack_ledger(self) -> PatchLedger | JournalLedger:
        """The patch sites where the stack pointer may move otherwise than as built; what a walk needs, at a walk's price."""
        return self.kernel.patches.stack_ledger

    @property
    def code(self) -> KernelCode:
        """The kernel's code: what rules, walks and judges take of a session."""
        return self.kernel.code

    @property
    def text(self) -> PatchedText:
        """Kernel text as it ran: memory, or the replay where memory is not in the snapshot."""
        return self.kernel.code.text

    def is_text(self, address: int) -> bool:
        """True for an address in code: the image's, a module's, or code that the kernel made."""
        return self.kernel.code.is_text(address)

    def find_orc(self, address: int) -> OrcEntry | None:
        """The ORC entry the kernel itself would find for a run-time address."""
        return self.kernel.rows.find(address)

    @property
    def overlay(self) -> OrcOverlay:
        """ORC rows corrected for patched text."""
        return self.kernel.overlay

    @property
    def unwinder(self) -> Unwinder:
        """Walks stacks."""
        return self.kernel.unwinder

    @property
    def local_variables(self) -> LocalVariables:
        """Variables and arguments of frames: `session.local_variables.of(trace).of_frame(2)`."""
        return self.kernel.local_variables

    @property
    def register_finder(self) -> RegisterFinder:
        """Restores callee-saved registers of stacks that were walked."""
        return self.kernel.register_finder
