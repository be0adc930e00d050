"""Where do the kernel's types come from?

From the image's own `.BTF`; without one from the memory of the kernel that runs, from the file that the user names, or from
what pahole makes, or made, of the image's DWARF. Each but the image's own is compared with what is known of the kernel before
anything is believed of it. See docs/adr/0028-where-types-come-from.md.
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import AddressSpace, read_cstring, read_u64
from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import mapped_area
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo
from orcdbg.symbols.btf import SECTION, Btf
from orcdbg.symbols.table import SymbolTable

_MAX_BANNER = 512
# VMCOREINFO_BYTES (include/linux/vmcore_info.h); 6.x fills the half of it.
_MAX_VMCOREINFO = 4096

HINT_FILE = "orcdbg --btf FILE VMLINUX SNAPSHOT takes BTF of exactly this build from a file"
HINT_MAKE = "orcdbg --make-btf VMLINUX SNAPSHOT makes it, by pahole, of the vmlinux's DWARF"


class TypeOrigin(enum.Enum):
    """Where types are from; the values are the contract's words."""

    IMAGE = "image"
    MEMORY = "memory"
    FILE = "--btf"
    MADE = "pahole"
    DRGN = "drgn"


def _nothing_shown(what: str) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class TypeOptions:
    """What the user says of types.

    Attributes:
        btf: a file of BTF, or a folder of such files by release; None where none is named.
        make_btf: whether pahole may be run.
        progress: shows, while its result is entered, what is at work.
        environment: where PATH and the cache's folder are from.
    """

    btf: str | None = None
    make_btf: bool = False
    progress: Callable[[str], AbstractContextManager[object]] = _nothing_shown
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """What a snapshot knows of the kernel: its memory, where it is, and its VMCOREINFO, empty where the file has none."""

    memory: AddressSpace
    vmcoreinfo: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundTypes:
    """Types, and where they are from: a file's name or an address, in words."""

    btf: Btf
    origin: TypeOrigin
    where: str


