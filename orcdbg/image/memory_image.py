"""What is left of a kernel's image in the memory of the kernel that runs, where nobody has its file?

Sections are told by the kernel's own symbols. Text is as patched, data as they are by now. The sections that the boot
gives back, with the tables of what it patched among them, are gone: `section_data` has none of them.
"""

from __future__ import annotations

from orcdbg.base.errors import BadAddress, MemoryFault, NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, Section
from orcdbg.formats.kallsyms import KERNEL_BASE, Kallsyms, find_kallsyms
from orcdbg.image.vmlinux import MAX_TABLE, Image

# All that may lie between two symbols of the kernel's; a kernel has some tens of MiB.
MAX_AREA = 256 << 20
INIT_TEXT = ".init.text"
_PROGBITS = 1
# What linux_banner begins with (init/version-timestamp.c; before 6.1 init/version.c).
_BANNER = b"Linux version "
# Sections, the symbols that bound them, and whether they hold code.
_SECTIONS = (
    (".text", "_text", "_etext", True),
    (INIT_TEXT, "_sinittext", "_einittext", True),
    (".BTF", "__start_BTF", "__stop_BTF", False),
    (".notes", "__start_notes", "__stop_notes", False),
    (".orc_header", "__start_orc_header", "__stop_orc_header", False),
    (".orc_unwind_ip", "__start_orc_unwind_ip", "__stop_orc_unwind_ip", False),
    (".orc_unwind", "__start_orc_unwind", "__stop_orc_unwind", False),
)


class MemoryImage(Image):
    """A kernel in memory, read at link addresses.

    Args:
        memory: kernel virtual memory.
        slide: run-time minus link address.
        area: run-time addresses [first, last) between which the kernel lies.
        tables: those between which its symbol tables are, where that is known.
        path: for messages.

    Raises:
        UnsupportedFormat: the kernel's symbol tables are not whole in memory.
    """

    is_memory = True

    def __init__(
        self, memory: AddressSpace, slide: int, area: tuple[int, int], tables: tuple[int, int] | None, path: str
    ) -> None:
        self.path = path
        self.slide = slide
        self._memory = memory

        first, last = tables or area
        if not 0 < last - first <= MAX_AREA:
            raise UnsupportedFormat(path, f"a kernel between {first:#x} and {last:#x}")
        try:
            self.kallsyms: Kallsyms = find_kallsyms(present_bytes(memory, first, last), first, path)
        except UnsupportedFormat as error:
            what = "no image is given, and the kernel's own symbol tables are not whole in this snapshot"
            raise UnsupportedFormat(path, what, "give the vmlinux or vmlinuz of this kernel besides") from error

        self._sections = self._bounded()
        self._freed: Section | None = self.find_section(INIT_TEXT)
        self._check_banner()

    def _symbol(self, name: str) -> int | None:
        """The link address of a symbol."""
        address = self.kallsyms.find(name)
        return None if address is None or address < KERNEL_BASE else address - self.slide

    def _bounded(self) -> list[Section]:
        """The sections whose bounds the symbols tell, as far as they make sense."""
        sections = []
        for name, first, last, is_code in _SECTIONS:
            start = self._symbol(first)
            end = self._symbol(last)
            most = MAX_AREA if is_code else MAX_TABLE
            if start is None or end is None or not 0 < end - start <= most:
                continue
            flags = SHF_ALLOC | (SHF_EXECINSTR if is_code else 0)
            sections.append(Section(name, _PROGBITS, flags, start, 0, end - start, 0, 0, 0))
        return sections

    def _check_banner(self) -> None:
        """What the tables say must be there is there: they are of this kernel."""
        banner = self._symbol("linux_banner")
        try:
            good = banner is not None and self.read(banner, len(_BANNER)) == _BANNER
        except MemoryFault:
            good = False
        if not good:
            raise UnsupportedFormat(self.path, "the kernel's symbols do not fit its memory: no banner where they say")

    @property
    def sections(self) -> list[Section]:
        """The sections whose bounds have names."""
        return self._sections

    def find_section(self, name: str) -> Section | None:
        """The section of that name, or None."""
        return next((section for section in self._sections if section.name == name), None)

    def section_data(self, name: str) -> bytes:
        """The bytes of a section in memory; empty where the kernel has none, or has given it back.

        Raises:
            NotInSnapshot: a part of it was not saved.
        """
        section = self.find_section(name)
        return b"" if section is None else self.read(section.address, section.size)

    def section_at(self, address: int) -> Section | None:
        """The section that holds a link address."""
        return next((section for section in self._sections if section.address <= address < section.end), None)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a link address, as they are now; of code that the boot gives back there are none."""
        freed = self._freed
        if freed is not None and address < freed.end and address + size > freed.address:
            raise NotInSnapshot("image", address, size)
        if address < KERNEL_BASE:
            raise BadAddress("image", address, size)
        return self._memory.read(address + self.slide, size)


def present_bytes(memory: AddressSpace, first: int, last: int) -> bytes:
    """The bytes of an area, zeros where there are none."""
    out = bytearray()
    for address in range(first, last, PAGE):
        size = min(PAGE, last - address)
        try:
            out += memory.read(address, size)
        except (NotInSnapshot, BadAddress):
            out += bytes(size)
    return bytes(out)
