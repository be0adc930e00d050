"""Does any small file, made so on purpose, take more than 1 GB, or 10 s of CPU time?

    python -m tests.bombs NAME|all

Damage by chance does not hit upon these: data packed a thousand times and more, tables whose entries lie in each other or
stand for each other, sizes that lie. Each must end in an answer or an OrcdbgError within the limits of `tests/fuzz_case.py`.
"""

from __future__ import annotations

import argparse
import io
import lzma
import resource
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cramjam
import lzallright

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import BytesSource
from orcdbg.formats import codecs, lzo
from orcdbg.formats.elf import ElfFile, parse_notes
from orcdbg.formats.kallsyms import find_kallsyms
from orcdbg.gdb.packets import PacketReader
from orcdbg.gdb.target_description import read_description
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.source_lines import SourceLines
from orcdbg.image.vmlinux import MAX_TABLE, Image
from orcdbg.orc.rows import LAYOUT_6_4
from orcdbg.orc.table import OrcTable
from orcdbg.patches.journal import read_journal
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.table import ENTRY, image_symbols
from orcdbg.typed.btf_types import BtfTypes
from orcdbg.typed.declarations import declaration
from orcdbg.typed.types import CompoundType
from orcdbg.typed.values import read_value
from tests.build.btf import BtfBuilder
from tests.build.dwarf import TEXT, debug_sections, image_with, uleb
from tests.build.elf import EHDR, SHDR, Part, image
from tests.build.kallsyms import tokens
from tests.fuzz_case import MEMORY, clock

Attempt = Callable[[], object]
MIB = 1 << 20


# Packed data: each holds 3 GB of zeros.


def _gzip() -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = pack.compress(bytes(8 * MIB)) + pack.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + piece * 384


def _xz() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    piece = lzma.compress(bytes(8 * MIB), lzma.FORMAT_RAW, filters=filters)[:-1]
    head = lzma.compress(b"", lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters)[:12]
    whole = lzma.compress(b"x", lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters)
    return head + whole[12 : 12 + 4 * (whole[12] + 1)] + piece * 384


def _zstd() -> bytes:
    block = 128 << 10
    return codecs.ZSTD + b"\0\x38" + ((block << 3 | 2).to_bytes(3, "little") + b"\0") * (3 << 13)


def _lz4() -> bytes:
    block = bytes(cramjam.lz4.compress_block(bytes(8 * MIB), store_size=False))
    return codecs.LZ4 + (struct.pack("<I", len(block)) + block) * 384


def _lzop() -> bytes:
    block = bytes(lzallright.LZOCompressor().compress(bytes(1 << 18)))
    head = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 9, 0, 0o644, 0, 0, 0) + bytes(4)
    return lzo.LZOP + head + struct.pack(">II", 1 << 18, len(block)).join([b"", *[block] * (3 << 12)])


def _packed(make: Callable[[], bytes]) -> Attempt:
    return partial(codecs.decompressed, BytesSource("bomb", make()))


def _half_of_2_gb() -> Attempt:
    """A section whose header says what it holds, 2 GB."""
    header = struct.pack("<IIQQ", 2, 0, 2047 * MIB, 1)
    sections = debug_sections(5) | {".debug_info": header + _zstd()}
    parts = [Part(".text", TEXT, bytes(256), flags=6)]
    parts += [Part(name, 0, data, flags=0x800 if "info" in name else 0) for name, data in sections.items()]
    return partial(SourceLines(_elf(image(parts))).at, TEXT)


# ELF


def _elf(data: bytes) -> ElfFile:
    return ElfFile(BytesSource("bomb", data))


def _many_sections(count: int, names: bytes, header: Sequence[int]) -> bytearray:
    """An ELF file with `count` equal sections, whose names are in section 1."""
    headers = SHDR.pack(*header) * count
    end = EHDR.size + len(names)
    table = bytes(SHDR.size) + SHDR.pack(0, 3, 0, 0, EHDR.size, len(names), 0, 0, 1, 0) + headers
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    ehdr = EHDR.pack(ident, 2, 62, 1, 0, 0, end, 0, EHDR.size, 0, 0, SHDR.size, count + 2, 1)
    return bytearray(ehdr + names + table)


def _names_in_each_other() -> Attempt:
    data = bytes(_many_sections(60_000, b"n" * MIB + b"\0", (0, 1, 2, TEXT, 0, 8, 0, 0, 1, 0)))
    return lambda: Image(BytesSource("bomb", data)).find_section("x")