class KernelTypes:
    """The types of one kernel, found on first use.

    Args:
        image: the vmlinux.
        symbols: its symbols, at link addresses.
        slide: run-time minus link addresses.
        debug: its debugging information.
        options: what the user says.
        running: the kernel that runs; None of a vmlinux alone.
        warn: is told what the user should know.
    """

    def __init__(
        self,
        image: Image,
        symbols: SymbolTable,
        slide: int,
        debug: DebugInfo,
        options: TypeOptions,
        running: RunningKernel | None,
        warn: Callable[[str], None],
    ) -> None:
        self._image = image
        self._symbols = symbols
        self._slide = slide
        self._debug = debug
        self._options = options
        self._running = running
        self._warn = warn
        # Why what could have given types does not, for the message that nothing does.
        self._refused: list[str] = []

    @property
    def are_in_image(self) -> bool:
        """Whether a file has them beside the code, so that no search is needed."""
        return not self._image.is_memory and self._image.find_section(SECTION) is not None

    @functools.cached_property
    def found(self) -> FoundTypes:
        """The types.

        Raises:
            UnsupportedFormat: there are none.
            OrcdbgError: those of the user's file are not this kernel's, or pahole fails.
        """
        # The user's file is looked at even where it is not needed: who names another kernel's has made a mistake.
        given = self._in_file()
        found = self._in_image() or self._in_memory() or given or self._kept() or self._made() or self._by_drgn()
        if found is None:
            raise self._none()
        if given is not None and found is not given:
            self._warn(f"{given.where}: not used: the {found.where} has the kernel's own types")
        return found

    # One place after the other

    def _in_image(self) -> FoundTypes | None:
        if not self.are_in_image:
            return None
        btf = Btf(self._image.section_data(SECTION), f"{self._image.path}: {SECTION}")
        return FoundTypes(btf, TypeOrigin.IMAGE, "image")

    def _in_memory(self) -> FoundTypes | None:
        """What the running kernel holds; why it is of no use is kept for the message that nothing was found."""
        if self._running is None:
            return None

        from orcdbg.symbols.btf_in_memory import find_btf

        try:
            place = find_btf(self._running.memory, self._bounds(), self._area, self._check)
        except OrcdbgError as error:
            self._refused.append(f"in memory: {error.message}")
            return None
        return FoundTypes(place.btf, TypeOrigin.MEMORY, f"memory at {place.address:#x}")

    def _in_file(self) -> FoundTypes | None:
        path = self._options.btf
        if path is None:
            return None

        from orcdbg.symbols.btf_files import read_btf_file

        btf = read_btf_file(path, self._release)
        self._check(btf)
        return FoundTypes(btf, TypeOrigin.FILE, btf.name)

    def _kept(self) -> FoundTypes | None:
        """What pahole made in an earlier run."""
        from orcdbg.symbols.btf_made import kept_btf

        try:
            btf = kept_btf(self._image.build_id, self._options.environment)
            if btf is None:
                return None
            self._check(btf)
        except OrcdbgError as error:
            self._refused.append(error.message)
            return None
        return FoundTypes(btf, TypeOrigin.MADE, btf.name)

    def _made(self) -> FoundTypes | None:
        if not self._options.make_btf:
            return None
        debug = self._debug.file
        if debug is None:
            raise UnsupportedFormat(self._image.path, "--make-btf: there is no DWARF to make BTF of", HINT_FILE)

        from orcdbg.symbols.btf_made import PAHOLE, keep_btf, make_btf

        data = make_btf(debug, self._options.environment, self._options.progress)

        btf = Btf(data, f"BTF made by {PAHOLE}", is_built=False)
        btf.check_whole()
        self._check(btf)
        if self._image.build_id is not None:
            try:
                keep_btf(data, self._image.build_id, self._options.environment)
            except OrcdbgError as error:
                self._warn(f"{error.message}; the types are made anew the next time")
        return FoundTypes(btf, TypeOrigin.MADE, btf.name)

    def _by_drgn(self) -> FoundTypes | None:
        """What drgn reads of the image's DWARF, where that extra is installed; each type when it is asked for."""
        from orcdbg.symbols.drgn_btf import DrgnBtf, is_installed

        if not is_installed() or self._debug.file is None:
            return None
        try:
            btf = DrgnBtf(self._debug.file.source.name)
            self._check(btf)
        except OrcdbgError as error:
            self._refused.append(error.message)
            return None
        return FoundTypes(btf, TypeOrigin.DRGN, btf.name)

    def _none(self) -> UnsupportedFormat:
        """The error where nobody has types: what is missing, and the one thing that cures it."""
        what = "; ".join(("no BTF type information", *self._refused))
        return UnsupportedFormat(self._image.path, what, self._cure())

    def _cure(self) -> str:
        from orcdbg.symbols.btf_made import PAHOLE, find_program, pahole_command

        try:
            has_dwarf = self._debug.file is not None
        except OrcdbgError:
            has_dwarf = False
        if not has_dwarf:
            return HINT_FILE
        if find_program(PAHOLE, self._options.environment) is None:
            return f"{pahole_command(self._options.environment)}; then {HINT_MAKE}"
        return HINT_MAKE

    # What is known of the kernel

    def _address(self, name: str) -> int | None:
        symbol = self._symbols.find(name)
        return None if symbol is None or not symbol.address >> 63 else symbol.address + self._slide

    def _bounds(self) -> tuple[int, int] | None:
        """Where symbols say that BTF is."""
        from orcdbg.symbols.btf_in_memory import BOUNDS

        for first, last in BOUNDS:
            start, end = self._address(first), self._address(last)
            if start is not None and end is not None:
                return start, end
        return None

    def _area(self) -> tuple[int, int]:
        """Where the kernel's image is in memory."""
        start, end = self._address("_text"), self._address("_end")
        if start is not None and end is not None:
            return start, end
        if start is None:
            raise NotFound("symbol", "_text")
        assert self._running is not None
        if isinstance(self._running.memory, KernelMemory):
            return mapped_area(self._running.memory, start)
        return start, start

    def _check(self, btf: Btf) -> None:
        """Refuses another kernel's; errors as of `check_types`."""
        from orcdbg.symbols.btf_facts import check_types

        memory = None if self._running is None else self._running.memory
        check_types(btf, self._vmcoreinfo, self._symbols, self._slide, memory)

    @functools.cached_property
    def _vmcoreinfo(self) -> Mapping[str, str]:
        """What the kernel says of itself: in the snapshot's note, else where the kernel keeps it.

        Mirrors kernel/vmcore_info.c, `vmcoreinfo_data`; before 6.9 kernel/crash_core.c, before 4.16 kernel/kexec_core.c.
        """
        if self._running is None:
            return {}
        if self._running.vmcoreinfo:
            return self._running.vmcoreinfo
        pointer, size_at = self._address("vmcoreinfo_data"), self._address("vmcoreinfo_size")
        if pointer is None or size_at is None:
            return {}
        try:
            size = min(read_u64(self._running.memory, size_at), _MAX_VMCOREINFO)
            return parse_vmcoreinfo(self._running.memory.read(read_u64(self._running.memory, pointer), size))
        except MemoryFault:
            return {}

    @functools.cached_property
    def _release(self) -> str | None:
        """The release: VMCOREINFO's, else the third word of the banner (init/version.c)."""
        release = self._vmcoreinfo.get("OSRELEASE")
        if release:
            return release
        symbol = self._symbols.find("linux_banner")
        try:
            banner = b"" if symbol is None else read_cstring(self._image, symbol.address, _MAX_BANNER)
        except MemoryFault:
            return None
        words = banner.decode("latin-1").split()
        return words[2] if len(words) > 2 else None
