"""Does any damage to a small file of each format give an answer or an OrcdbgError, within 1 GB and 10 s?

    python -m tests.fuzz FORMAT|all --count 100000 --seed 1

Each case is a valid small file with some bytes changed, moved or cut off; its number and the seed make it again.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import BytesSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.flattened import FlattenedSource
from orcdbg.image.vmlinux import Image
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.elf_core import open_elf_core
from orcdbg.snapshot.readers.kdump import open_kdump
from orcdbg.snapshot.readers.lime import open_lime
from orcdbg.snapshot.readers.vmware import open_vmware
from orcdbg.snapshot.readers.vmware_guest import open_guest
from orcdbg.snapshot.search import NOTE, find_marks, read_note
from orcdbg.symbols.btf import Btf
from tests.build.elf import Load, core, note, prstatus
from tests.build.kdump import LZO, SNAPPY, ZLIB, ZSTD, Kdump, flattened
from tests.build.memory_files import avml, debug_guest, lime, vmss
from tests.fuzz_case import MEMORY, NUMBERS, Format, try_cases

INFO = b"OSRELEASE=6.1.0\nKERNELOFFSET=1000000\nNUMBER(phys_base)=0\n"
FRAMES = (0, 1, 2, 5, 80)
ADDRESSES = (*(frame * PAGE for frame in FRAMES), 81 * PAGE, 0x9000, 0x19000, 1 << 40, (1 << 64) - PAGE)


def _read_all(snapshot: Snapshot) -> None:
    for address in ADDRESSES:
        for size in (8, 600, PAGE, 70 * PAGE):
            try:
                assert len(snapshot.physical.read(address, size)) == size
            except OrcdbgError:
                continue
    for _, _ in zip(range(100), snapshot.ranges() if snapshot.ranges else (), strict=False):
        pass


def _search(snapshot: Snapshot) -> None:
    held = sum(end - start for start, end in snapshot.ranges()) if snapshot.ranges else 0
    if held < 1 << 24:
        for mark in find_marks(snapshot, {"note": NOTE})["note"]:
            read_note(snapshot, mark)


def _snapshot(opener: Callable[[BytesSource], Snapshot]) -> Callable[[bytes], None]:
    def attempt(data: bytes) -> None:
        snapshot = opener(BytesSource("case", data))
        _read_all(snapshot)
        _search(snapshot)

    return attempt


def _kdump(source: BytesSource) -> Snapshot:
    return open_kdump([source])


def _flattened(source: BytesSource) -> Snapshot:
    return open_kdump([FlattenedSource(source)])


def _try_btf(data: bytes) -> None:
    structs = Btf(data, "case").structs
    for name, path in (("task_struct", "thread.sp"), ("list_head", "next"), ("pt_regs", "ip"), ("orc_entry", "type")):
        try:
            structs.find(name, path)
        except OrcdbgError:
            continue


def _sample_btf() -> bytes:
    from orcdbg.cli.main import sample_files
    from orcdbg.image.vmlinux import open_image

    image: Image = open_image(sample_files()[0])
    return image.section_data(".BTF")


def _dump(packing: int) -> Format:
    chance = random.Random(packing)
    pages = {
        frame: chance.choice((bytes(PAGE), chance.randbytes(4) * 1024, chance.randbytes(PAGE))) for frame in FRAMES
    }
    notes = prstatus({}, 1) + note("VMCOREINFO", 0, INFO)
    data = Kdump(pages, packing, notes=notes, vmcoreinfo=INFO, excluded=[3]).encode()
    table = 4 * PAGE
    regions = [(0, 464), (PAGE, PAGE + 104), (2 * PAGE, 2 * PAGE + 12), (3 * PAGE, 3 * PAGE + 12)]
    return Format(data, [*regions, (table, table + 120), (table + 120, len(data))], _snapshot(_kdump))


def make_formats() -> dict[str, Callable[[], Format]]:
    """How each format's valid file is made, by name.

    Each reader of `orcdbg/snapshot/readers/` has one here at least; `tests/snapshot/test_opening.py` finds who has none.
    """
    small = {0x1000: bytes(range(256)) * 20, 0x9000: bytes(70000)}
    notes = prstatus({}, 1) + note("VMCOREINFO", 0, INFO)
    page = note("VMCOREINFO", 0, INFO).ljust(PAGE, b"\1")

    def flat() -> Format:
        data = flattened(_dump(ZLIB).whole, block=3000)
        return Format(
            data, [(0, 32), *((at, at + 16) for at in range(PAGE, len(data) - 16, 3016))], _snapshot(_flattened)
        )

    def elf() -> Format:
        data = core([Load(0x1000, page * 5), Load(0x9000, page * 2)], notes)
        return Format(data, [(0, 64), (64, 64 + 3 * 56), (232, 700)], _snapshot(open_elf_core))

    def avml_file() -> Format:
        data = avml(small)
        return Format(data, [(0, 32), (32, 60), (len(data) - 4000, len(data))], _snapshot(open_lime))

    def vmware() -> Format:
        registers = [{"rip": 1, "rsp": 2, "cr3": 3}]
        data = vmss(page * 5, [(0, 1, 2), (2, 9, 3)], registers)
        return Format(data, [(0, 252), (252, 500), (len(data) - 200, len(data))], _snapshot(open_vmware))

    def vmware_blocks() -> Format:
        registers = [{"rax": 7, "rip": 1, "rsp": 2, "cr3": 3, "idt": 4, "cs": 0x10}]
        data = vmss(page * 5, [(0, 1, 2), (2, 9, 3)], registers, in_blocks=True)
        return Format(data, [(0, 252), (252, 700), (len(data) - 500, len(data))], _snapshot(open_vmware))

    def vmware_guest() -> Format:
        data = debug_guest(5, 5, [{"rip": 1, "rsp": 2, "cr3": 3}], [(2, 3)])
        memory = BytesSource("memory", page * 5)
        return Format(data, [(0, 80), (80, 500)], _snapshot(lambda source: open_guest(source, memory)))

    def btf() -> Format:
        data = _sample_btf()
        return Format(data, [(0, 24), (24, 6000), (24, len(data))], _try_btf)

    return {
        "kdump-zlib": lambda: _dump(ZLIB),
        "kdump-lzo": lambda: _dump(LZO),
        "kdump-snappy": lambda: _dump(SNAPPY),
        "kdump-zstd": lambda: _dump(ZSTD),
        "flattened": flat,
        "elf": elf,
        "lime": lambda: Format(lime(small), [(0, 32), (5152, 5184)], _snapshot(open_lime)),
        "avml": avml_file,
        "vmware": vmware,
        "vmware-blocks": vmware_blocks,
        "vmware-guest": vmware_guest,
        "btf": btf,
    }


def mutate(whole: bytes, regions: Sequence[tuple[int, int]], chance: random.Random) -> bytes:
    """The file with one to six changes, most of them where the headers are."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        start, end = chance.choice(regions)
        at = chance.randrange(start, end)
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([data[at] ^ 1 << chance.randrange(8)]) if at < len(data) else b""
        elif kind <= 3:
            size = chance.choice((1, 2, 4, 8))
            at -= (at - start) % size
            number = chance.choice(NUMBERS) if chance.random() < 0.7 else chance.getrandbits(64)
            data[at : at + size] = struct.pack("<Q", number)[:size]
        elif kind == 4:
            source = chance.randrange(len(whole))
            data[at : at + 16] = whole[source : source + 16]
        else:
            del data[chance.randrange(len(data) + 1) :]
            if len(data) <= end:
                break
    return bytes(data)


def _changed(form: Format, chance: random.Random) -> bytes:
    return mutate(form.whole, form.regions, chance)


def run(name: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Tries `count` damaged files of a format: how often each ending came, and what was wrong."""
    return try_cases(name, make_formats()[name](), _changed, count, seed)


def report(name: str, count: int, seed: int, found: Callable[[str, int, int], tuple[Counter[str], list[str]]]) -> bool:
    """Runs a format's cases and prints a line, and what was wrong; True when nothing was."""
    start = time.perf_counter()
    endings, wrong = found(name, count, seed)
    shown = ", ".join(f"{number} {what}" for what, number in endings.most_common())
    print(f"{name:16} seed {seed}: {count} cases in {time.perf_counter() - start:.0f} s: {shown}", flush=True)
    for line in wrong[:5]:
        print(line, file=sys.stderr)
    return not wrong


def main(words: Sequence[str] | None = None) -> int:
    """Runs what was asked for; status 1 when something was wrong."""
    names = list(make_formats())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("format", choices=[*names, "all"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args(words)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    asked_for = names if options.format == "all" else [options.format]
    results = [report(name, options.count, options.seed, run) for name in asked_for]
    return int(not all(results))


if __name__ == "__main__":
    raise SystemExit(main())