def _sections_in_each_other() -> Attempt:
    """A module of 60,000 sections, each of them the whole file."""
    count = 60_000
    names = [b"%06d\0" % row for row in range(count)]
    data = _many_sections(count, b"\0" + b"".join(names), bytes(10))
    table = EHDR.unpack_from(data)[6]
    for row in range(2, count):
        place = table + SHDR.size * row
        data[place : place + SHDR.size] = SHDR.pack(1 + 7 * row, 1, 2, 0, 0, len(data), 0, 0, 1, 0)
    data[table + SHDR.size * (count + 1) :] = SHDR.pack(0, 2, 0, 0, 0, 48, 1, 0, 1, 0)
    data[16:18] = b"\1\0"
    whole = bytes(data)
    return lambda: ModuleFile(BytesSource("bomb", whole)).linked({}, lambda name: None)


def _symbol_names_in_each_other() -> Attempt:
    rows = b"".join(struct.pack("<IBBHQQ", 1 + at, 0x12, 0, 1, 0xFFFF_FFFF_8100_0000 + at, 1) for at in range(50_000))
    assert len(rows) % ENTRY.itemsize == 0
    parts = [Part(".text", TEXT, bytes(64), flags=6), Part(".strtab", 0, b"\0" + b"n" * MIB + b"\0", 3, 0)]
    data = image([*parts, Part(".symtab", 0, rows, 2, 0, 2)])
    return lambda: image_symbols(Image(BytesSource("bomb", data))).names()


def _endless_notes() -> Attempt:
    return lambda: sum(1 for _ in parse_notes(struct.pack("<III", 0, 0, 1) * (4 * MIB), "bomb"))


# DWARF


def _lines(**changed: bytes) -> Attempt:
    """Asks for a line of a file whose sections are these (`info` for `.debug_info`), where they are not as they were."""
    sections = debug_sections(5) | {f".debug_{name}": data for name, data in changed.items()}
    return partial(SourceLines(_elf(image_with(sections))).at, TEXT + 4)


def _unit(entries: bytes) -> bytes:
    """A unit of one function that holds the text, and entries below it."""
    root = b"\x01" + struct.pack("<IQQ", 0, TEXT, 256) + b"\x02" + struct.pack("<QQ", TEXT, 256)
    body = struct.pack("<HBBI", 5, 1, 8, 0) + root + entries
    return struct.pack("<I", len(body)) + body


def _shape(code: int, tag: int, *attributes: tuple[int, int]) -> bytes:
    return uleb(code) + uleb(tag) + b"\1" + b"".join(uleb(a) + uleb(f) for a, f in attributes) + b"\0\0"


_SHAPES = _shape(1, 0x11, (0x10, 0x17), (0x11, 1), (0x12, 7)) + _shape(2, 0x2E, (0x11, 1), (0x12, 7))


def _siblings_inside() -> Attempt:
    """Blocks each of which says that its sibling is its own first child."""
    at = 12 + 21 + 17
    entries = b"".join(b"\x03" + struct.pack("<I", at + 5 * row + 5) for row in range(200))
    return _lines(info=_unit(entries + bytes(300)), abbrev=_SHAPES + _shape(3, 0x0B, (0x01, 0x13)) + b"\0")


def _strings_in_each_other() -> Attempt:
    """Entries of which each attribute is the same long string."""
    shape = _shape(3, 0x1D, *((0x2000 + number, 0x0E) for number in range(250)))
    entry = b"\x03" + bytes(4 * 250) + b"\0"
    info = _unit(entry * 20_000 + b"\0\0")
    return _lines(info=info, abbrev=_SHAPES + shape + b"\0", str=b"s" * 65_000 + b"\0")


def _many_attributes() -> Attempt:
    shape = _shape(3, 0x1D, *((0x2000 + number, 0x0E) for number in range(60_000)))
    info = _unit(b"\x03" + bytes(4 * 60_000) + b"\0\0\0")
    return _lines(info=info, abbrev=_SHAPES + shape + b"\0", str=b"s" * 65_000 + b"\0")


def _units_with_one_table() -> Attempt:
    """Small units without number that all read one large table of abbreviations."""
    table = b"".join(_shape(code, 0x2E, (0x03, 0x0E)) for code in range(2, 20_000)) + _SHAPES + b"\0"
    unit = struct.pack("<IHBBI", 8 + 21, 5, 1, 8, 0) + b"\x01" + struct.pack("<IQQ", 0, TEXT + 512, 256)
    return _lines(info=unit * 50_000, abbrev=table, aranges=b"")


def _ranges_again_and_again() -> Attempt:
    """Entries that all have one long list of ranges."""
    shape = _shape(3, 0x1D, (0x55, 0x17))
    info = _unit((b"\x03" + bytes(4) + b"\0") * 20_000 + b"\0\0")
    return _lines(info=info, abbrev=_SHAPES + shape + b"\0", rnglists=b"\x04\1\2" * 200_000 + b"\0")


