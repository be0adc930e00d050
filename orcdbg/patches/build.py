"""What do the passes over one text draw on: its image, the kernel's state, and what several mechanisms ask of both?"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.alternative_table import ALTERNATIVES, entry_size
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.site import U64Array
from orcdbg.patches.state.nops import NopTable, choose_nops

if TYPE_CHECKING:
    from orcdbg.patches.state.ftrace_records import FtraceState
    from orcdbg.patches.state.mitigations import Mitigations
    from orcdbg.patches.state.module_calls import ModuleCalls
    from orcdbg.patches.state.padding import Pads
    from orcdbg.patches.state.probes import Probes
    from orcdbg.patches.state.text_changes import TextChanges
    from orcdbg.patches.tables import BoundedTable


@dataclass(frozen=True)
class Build:
    """What the passes draw on: the image and its tables, the kernel's state, text as built at run-time addresses.

    The state is imported where it is asked for: the two mechanisms that a walk needs ask for none of it.
    """

    image: Image
    linux: Linux
    built: BuiltText
    features: Features
    problems: list[str] = field(default_factory=list)
    is_module = False

    def note(self, problem: str) -> None:
        """Notes why some of the patches are not known; once, however often the same table is asked."""
        if problem not in self.problems:
            self.problems.append(problem)

    @functools.cached_property
    def text(self) -> tuple[int, int]:
        """Run-time [start, end) of the text that stays: `_text` to `_etext`."""
        return self.linux.address("_text"), self.linux.address("_etext")

    @functools.cached_property
    def nops(self) -> NopTable | None:
        """The NOPs that this kernel writes."""
        try:
            size = entry_size(self.image.section_data(ALTERNATIVES))
        except UnsupportedFormat:
            size = None
        return choose_nops(self.linux, size == 14)

    @functools.cached_property
    def mitigations(self) -> Mitigations:
        """The machine's defences that show in text."""
        from orcdbg.patches.state.mitigations import Mitigations

        return Mitigations(self.linux, self.features)

    @functools.cached_property
    def pads(self) -> Pads:
        """The padding in front of functions."""
        from orcdbg.patches.state.padding import Pads

        return Pads(self.image, self.linux, self.mitigations, self.text)

    @functools.cached_property
    def module_calls(self) -> dict[int, ModuleCalls]:
        """What the modules call that are no part of this build."""
        from orcdbg.patches.state.module_calls import module_calls

        return module_calls(self.linux)

    @functools.cached_property
    def tracing(self) -> FtraceState:
        """What ftrace keeps, read once for the kernel's text and all modules'."""
        from orcdbg.patches.state.ftrace_records import FtraceState

        return FtraceState(self.linux)

    @functools.cached_property
    def probes(self) -> Probes:
        """The kprobes, likewise."""
        from orcdbg.patches.state.probes import Probes

        return Probes(self.linux)

    @functools.cached_property
    def text_changes(self) -> TextChanges:
        """What the kernel is changing at this moment, likewise."""
        from orcdbg.patches.state.text_changes import TextChanges

        return TextChanges(self.linux)

    def called_besides(self) -> U64Array:
        """The functions whose calls were counted for another reason than this build's tables, as they are now."""
        from orcdbg.patches.state.module_calls import called

        return called(self.module_calls.values(), self.pads)

    @property
    def kernel_build(self) -> Build:
        """What the passes over the kernel's own text draw on."""
        return self

    @property
    def kernel_image(self) -> Image:
        """The image that holds the kernel's own code."""
        return self.image

    @property
    def unmoved(self) -> int:
        """What absolute addresses in the tables still lack to be run-time addresses."""
        return self.linux.slide

    @functools.cached_property
    def static_calls(self) -> list[tuple[int, int]]:
        """Trampoline and key of each static call that is defined here."""
        from orcdbg.patches.state.static_call_keys import trampolines_and_keys

        return trampolines_and_keys(self.linux.symbols, self.linux.slide)

    def patched_locks(self, sites: U64Array) -> U64Array:
        """Those of the recorded lock prefixes that the kernel changes where one CPU runs: all of its own."""
        return sites

    def table(self, table: BoundedTable) -> tuple[bytes, int]:
        """The bytes of a table as built, and the run-time address of the first; empty where there is none.

        Raises:
            MemoryFault: the symbols that bound it are damaged, and lead out of the image.
        """
        first, last = self.linux.symbols.find(table.start), self.linux.symbols.find(table.stop)
        if first is None or last is None or last.address <= first.address:
            return b"", 0
        return self.image.read(first.address, last.address - first.address), first.address + self.linux.slide
