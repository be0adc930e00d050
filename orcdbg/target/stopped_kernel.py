"""What is known of a kernel at one stop, and which part of that needs which?

All of it is undone when the machine moves: a kernel that ran on is another `StoppedKernel` over the same `BuiltKernel`.
Parts are made on first use, each from the parts before it, so that a question costs only what it needs:

    linux -> names, features -> patches -> code -> rows -> overlay -> saves, terrain -> unwinder, register_finder
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.kernel.tasks import Task, list_tasks
from orcdbg.kernel.xen import is_xen_pv
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.tables import OrcTables
from orcdbg.patches.build import Build
from orcdbg.patches.kernel_code import KernelCode
from orcdbg.patches.kernel_patches import KernelPatches, MakePasses
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.own_cpus import own_cpus
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import Placement
from orcdbg.target.built_kernel import BuiltKernel
from orcdbg.unwind.judge.evidence import Evidence
from orcdbg.unwind.registers.finder import RegisterFinder
from orcdbg.unwind.registers.saves import FunctionSaves
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.unwind.walker import Terrain

if TYPE_CHECKING:
    from orcdbg.patches.journal import Journal
    from orcdbg.target.module_debug import ModuleDebug, ModuleFolders
    from orcdbg.typed.dwarf_types import DwarfTypes
    from orcdbg.typed.program import Program
    from orcdbg.typed.types import Type
    from orcdbg.unwind.xen_vcpus import VirtualCpus
    from orcdbg.variables.frame_state import Debugged
    from orcdbg.variables.local_variables import LocalVariables


class StoppedKernel:
    """A kernel at one stop.

    Args:
        built: what lasts.
        snapshot: the machine as it is now.
        placement: where the kernel is in it.
        memory: kernel virtual memory as it is now.
        extra_passes: patch mechanisms of plug-ins, run after the built-in ones.
        journal: patches that were recorded elsewhere, for a kernel without an image; None where there is none.
        warnings: is told what the user should know.
        module_folders: where the user says that files of modules are.
    """

    def __init__(
        self,
        built: BuiltKernel,
        snapshot: Snapshot,
        placement: Placement,
        memory: KernelMemory,
        extra_passes: Sequence[MakePasses],
        journal: Journal | None,
        warnings: list[str],
        module_folders: ModuleFolders | None = None,
    ) -> None:
        self.built = built
        self.memory = memory
        self._snapshot = snapshot
        self._placement = placement
        self._extra_passes = extra_passes
        self._journal = journal
        self._warnings = warnings
        self._module_folders = module_folders

    @functools.cached_property
    def virtual_cpus(self) -> VirtualCpus | None:
        """The CPUs that Xen gives a PV kernel; None for a kernel that has the machine's own."""
        if not is_xen_pv(self.linux):
            return None

        from orcdbg.unwind.xen_vcpus import virtual_cpus  # few kernels run so

        return virtual_cpus(self.linux, self._snapshot, self._placement)

    @functools.cached_property
    def cpus(self) -> Sequence[CpuState]:
        """The recorded CPUs that run this kernel."""
        if self.virtual_cpus is not None:
            return self.virtual_cpus.states
        text = self.built.symbols.find("_text")
        return own_cpus(self._snapshot, self._placement, None if text is None else text.address + self.built.slide)

    @functools.cached_property
    def linux(self) -> Linux:
        """The kernel's variables and members by name."""
        return Linux(self.memory, self.built.symbols, self.built.types, self.built.slide)

    @functools.cached_property
    def names(self) -> Names:
        """Names of addresses."""
        return Names(self.linux)

    @functools.cached_property
    def features(self) -> Features:
        """CPU feature bits."""
        return Features(self.linux)

    @functools.cached_property
    def program(self) -> Program:
        """Typed data."""
        from orcdbg.typed.program import Program  # a walk needs none of it

        return Program(self.linux, self.names, self._variable_type, more_types=self._module_types)

    @functools.cached_property
    def module_debug(self) -> ModuleDebug | None:
        """The debugging information of modules, None where the user names no files."""
        if self._module_folders is None or not self._module_folders.are_named:
            return None

        from orcdbg.target.module_debug import ModuleDebug

        return ModuleDebug(self.linux, self.names, self._module_folders)

    def _module_types(self) -> Iterator[DwarfTypes]:
        """The types of modules' files, for what split BTF does not describe: there is none before 5.11."""
        if self.module_debug is not None:
            yield from (each.types for each in self.module_debug.all())

    def _variable_type(self, name: str, address: int) -> Type | None:
        """The type of a variable by debugging information, None where that does not tell.

        Args:
            name: the variable's.
            address: a link address of the image's, a run-time address of a module's.
        """
        in_module = self.module_debug.at(address) if self.module_debug is not None else None
        types = self.built.debug_types if in_module is None else in_module.types
        try:
            found = None if types is None else types.variable_at(name, address)
            return found or self._per_cpu_type(name, address)
        except UnsupportedFormat as error:
            # A known type of the kernel's headers may serve all the same.
            if error.message not in self._warnings:
                self._warnings.append(error.message)
            return None

    def _per_cpu_type(self, name: str, pointer: int) -> Type | None:
        """The type of a module's per-CPU variable.

        It is asked for last: since 6.15 (commit 9d7de2aa8b41) such a pointer may be what a link address of the image is.
        """
        if self.module_debug is None:
            return None
        owners = (module for module in self.names.modules if module.has_per_cpu(pointer))
        described = (self.module_debug.of(module) for module in owners)
        return next((found for each in described if each and (found := each.types.variable_at(name, pointer))), None)

    @functools.cached_property
    def task_list(self) -> tuple[list[Task], list[str]]:
        """All tasks, the swappers first; and what could not be read of their list."""
        return list_tasks(self.linux)

    @functools.cached_property
    def patches(self) -> KernelPatches:
        """What the kernel wrote over its text."""
        build = Build(self.built.image, self.linux, self.built.code.built, self.features)
        return KernelPatches(build, self._extra_passes, self._journal)

    @functools.cached_property
    def code(self) -> KernelCode:
        """The handle of the kernel's code, which goes down to rules, walks and judges."""
        return KernelCode(self.built.code, self.linux, self.names, self.patches)

    @functools.cached_property
    def rows(self) -> OrcTables:
        """ORC rows as built, those of modules too."""
        return OrcTables(self.code, self.built.orc, self._warnings)

    @functools.cached_property
    def overlay(self) -> OrcOverlay:
        """ORC rows corrected for patched text."""
        return OrcOverlay(self.code, self.rows)

    @functools.cached_property
    def function_saves(self) -> FunctionSaves:
        """Where functions keep their callers' registers, by their instructions."""
        return FunctionSaves(self.code, self.overlay)

    @functools.cached_property
    def terrain(self) -> Terrain:
        """What walks go over."""
        return Terrain(self.code, self.overlay, Evidence(self.code, self.function_saves))

    @functools.cached_property
    def unwinder(self) -> Unwinder:
        """Walks stacks."""
        missing = {} if self.virtual_cpus is None else self.virtual_cpus.missing
        if self._snapshot.is_live:
            from orcdbg.unwind.live import LiveUnwinder  # all other machines stand still

            return LiveUnwinder(self.terrain, self.cpus, self.memory.forget)
        return Unwinder(self.terrain, self.cpus, missing)

    @functools.cached_property
    def register_finder(self) -> RegisterFinder:
        """Restores callee-saved registers of stacks that were walked."""
        return RegisterFinder(self.code, self.function_saves)

    @functools.cached_property
    def local_variables(self) -> LocalVariables:
        """Variables and arguments of frames."""
        from orcdbg.variables.local_variables import LocalVariables  # a walk needs none of it

        return LocalVariables(self.program, self.code, self.register_finder, self._debugged)

    def _debugged(self, address: int) -> Debugged | None:
        """The DWARF that describes a run-time address."""
        from orcdbg.variables.frame_state import Debugged

        in_module = self.module_debug.at(address) if self.module_debug is not None else None
        if in_module is not None:
            return Debugged(in_module.units, in_module.types, 0)
        if not self.built.code.holds(address):
            return None
        units, types = self.built.debug.units, self.built.debug_types
        return None if units is None or types is None else Debugged(units, types, self.built.slide)

    def unwinder_over(self, memory: AddressSpace) -> Unwinder:
        """Walks stacks where memory, text included, is another: that of an emulated CPU."""
        code = self.code.over(memory)
        # Which functions save what is asked of the text that the snapshot has: following them once more for each
        # emulation costs more than all of its steps.
        evidence = Evidence(code, self.function_saves)
        return Unwinder(Terrain(code, OrcOverlay(code, self.rows), evidence), self.cpus)