def _packed_section(name: str, data: bytes) -> Attempt:
    body = struct.pack("<IIQQ", 1, 0, len(data), 1) + zlib.compress(data)
    parts = [Part(".text", TEXT, bytes(256), flags=6)]
    for title, plain in (debug_sections(5) | {name: data}).items():
        parts.append(Part(title, 0, body if title == name else plain, flags=0x800 if title == name else 0))
    return partial(SourceLines(_elf(image(parts))).at, TEXT + 4)


def _endless_rows() -> Attempt:
    program = (
        struct.pack("<HBBI", 5, 8, 0, 22) + bytes([1, 1, 1, 251, 14, 13]) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    )
    program += b"\0\0\0\0" + b"\xff" * (48 * MIB)
    return _packed_section(".debug_line", struct.pack("<I", len(program)) + program)


def _endless_aranges() -> Attempt:
    rows = struct.pack("<QQ", TEXT, 256) * (3 * MIB)
    head = struct.pack("<IHIBB4x", 12 + len(rows), 2, 0, 8, 0)
    return _packed_section(".debug_aranges", head + rows)


def _files_with_one_name() -> Attempt:
    fixed = bytes([1, 1, 1, 251, 14, 13]) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    tables = b"\x01\x01\x0e" + uleb(60_000) + bytes(4 * 60_000) + b"\x01\x01\x0e" + uleb(60_000) + bytes(4 * 60_000)
    body = struct.pack("<HBBI", 5, 8, 0, len(fixed + tables)) + fixed + tables
    return _lines(line=struct.pack("<I", len(body)) + body, str=b"s" * 65_000 + b"\0")


# The kernel's own symbols


def _digits_everywhere() -> Attempt:
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    return lambda: find_kallsyms(b"a\0" * 512 + digits * (2 * MIB), 0xFFFF_FFFF_8200_0000, "bomb")


def _counts_everywhere() -> Attempt:
    """Good tokens, and markers, behind words of which each may be the count and each begins a name."""
    texts, index, at = tokens(), b"", 0
    for text in texts:
        index, at = index + struct.pack("<H", at), at + len(text) + 1
    table = b"".join(text + b"\0" for text in texts)
    markers = struct.pack("<III", 0, 1100, 2300)
    data = struct.pack("<I", 0x203) * 40_000 + markers + bytes(8) + table + bytes(-len(table) % 8) + index
    return lambda: find_kallsyms(data, 0xFFFF_FFFF_8200_0000, "bomb")


# Types


def _anonymous_in_itself() -> Attempt:
    make = BtfBuilder()
    make.structure("task_struct", 8, [("", 1, 0), ("", 1, 64), ("", 1, 128)])
    return partial(make.built().structs.find, "task_struct", "thread.sp")


def _named_in_itself() -> Attempt:
    make = BtfBuilder()
    made = make.structure("task_struct", 8, [("", 1, 0), ("", 1, 64), ("", 1, 128)])
    compound = BtfTypes(make.built()).type(made)
    assert isinstance(compound, CompoundType)
    return partial(compound.member, "thread")


def _functions_of_functions() -> Attempt:
    make = BtfBuilder()
    made = make.function(0, [("f", 1)] * 60)
    return partial(declaration, BtfTypes(make.built()).type(made), "f")


def _enumerations() -> Attempt:
    make = BtfBuilder()
    names = [(0, number) for number in range(60_000)]
    state = make.add("state", kinds.ENUM, 4, [word for pair in names for word in pair], len(names))
    made = make.array(state, 60_000)
    return partial(read_value, BtfTypes(make.built()).type(made), b"\xff" * 240_000)


def _arrays_of_arrays() -> Attempt:
    make = BtfBuilder()
    made = make.integer("char", 1)
    for _ in range(20):
        made = make.array(made, 1 << 30)
    make.structure("task_struct", 8, [("comm", made, 0)])
    return lambda: bytes(make.built().structs.size_of_member("task_struct", "comm"))


def _type_names_in_each_other() -> Attempt:
    make = BtfBuilder()
    place = make.name("n" * 4000)
    data = bytearray(make.encode())
    types = b"".join(struct.pack("<III", place + at, kinds.STRUCT << 24, 0) for at in range(3900)) * 20
    struct.pack_into("<III", data, 12, len(types), len(types), len(data) - 24)
    whole = bytes(data[:24]) + types + bytes(data[24:])
    return lambda: kinds.Btf(whole, "bomb").structure_names


def _one_name_everywhere() -> Attempt:
    """A name that stands in the strings a hundred thousand times, and at as many types of another kind."""
    count, name = 150_000, b"task_struct\0"
    types = b"".join(struct.pack("<III", 1 + 12 * at, kinds.FWD << 24, 0) for at in range(count))
    sizes = (len(types), len(types), 1 + count * len(name))
    whole = struct.pack("<HBBIIIII", kinds.MAGIC, 1, 0, 24, 0, *sizes) + types + b"\0" + name * count
    return lambda: kinds.Btf(whole, "bomb").structs.exists("task_struct")


