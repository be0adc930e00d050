"""Where is the image's own code in this kernel, and what was it as built?

All of it lasts as long as the kernel runs: nothing here is read from memory.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from orcdbg.base.reading import AddressSpace
from orcdbg.formats.call_frame_row import Row
from orcdbg.formats.elf import SHF_EXECINSTR
from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.patches.built_text import BuiltText
from orcdbg.symbols.table import SymbolTable

if TYPE_CHECKING:
    from orcdbg.image.references import References

_CODE_SECTIONS = (".text", ".init.text")
_LASTING_SECTION = ".text"
# Tables that name functions without calling them: where tracers may put their calls, which functions may not be probed,
# and which may be made to fail. The last two are short, but of functions that nothing else points to.
_DESCRIPTIONS = (
    ("__start_mcount_loc", "__stop_mcount_loc"),
    ("__start_kprobe_blacklist", "__stop_kprobe_blacklist"),
    ("__start_error_injection_whitelist", "__stop_error_injection_whitelist"),
    ("kallsyms_offsets", "kallsyms_relative_base"),
    ("kallsyms_offsets", "kallsyms_seqs_of_names"),
)


class AsLinked:
    """An image's text at run-time addresses, not relocated: direct calls and jumps are the same either way.

    Args:
        image: the image, at link addresses.
        slide: run-time minus link addresses.
    """

    def __init__(self, image: AddressSpace, slide: int) -> None:
        self._image = image
        self._slide = slide

    def read(self, address: int, size: int) -> bytes:
        """The bytes as linked; BadAddress where the image has none."""
        return self._image.read(address - self._slide, size)


class ImageCode:
    """The code of one image, at run-time addresses.

    Args:
        image: the vmlinux, or what memory holds of it.
        slide: run-time minus link addresses.
        debug: its debugging information, for call frames.
    """

    def __init__(self, image: Image, slide: int, debug: DebugInfo) -> None:
        self.image = image
        self.slide = slide
        self.built = BuiltText(image, slide)
        self.as_linked = AsLinked(image, slide)
        self._debug = debug
        self._references: References | None = None

    @functools.cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """Run-time [start, end) of the executable sections that return addresses can point into."""
        code = [s for s in self.image.sections if s.flags & SHF_EXECINSTR and s.name in _CODE_SECTIONS]
        return [(s.address + self.slide, s.end + self.slide) for s in code]

    def references_by(self, symbols: SymbolTable) -> References | None:
        """What this code is referred to by, found once; None where the image is only what memory holds of one.

        Args:
            symbols: the image's, which tell tables that only describe code.
        """
        if self._references is None and not self.image.is_memory:
            from orcdbg.image.references import References  # few questions need them

            bounds = [(symbols.find(first), symbols.find(last)) for first, last in _DESCRIPTIONS]
            described = [(first.address, last.address) for first, last in bounds if first and last]
            self._references = References(self.image, described)
        return self._references

    def holds(self, address: int) -> bool:
        """True for a run-time address in the image's code."""
        return any(start <= address < end for start, end in self.ranges)

    def is_lasting(self, address: int) -> bool:
        """True for a run-time address in code that the boot does not give back: `.text`."""
        section = self.image.section_at(address - self.slide)
        return section is not None and section.name == _LASTING_SECTION

    def call_frame(self, address: int) -> Row | None:
        """Call frame information (`.debug_frame`) for a run-time address, exactly as given; None where there is none.

        Raises:
            UnsupportedFormat: the information there is of a kind that is not understood.
        """
        # DWARF is looked for last: finding the file that it was split off into may take a second.
        table = self._debug.call_frames if self.holds(address) else None
        return None if table is None else table.row(address - self.slide)
