"""What of an ELF file may be damaged: a vmlinux with all that is read of it, a module's file, and DWARF, packed or not.

Part of `python -m tests.fuzz_images`. The vmlinux has symbols, types, ORC rows, notes, relocations and alternatives, and is
opened as `orcdbg patch check` opens one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import zstandard

from orcdbg.base.reading import BytesSource
from orcdbg.formats.callframe import CallFrames
from orcdbg.formats.dwarf_sections import DebugSection
from orcdbg.formats.elf import ElfFile
from orcdbg.image.debug_files import build_id_of, has_debug, parse_link
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.source_lines import SourceLines
from orcdbg.image.source_position import Position
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.symbols.table import ENTRY
from orcdbg.target.vmlinux_alone import UnbootedKernel
from orcdbg.trim.image_sections import is_essential
from tests.build import dwarf, elf
from tests.build.elf import EHDR, SHDR, Part, note
from tests.fuzz_case import Fact, Format, asked, judged
from tests.fuzz_tables import TEXT, sample_rows, sample_types

SLIDE = 0x100_0000
DATA = TEXT + 0x20_0000
ROWS = 40
_LIMIT = 64 << 20
_RELA = struct.Struct("<QQq")


def _source(data: bytes) -> BytesSource:
    return BytesSource("case", data)


def _headers(whole: bytes) -> list[tuple[int, int]]:
    """The file's header, its table of sections, and the section that names them."""
    at, count, names = (EHDR.unpack_from(whole)[place] for place in (6, 12, 13))
    offset, size = SHDR.unpack_from(whole, at + SHDR.size * names)[4:6]
    return [(0, EHDR.size), (at, at + SHDR.size * count), (offset, offset + size)]


def _section(whole: bytes, name: str) -> tuple[int, int]:
    found = ElfFile(_source(whole)).by_name[name]
    return found.offset, found.file_end


# A vmlinux


def _symbols(names: dict[str, int]) -> tuple[bytes, bytes]:
    strings, rows = b"\0", [(0, 0, 0, 0, 0, 0)]
    for name, address in names.items():
        rows.append((len(strings), 0x12, 0, 1, address, 16))
        strings += name.encode() + b"\0"
    return np.array(rows, dtype=ENTRY).tobytes(), strings


_TABLES = TEXT + 0x10_0000
_LISTS = (".smp_locks", ".retpoline_sites", ".return_sites", ".ibt_endbr_seal", ".call_sites")


def _names() -> dict[str, int]:
    """Symbols: functions, and those that bound text and tables."""
    names = {f"function_{row}": TEXT + 16 * row for row in range(ROWS)}
    names |= {"_text": TEXT, "_stext": TEXT, "_etext": TEXT + 16 * ROWS, "_end": DATA + 512, "boot_cpu_data": DATA}
    names |= {"__x86_return_thunk": TEXT + 0x200, "__x86_indirect_thunk_array": TEXT + 0x220}
    names |= {"__start___jump_table": DATA + 256, "__stop___jump_table": DATA + 288}
    names |= {"__start_static_call_sites": DATA + 288, "__stop_static_call_sites": DATA + 304}
    return names | {"__SCT__call": TEXT + 0x240, "__SCK__call": DATA + 320}


def _variables() -> bytes:
    """Data with two static branches, two static calls, and the function that these call."""
    data = bytes(range(256))
    for row in range(2):
        entry = DATA + 256 + 16 * row
        data += struct.pack("<iiq", TEXT + 16 * row + 7 - entry, TEXT + 16 * row + 9 - entry - 4, 64)
    data += struct.pack("<iiii", TEXT + 32 - DATA - 288, 28, TEXT + 48 - DATA - 296, 20)
    return data.ljust(320, b"\0") + struct.pack("<Q", TEXT + 16) + bytes(184)


def _sites() -> dict[str, tuple[int, bytes]]:
    """The tables of places in text: addresses and contents by section."""
    found = {".replacements": (_TABLES + 0x4000, b"\x9c\x58" + b"\x0f\x01\xca" * 4)}
    table = b""
    for row, (start, size) in enumerate(((0, 2), (2, 3), (5, 3))):
        entry = _TABLES + 0x2000 + 14 * row
        table += struct.pack("<iiIBB", TEXT + 16 * row - entry, _TABLES + 0x4000 + start - entry - 4, 5 + row, 7, size)
    found[".altinstructions"] = (_TABLES + 0x2000, table)
    for number, name in enumerate(_LISTS):
        at = _TABLES + 0xA000 + 0x100 * number
        found[name] = (at, b"".join(struct.pack("<i", TEXT + 20 * row - at) for row in range(4)))
    return found