def _all_of_the_types() -> Attempt:
    """As many types as there may be, all of them of no name."""
    types = struct.pack("<III", 0, kinds.FWD << 24, 0) * (kinds.MAX_TYPES // 12)
    head = struct.pack("<HBBIIIII", kinds.MAGIC, 1, 0, 24, 0, len(types), len(types), 13)
    types_of = kinds.Btf(head + types + b"\0task_struct\0", "bomb")
    return lambda: (types_of.structs.exists("task_struct"), types_of.structure_names)


def _all_of_the_rows() -> Attempt:
    """As many ORC rows as there may be, in no order."""
    count = MAX_TABLE // 6
    ips = b"".join(struct.pack("<ii", 4, -4) for _ in range(1024)) * (count // 2048)
    rows = b"\x08\0\0\0\x05\x02" * (len(ips) // 4)
    return lambda: OrcTable("bomb", ips, TEXT, rows, TEXT, LAYOUT_6_4).find(TEXT + 64)


# Journals and the GDB remote protocol


def _journal() -> Attempt:
    head = b'{"orcdbg_patches": 1, "build_id": "", "release": "", "slide": "0x0","clusters":[\n'
    site = '{"mechanism":"","address":"%#x","size":1,"name":"","image":"00","expected":null,"decided_by":"","order":0}'
    line = '{"address":"%#x","image":"00","expected":null,"memory":null,"sites":[%s],"rows":[]},\n'
    data = head + b"".join((line % (at, ",".join([site % at] * 256))).encode() for at in range(1, 2400))
    return lambda: read_journal(io.BytesIO(data), "bomb")


def _registers() -> Attempt:
    document = b"<a>" * 100_000 + b'<reg name="rip" bitsize="0000000009999999992"/>'
    return lambda: read_description(lambda name: document)


def _repetition() -> Attempt:
    reader = PacketReader()
    reader.feed((b"$a" + b"*~" * 60_000 + b"#00") * 5)
    return lambda: [reader.take() for _ in range(8)]


BOMBS: dict[str, Callable[[], Attempt]] = {
    **{f"packed-{make.__name__[1:]}": partial(_packed, make) for make in (_gzip, _xz, _zstd, _lz4, _lzop)},
    "packed-section": _half_of_2_gb,
    "elf-names": _names_in_each_other,
    "elf-symbols": _symbol_names_in_each_other,
    "elf-notes": _endless_notes,
    "module-sections": _sections_in_each_other,
    "dwarf-siblings": _siblings_inside,
    "dwarf-strings": _strings_in_each_other,
    "dwarf-attributes": _many_attributes,
    "dwarf-units": _units_with_one_table,
    "dwarf-ranges": _ranges_again_and_again,
    "dwarf-rows": _endless_rows,
    "dwarf-aranges": _endless_aranges,
    "dwarf-files": _files_with_one_name,
    "kallsyms-digits": _digits_everywhere,
    "kallsyms-counts": _counts_everywhere,
    "btf-anonymous": _anonymous_in_itself,
    "btf-members": _named_in_itself,
    "btf-functions": _functions_of_functions,
    "btf-enumerations": _enumerations,
    "btf-arrays": _arrays_of_arrays,
    "btf-names": _type_names_in_each_other,
    "btf-find": _one_name_everywhere,
    "btf-types": _all_of_the_types,
    "orc-rows": _all_of_the_rows,
    "journal": _journal,
    "target-xml": _registers,
    "packets": _repetition,
}


def _peak() -> int:
    """Megabytes that this program had in memory at most; what it was forked from does not count."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


def _explode(name: str) -> None:
    attempt = BOMBS[name]()
    start = time.process_time()
    try:
        with clock():
            attempt()
        ending = "an answer"
    except OrcdbgError as error:
        ending = str(error)[:90]
    peak = _peak()
    print(f"{name:16} {time.process_time() - start:5.2f} s of CPU, peak so far {peak} MB: {ending}", flush=True)
    if peak >= MEMORY >> 20:
        raise SystemExit(f"{name}: more than {MEMORY >> 20} MB")


def main(words: Sequence[str] | None = None) -> None:
    """The command line; anything but an answer or an OrcdbgError ends the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.bombs", description=__doc__)
    parser.add_argument("names", nargs="+", choices=["all", *BOMBS])
    names = parser.parse_args(words).names
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, resource.RLIM_INFINITY))
    for name in BOMBS if names == ["all"] else names:
        _explode(name)


if __name__ == "__main__":
    main()
