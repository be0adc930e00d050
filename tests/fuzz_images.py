"""Does any damage to a kernel's files, or to the tables in them, give an answer that is true, or an error?

    python -m tests.fuzz_images NAME|all --count 100000 --seed 1

Boot images, relocations and the kernel's own symbol tables; with `tests/fuzz_elf.py` ELF files and DWARF, and with
`tests/fuzz_tables.py` types, ORC rows, symbols, call frames, journals, and packets. Each case is a valid small file with
some bytes changed, moved or cut off; its number and the seed make it again.
"""

from __future__ import annotations

import argparse
import random
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from orcdbg.base.reading import BytesSource
from orcdbg.formats.bzimage import read_boot_image
from orcdbg.formats.kallsyms import find_kallsyms
from tests.build import elf
from tests.build.bzimage import PACKERS, bzimage, relocation_list
from tests.build.kallsyms import Named, tables
from tests.fuzz import report
from tests.fuzz_case import MEMORY, Format, damaged, try_cases
from tests.fuzz_elf import FILES
from tests.fuzz_tables import TABLES

TEXT, RODATA = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000
HEADER, PAYLOAD = (0x1F0, 0x260), 0x840
CHECKED = ("gzip", "xz", "bzip2")  # these carry a checksum: what they unpack to is what was packed


def _boot_image(data: bytes, truth: bytes | None = None) -> None:
    found = read_boot_image(BytesSource("case", data))
    if truth is not None:
        assert found.vmlinux.read_at(0, found.vmlinux.size) == truth
    if found.relocations is not None:
        assert all((part < 0).all() for part in found.relocations)


def _kallsyms(data: bytes) -> None:
    found = find_kallsyms(data, RODATA, "case")
    assert len(found.addresses) == len(found.letters) == len(found.name_at)


def _packed(packer: str) -> Callable[[], Format]:
    def make() -> Format:
        vmlinux = elf.image([elf.Part(".text", TEXT, random.Random(1).randbytes(9000), flags=6)])
        payload = vmlinux + relocation_list([TEXT + 8], [TEXT + 16], [TEXT + 1, TEXT + 5])
        whole = bzimage(payload, packer)
        attempt = partial(_boot_image, truth=payload) if packer in CHECKED else _boot_image
        return Format(whole, [HEADER, (PAYLOAD, PAYLOAD + 64), (len(whole) - 128, len(whole))], attempt)

    return make


def _relocations() -> Format:
    vmlinux = elf.image([elf.Part(".text", TEXT, bytes(512), flags=6)])
    whole = vmlinux + relocation_list([TEXT + 8], [TEXT + 16], [TEXT + 1, TEXT + 5])

    def attempt(data: bytes) -> None:
        _boot_image(bzimage(data, "zstd"))

    return Format(whole, [(0, 64), (len(vmlinux) - 192, len(vmlinux)), (len(vmlinux), len(whole))], attempt)


def _symbols(encoding: str, addresses_first: bool) -> Callable[[], Format]:
    def make() -> Format:
        symbols = [Named(TEXT + 16 * n, "t", f"sys_read{n}") for n in range(600)] + [Named(RODATA, "D", "linux_banner")]
        head = b"Linux version 6\n\0".ljust(64, b"\0")
        whole = head + tables(symbols, encoding, RODATA + len(head), addresses_first) + bytes(64)
        return Format(whole, [(64, 80), (0, 3000), (len(whole) - 6000, len(whole))], _kallsyms)

    return make


FORMATS: dict[str, Callable[[], Format]] = {
    **{f"bzimage-{packer}": _packed(packer) for packer in PACKERS},
    "relocations": _relocations,
    "kallsyms-old": _symbols("per-cpu", True),
    "kallsyms-base": _symbols("base", False),
    "kallsyms-self": _symbols("self", False),
    **FILES,
    **TABLES,
}


def run(name: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Tries `count` damaged files of a format: how often each ending came, and what was wrong."""
    return try_cases(name, FORMATS[name](), damaged, count, seed)


def main(words: Sequence[str] | None = None) -> int:
    """Runs what was asked for; status 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_images", description=__doc__)
    parser.add_argument("name", choices=["all", *FORMATS])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args(words)
    # Libraries map much and use little.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + (1 << 30), resource.RLIM_INFINITY))
    names = FORMATS if options.name == "all" else [options.name]
    results = [report(name, options.count, options.seed, run) for name in names]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"peak memory {peak} MB")
    return int(not all(results) or peak > MEMORY >> 20)


if __name__ == "__main__":
    raise SystemExit(main())
