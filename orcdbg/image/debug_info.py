"""What debugging information does an image have, in its own file or split off it: source lines, call frames?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.formats.elf import ElfFile
from orcdbg.image.debug_files import find_debug_file
from orcdbg.image.vmlinux import Image

if TYPE_CHECKING:
    from orcdbg.formats.callframe import CallFrames
    from orcdbg.image.compile_units import CompileUnits
    from orcdbg.image.source_lines import SourceLines


class DebugInfo:
    """The DWARF of an image, all of it found and read on first use, at link addresses.

    Args:
        image: the vmlinux; its `debug_folders` are where a file that was split off is looked for first.
        warn: is told of information that cannot be used.
    """

    def __init__(self, image: Image, warn: Callable[[str], None]) -> None:
        self._image = image
        self._warn = warn

    @functools.cached_property
    def file(self) -> ElfFile | None:
        """The file with the image's DWARF, None where there is none."""
        return find_debug_file(self._image, self._image.debug_folders, self._warn)

    @functools.cached_property
    def call_frames(self) -> CallFrames | None:
        """The image's call frame information (`.debug_frame`), None where it has none."""
        if self.file is None:
            return None

        from orcdbg.formats.callframe import CallFrames  # most walks meet no function that ORC leaves out
        from orcdbg.formats.dwarf_sections import DebugSection

        try:
            section = DebugSection(self.file, ".debug_frame")
            data = section.read(0, section.size)
        except UnsupportedFormat as error:
            self._warn(error.message)
            return None
        return CallFrames(data, section.name) if data else None

    @functools.cached_property
    def source_lines(self) -> SourceLines:
        """The image's line information."""
        from orcdbg.image.source_lines import SourceLines  # importing pyelftools takes 25 to 40 ms

        return SourceLines(self.file, self.units)

    @functools.cached_property
    def units(self) -> CompileUnits | None:
        """The image's compile units, None where it has no DWARF."""
        if self.file is None:
            return None

        from orcdbg.image.compile_units import CompileUnits

        return CompileUnits(self.file)