def sample_vmlinux() -> bytes:
    """Text of forty functions, the first with an alternative, and all sections that are read without a snapshot."""
    text = (b"\xff\x14\x25" + struct.pack("<I", DATA & 0xFFFF_FFFF) + b"\x90" * 8 + b"\xc3") * ROWS
    ips, rows = sample_rows(ROWS, _TABLES)
    entries, strings = _symbols(_names())
    moved = b"".join(_RELA.pack(TEXT + 16 * row + 3, 11 | 1 << 32, 0) for row in range(ROWS))
    notes = note("GNU", 3, bytes(range(20))) + note("Linux", 0, b"6.1")
    parts = [
        Part(".text", TEXT, text, flags=6),
        Part(".data", DATA, _variables(), flags=3),
        Part(".orc_unwind_ip", _TABLES, ips),
        Part(".orc_unwind", _TABLES + 0x1000, rows),
        Part(".notes", _TABLES + 0x5000, notes),
        Part(".BTF", _TABLES + 0x6000, sample_types()[0]),
        *(Part(name, at, data) for name, (at, data) in _sites().items()),
        Part(".gnu_debuglink", 0, b"case.debug\0\0" + struct.pack("<I", 1), flags=0),
        Part(".rela.text", 0, moved, type=4, flags=0),
        Part(".strtab", 0, strings, type=3, flags=0),
    ]
    return elf.image([*parts, Part(".symtab", 0, entries, type=2, flags=0, link=len(parts))])


def audit_of(kernel: UnbootedKernel) -> AuditReport:
    """The account of the text of a kernel that runs `SLIDE` from where it was linked, and patched nothing."""
    built = BuiltText(kernel.image, SLIDE)
    linux = Linux(built, kernel.symbols, kernel.types, SLIDE)
    build = Build(kernel.image, linux, built, Features(linux))
    return audit_kernel(KernelPatches(build))


def _answer_of_vmlinux(image: Image) -> None:
    kernel = UnbootedKernel(image)

    def union() -> None:
        found = kernel.union
        assert len(found.problems) <= 1000 and found.sites <= 1000

    def read(address: int, size: int) -> None:
        assert len(BuiltText(image, SLIDE).read(address + SLIDE, size)) == size

    def audit() -> None:
        report = audit_of(kernel)
        told = report.explained + report.undecided
        assert told <= report.differing <= told + report.unexplained + report.mismatched
        assert len(report.problems) < 1000

    asked(
        union,
        audit,
        *(partial(read, TEXT + at, size) for at, size in ((0, 64), (16, 1), (0x270, 16))),
        *(partial(kernel.symbols.at, TEXT + at) for at in (0, 33)),
        *(partial(kernel.orc_table.find, TEXT + at) for at in (0, 33, 10**6)),
        lambda: kernel.symbols.names(),
        lambda: kernel.names.at(TEXT + 20),
        lambda: [is_essential(section, {".text"}) for section in image.sections],
    )


def _vmlinux() -> Format:
    whole = sample_vmlinux()

    def attempt(data: bytes) -> None:
        image = Image(_source(data))
        asked(
            lambda: image.build_id,
            lambda: build_id_of(image.elf),
            lambda: parse_link(image.section_data(".gnu_debuglink")),
            lambda: has_debug(image.elf),
            lambda: sum(1 for _ in image.elf.notes()),
            lambda: image.elf.headers_end,
            partial(_answer_of_vmlinux, image),
        )

    def word(name: str, address: int) -> Fact:
        return Fact(lambda data: Image(_source(data)).read(address, 8), [*headers, _section(whole, name)])

    headers = _headers(whole)
    names = [_section(whole, name) for name in (".symtab", ".strtab")]
    rows = [_section(whole, name) for name in (".orc_unwind", ".orc_unwind_ip", ".BTF")]
    facts = [
        word(".text", TEXT + 16),
        word(".data", DATA + 8),
        Fact(lambda data: Image(_source(data)).build_id, [*headers, _section(whole, ".notes")]),
        Fact(lambda data: UnbootedKernel(Image(_source(data))).symbols.find("function_7"), [*headers, *names]),
        Fact(lambda data: UnbootedKernel(Image(_source(data))).orc_table.find(TEXT + 100), [*headers, *names, *rows]),
    ]
    regions = [*headers, headers[1], *names, *rows, (EHDR.size, len(whole))]
    places = [_section(whole, name) for name in (".altinstructions", ".rela.text", ".notes", ".data", *_LISTS)]
    return Format(whole, [*regions, *places], judged(whole, facts, attempt))


# A module's file


