"""What of the tables inside a kernel's files may be damaged: types, ORC rows, symbols, call frames, journals, packets.

Part of `python -m tests.fuzz_images`. Each is small enough for thousands of cases a second, and is held against a second
opinion where there is one: a scan of all rows, the same stream in other pieces, the same journal written again.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from orcdbg.base.errors import NotFound, RemoteError
from orcdbg.base.reading import signed
from orcdbg.base.sizes import U64
from orcdbg.formats.callframe import CallFrames
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, Section
from orcdbg.gdb.client import parse_stop
from orcdbg.gdb.packets import Arrived, Kind, PacketReader, encode_packet, from_hex, number
from orcdbg.gdb.target_description import MAX_BITS, MAX_REGISTERS, read_description
from orcdbg.orc.rows import ENTRY as ROW
from orcdbg.orc.rows import FUNCTION_ENTRY, LAYOUT_6_4, LAYOUTS
from orcdbg.orc.table import OrcTable
from orcdbg.patches.journal import Journal, JournalLedger, cluster_json, read_journal, write_journal
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf
from orcdbg.symbols.table import ENTRY, SymbolTable
from orcdbg.typed.btf_types import BtfTypes
from orcdbg.typed.declarations import declaration
from orcdbg.typed.types import CompoundType, resolved
from orcdbg.typed.values import read_value
from tests.build.btf import BtfBuilder
from tests.build.stub import DOCUMENTS
from tests.fuzz_case import Fact, Format, asked, judged

TEXT = 0xFFFF_FFFF_8100_0000
_BTF_HEADER = 24
_LONGEST_TEXT = 1 << 20


# Types


def sample_types() -> tuple[bytes, dict[str, int]]:
    """BTF of each kind that kernels have, and where among its types each named structure ends."""
    make, ends = BtfBuilder(), dict[str, int]()

    def structure(name: str, *arguments: object, **options: object) -> int:
        made = make.structure(name, *arguments, **options)  # type: ignore[arg-type]
        ends[name] = int.from_bytes(make.encode()[12:16], "little")
        return made

    word, letter = make.integer("long unsigned int", 8), make.integer("char", 1, 2)
    small, flag = make.integer("int", 4, 1), make.integer("_Bool", 1, 4)
    head = structure("list_head", 16, [("next", 8, 0), ("prev", 8, 64)])
    make.add("", kinds.VOLATILE, word)
    make.pointer(6)
    make.pointer(head)
    ends["list_head"] = int.from_bytes(make.encode()[12:16], "little")  # it names the last of these
    state = make.enumeration("state", [("RUNNING", 0), ("SLEEPING", 1)])
    make.add("big", kinds.ENUM64, 8, [make.name("HUGE"), 0, 1], 1)
    alias = make.add("alias_t", kinds.TYPEDEF, head)
    call = make.function(small, [("text", 8), ("", 0)])
    union = make.structure("", 8, [("word", word, 0), ("flag", flag, 0)], kinds.UNION)
    name = make.array(letter, 16)
    structure(
        "task_struct",
        96,
        [("list", alias, 0), ("", union, 128), ("state", state, 192), ("comm", name, 256), ("call", call, 384)],
    )
    structure("orc_entry", 6, [("sp_offset", small, 0), ("type", word, 3 << 24 | 32)], flag=True)
    make.add("later", kinds.FWD, 0)
    make.add("data", kinds.DATASEC, 8, [1, 0, 8], 1)
    make.add("made", kinds.FLOAT, 8)
    make.add("tag", kinds.DECL_TAG, head, [1])
    structure("pt_regs", 168, [(register, word, 64 * at) for at, register in enumerate(("ip", "sp", "bp"))])
    return make.encode(), ends


def _read_structure(types: BtfTypes, name: str) -> list[object]:
    candidates = [types.find(keyword, name) for keyword in ("struct", "union", "")]
    compound = next(
        (plain for plain in map(resolved, filter(None, candidates)) if isinstance(plain, CompoundType)), None
    )
    if compound is None:
        raise NotFound("structure", name)
    places = [(member.name, member.bit_offset, member.bit_size) for member in compound.members]
    texts = [declaration(member.type, member.name) for member in compound.members]
    assert sum(map(len, texts)) < _LONGEST_TEXT
    values = [
        read_value(member.type, bytes(range(128)), member.bit_offset, member.bit_size) for member in compound.members
    ]
    return [places, texts, values]


def _types(data: bytes) -> None:
    types = Btf(data, "case")
    index, c_types = types.structs, BtfTypes(types)
    names = ("task_struct", "list_head", "orc_entry", "pt_regs")
    places = [(name, path) for name in names for path in ("list.next", "flag", "type", "ip", "comm", "prev")]
    asked(
        *(partial(index.find, *place) for place in places),
        *(partial(index.array_length, *place) for place in places),
        *(partial(index.size, name) for name in names),
        *(partial(_read_structure, c_types, name) for name in (*names, "alias_t")),
        lambda: types.structure_names,
        partial(index.size_of_member, "task_struct", "comm"),
        partial(index.points_to_integer, "list_head", "next"),
    )


def _btf() -> Format:
    whole, ends = sample_types()
    strings = _BTF_HEADER + int.from_bytes(whole[12:16], "little")

    def structure(name: str) -> Fact:
        def ask(data: bytes) -> object:
            types = Btf(data, "case")
            return _read_structure(BtfTypes(types), name), types.structs.members(name)

        return Fact(ask, [(0, _BTF_HEADER + ends[name]), (strings, len(whole))])

    attempt = judged(whole, [structure(name) for name in ends], _types)
    return Format(whole, [(0, _BTF_HEADER), (_BTF_HEADER, strings), (strings, len(whole))], attempt)


# ORC rows


def sample_rows(count: int, start: int) -> tuple[bytes, bytes]:
    """A table of functions of sixteen bytes each: addresses, counted from their own places at `start`, and rows."""
    places = range(start, start + 4 * count, 4)
    ips = b"".join(struct.pack("<i", TEXT + 16 * row - place) for row, place in enumerate(places))
    pushed = FUNCTION_ENTRY._replace(sp_offset=16)
    rows = b"".join(LAYOUT_6_4.encode(FUNCTION_ENTRY if row % 3 else pushed) for row in range(count))
    return ips, rows


def _orc() -> Format:
    count, head = 40, 16
    start = TEXT + 0x10_0000
    ips, rows = sample_rows(count, start)
    split = head + len(ips)
    whole = struct.pack("<QQ", start, start + 0x1000) + ips + rows

    def attempt(data: bytes) -> None:
        ips_at, rows_at = struct.unpack_from("<QQ", data.ljust(head, b"\0"))
        for layout in LAYOUTS:
            table = OrcTable("case", data[head:split], ips_at, data[split:], rows_at, layout)
            addresses = [
                ips_at + 4 * row + signed(int.from_bytes(data[head + 4 * row : head + 4 * row + 4], "little"), 32) & U64
                for row in range(len(table))
            ]
            for address in (0, 1 << 63, U64, TEXT, TEXT + 33, TEXT + 16 * count, *addresses[:4]):
                found = table.find(address)
                below = [one for one in addresses if one <= address]
                assert (found is None) == (not below)
                if found is not None:
                    assert found.entry_ip == max(below)
                    places = [row for row, one in enumerate(addresses) if one == found.entry_ip]
                    assert found.raw in [data[split + ROW.size * row : split + ROW.size * (row + 1)] for row in places]

    return Format(whole, [(0, head), (head, split), (split, len(whole))], attempt)


# Symbols


def _symbols() -> Format:
    strings, rows = b"\0", []
    for at in range(30):
        rows.append((len(strings), 0x12 if at % 2 else 0x02, 0, 1 + at % 2, TEXT + 16 * (at // 2), 16))
        strings += f"function_{at}".encode() + b"\0"
    entries = np.array(rows, dtype=ENTRY).tobytes()
    split, whole = len(entries), entries + strings
    flags = SHF_ALLOC | SHF_EXECINSTR
    sections = [Section(name, 1, flags, TEXT, 0, 4096, 0, 0, 0) for name in ("", ".text", ".init.text")]

    def table(data: bytes) -> SymbolTable:
        return SymbolTable("case", data[:split], data[split:], sections, TEXT)

    def attempt(data: bytes) -> None:
        found = table(data)

        def at(address: int) -> None:
            span = found.at(address)
            assert span is None or span.symbol.address <= address

        def named(name: str) -> None:
            symbol = found.find(name)
            assert symbol is None or symbol.name == name

        asked(
            *(partial(at, address) for address in (0, TEXT - 1, TEXT, TEXT + 40, U64, -1)),
            *(partial(named, name) for name in ("function_1", "function_29", "", "no")),
            partial(found.starting, "function_"),
            found.names,
            partial(found.containing, "_2"),
        )

    def fact(row: int) -> Fact:
        # Another entry could have taken its name.
        size, fields = ENTRY.itemsize, [(at, at + 4) for at in range(0, split, ENTRY.itemsize)]
        return Fact(
            lambda data: table(data).find(f"function_{row}"),
            [(row * size, row * size + size), (split, len(whole)), *fields],
        )

    return Format(whole, [(0, split), (split, len(whole))], judged(whole, [fact(3), fact(28)], attempt))


# Call frames


def _entry(identity: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 8)
    return struct.pack("<II", len(body) + 4, identity) + body


def _call_frames() -> Format:
    common = b"\x01\0\x01\x78\x10\x0c\x07\x08\x90\x01"
    whole = _entry(0xFFFF_FFFF, common)
    bodies = (
        b"\x41\x0e\x10\x86\x02\x43\x0d\x06\x02\x20\xc6\x0c\x07\x08",
        b"\x41\x0e\x10\x83\x02\x41\x0a\xc3\x0e\x08\x41\x0b",
        b"\x41\x0f\x03\x76\x78\x06\x10\x03\x02\x76\x70",
    )
    for at, body in enumerate(bodies):
        whole += _entry(0, struct.pack("<QQ", TEXT + 0x100 * at, 0x100) + body)

    def attempt(data: bytes) -> None:
        frames = CallFrames(data, "case")
        asked(*(partial(frames.row, TEXT + at) for at in (0, 1, 5, 0x24, 0x101, 0x102, 0x2FF, -1)))

    return Format(whole, [(0, 40), (0, len(whole))], attempt)


# Journals


def _written(journal: Journal) -> bytes:
    file = io.BytesIO()
    head = {"build_id": journal.build_id, "release": journal.release, "slide": f"{journal.slide:#x}"}
    places, stack = ((cluster_json(one, None, ()) for one in which) for which in (journal.clusters, journal.stack))
    write_journal(file, head, places, stack)
    return file.getvalue()


def _journal() -> Format:
    def place(address: int, size: int) -> Cluster:
        site = PatchSite("alternative", address, size, "X86_FEATURE_X", bytes(size), b"\x90" * size, "CPU has it", 3)
        return Cluster(address, bytes(size), b"\x90" * size, (site,))

    places = [place(TEXT + 32 * at, 1 + at) for at in range(6)]
    whole = _written(Journal("case", "ab" * 20, "6.1", 0x100_0000, places, places[2:4]))
    last = len(whole)

    def attempt(data: bytes) -> None:
        found = read_journal(io.BytesIO(data), "case")
        again = read_journal(io.BytesIO(_written(found)), "case")
        assert again == found
        for clusters in (found.clusters, found.stack):
            assert all(one.end <= two.address for one, two in itertools.pairwise(clusters))
            assert all(len(one.expected or one.image) == len(one.image) for one in clusters)
            ledger = JournalLedger(clusters)
            assert all(ledger.find(one.address) == one for one in clusters)

    fact = Fact(lambda data: read_journal(io.BytesIO(data), "case").clusters, [(0, whole.index(b"stack"))])
    return Format(whole, [(0, 120), (0, last), (last - 300, last)], judged(whole, [fact], attempt))


# The GDB remote protocol


def _target_description() -> Format:
    names = list(DOCUMENTS)
    whole = b"\0".join(DOCUMENTS[name].encode() for name in names)

    def attempt(data: bytes) -> None:
        documents = dict(zip(names, data.split(b"\0"), strict=False))

        def fetch(name: str) -> bytes:
            if name not in documents:
                raise RemoteError(f"no document {name}")
            return documents[name]

        offset = 0
        places = read_description(fetch)
        for _, at, size in places:
            assert at == offset and 0 < size <= MAX_BITS // 8
            offset += size
        assert len(places) <= MAX_REGISTERS + 1

    return Format(whole, [(0, 80), (0, len(whole))], attempt)


def _taken(pieces: Sequence[bytes]) -> list[Arrived] | str:
    """What arrives in these pieces, or the words of the error."""
    reader, found = PacketReader(), list[Arrived]()
    try:
        for piece in pieces:
            reader.feed(piece)
            while (arrived := reader.take()) is not None:
                found.append(arrived)
    except RemoteError as error:
        return error.message
    return found


def _packets() -> Format:
    said = [b"T05thread:01;", b"PacketSize=1000;qXfer:features:read+", b"m01,02,03", b"l", b"E14", b"0* ", b"a}\x03"]
    whole = b"+" + b"+".join(encode_packet(one) for one in said[:5])
    whole += b"".join(b"$%s#%02x" % (one, sum(one) & 0xFF) for one in said[5:]) + b"%%%s#%02x-\x03" % (
        b"Stop:T05",
        sum(b"Stop:T05") & 0xFF,
    )

    def attempt(data: bytes) -> None:
        once = _taken([data])
        assert once == _taken([data[at : at + 7] for at in range(0, len(data), 7)])
        if isinstance(once, str):
            raise RemoteError(once)
        for kind, payload in once:
            assert len(payload) < _LONGEST_TEXT and (payload == b"" or kind in (Kind.PACKET, Kind.NOTIFICATION))
            for question in (parse_stop, partial(from_hex, what=""), partial(number, what="")):
                with contextlib.suppress(RemoteError):
                    question(payload)
        if Kind.DAMAGED in [arrived.kind for arrived in once]:
            raise RemoteError("a packet arrived damaged")

    return Format(whole, [(0, len(whole))], attempt)


TABLES: dict[str, Callable[[], Format]] = {
    "btf-kinds": _btf,
    "orc": _orc,
    "symbols": _symbols,
    "call-frames": _call_frames,
    "journal": _journal,
    "target-xml": _target_description,
    "packets": _packets,
}