def sample_module() -> bytes:
    """Text with relocations against a symbol of its own and one that the kernel has."""
    strings = b"\0own\0printk\0"
    rows = [(0, 0, 0, 0, 0, 0), (1, 0x12, 0, 1, 8, 8), (5, 0x10, 0, 0, 0, 0)]
    moves = ((1, 2, 2, -4), (9, 1, 1, 0), (20, 11, 1, 16), (28, 24, 2, 0))
    moved = b"".join(_RELA.pack(at, kind | symbol << 32, amount) for at, kind, symbol, amount in moves)
    parts = [
        Part(".text", 0, bytes(range(64)), flags=6),
        Part(".data", 0, bytes(32), flags=3),
        Part(".note.gnu.build-id", 0, note("GNU", 3, bytes(20)), type=7),
        Part(".strtab", 0, strings, type=3, flags=0),
        Part(".symtab", 0, np.array(rows, dtype=ENTRY).tobytes(), type=2, flags=0, link=4),
        Part(".rela.text", 0, moved, type=4, flags=0),
    ]
    data = bytearray(elf.image(parts))
    data[16:18] = b"\1\0"  # ET_REL
    table = EHDR.unpack_from(data)[6]
    struct.pack_into("<I", data, table + 6 * SHDR.size + 44, 1)  # the relocations are of section 1
    return bytes(data)


def _module() -> Format:
    whole = sample_module()
    places = {".text": TEXT, ".data": TEXT + 0x1000, ".note.gnu.build-id": TEXT + 0x2000}

    def linked(data: bytes) -> dict[str, tuple[int, bytes]]:
        return ModuleFile(_source(data)).linked(places, {"printk": TEXT - 0x1000}.get)

    def attempt(data: bytes) -> None:
        found = linked(data)
        assert sum(len(one) for _, one in found.values()) < _LIMIT
        file = ModuleFile(_source(data))
        asked(lambda: build_id_of(file.elf), lambda: file.offset_of("own", 1))

    regions = [_section(whole, name) for name in (".symtab", ".strtab", ".rela.text", ".text")]
    fact = Fact(lambda data: linked(data)[".text"], [*_headers(whole), *regions])
    return Format(whole, [*_headers(whole), *regions], judged(whole, [fact], attempt))


# DWARF


def _packed(data: bytes, kind: int) -> bytes:
    body = zlib.compress(data) if kind == 1 else zstandard.ZstdCompressor().compress(data)
    return struct.pack("<IIQQ", kind, 0, len(data), 1) + body


def _debug_file(version: int, packer: str) -> bytes:
    parts = [Part(".text", dwarf.TEXT, b"\x90" * dwarf.SIZE, flags=6)]
    for name, data in dwarf.debug_sections(version).items():
        if packer == "zdebug":
            body = b"ZLIB" + struct.pack(">Q", len(data)) + zlib.compress(data)
            parts.append(Part(name.replace(".debug", ".zdebug"), 0, body, flags=0))
        elif packer:
            parts.append(Part(name, 0, _packed(data, 1 if packer == "zlib" else 2), flags=0x800))
        else:
            parts.append(Part(name, 0, data, flags=0))
    return elf.image(parts)


def _lines(version: int, packer: str) -> Callable[[], Format]:
    def make() -> Format:
        whole = _debug_file(version, packer)

        def at(data: bytes, offset: int) -> Position | None:
            return SourceLines(ElfFile(_source(data))).at(dwarf.TEXT + offset)

        def line(data: bytes) -> object:
            found = at(data, 0x34)
            return None if found is None else found.line and found.line.line

        def attempt(data: bytes) -> None:
            elf_file = ElfFile(_source(data))
            lines = SourceLines(elf_file)
            asked(
                lambda: lines.is_there,
                *(partial(lines.at, dwarf.TEXT + offset) for offset in (0, 0x25, 0x34, dwarf.SIZE - 1, dwarf.SIZE)),
                *(partial(_read_whole, elf_file, name) for name in (".debug_info", ".debug_line", ".debug_str")),
            )

        found = ElfFile(_source(whole))
        sections = [_section(whole, name) for name in found.by_name if "debug" in name]
        texts = [_section(whole, name) for name in found.by_name if "debug_str" in name]
        facts = [
            Fact(partial(at, offset=offset), [*_headers(whole), *sections]) for offset in (0, 0x25, dwarf.SIZE - 1)
        ]
        # What strings say is nothing to the number of the line.
        facts.append(Fact(line, [*_headers(whole), *(one for one in sections if one not in texts)]))
        return Format(whole, [*_headers(whole), *sections, *sections], judged(whole, facts, attempt))

    return make


def _read_whole(elf_file: ElfFile, name: str) -> None:
    section = DebugSection(elf_file, name)
    assert len(section.read(0, section.size)) == section.size
    if name == ".debug_info":
        CallFrames(section.read(0, section.size), "case").row(dwarf.TEXT)


FILES: dict[str, Callable[[], Format]] = {
    "vmlinux": _vmlinux,
    "module": _module,
    "dwarf-3": _lines(3, ""),
    "dwarf-4": _lines(4, ""),
    "dwarf-5": _lines(5, ""),
    "dwarf-zlib": _lines(5, "zlib"),
    "dwarf-zstd": _lines(4, "zstd"),
    "dwarf-zdebug": _lines(4, "zdebug"),
}
