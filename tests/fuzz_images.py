"""Does any damage to a boot image, its list of relocations, or the kernel's own symbol tables give an answer or an error?

    python -m tests.fuzz_images NAME|all --count 100000 --seed 1

Each case is a valid small file with some bytes changed, moved or cut off; its number and the seed make it again.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import BytesSource
from orcdbg.formats.bzimage import read_boot_image
from orcdbg.formats.kallsyms import find_kallsyms
from tests.build import elf
from tests.build.bzimage import PACKERS, bzimage, relocation_list
from tests.build.kallsyms import Named, tables

TEXT, RODATA = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000
SECONDS, MEMORY = 10, 1 << 30
HEADER, PAYLOAD = (0x1F0, 0x260), 0x840
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


@dataclass(frozen=True, slots=True)
class Format:
    """A valid file, where its headers are, and what is to be tried with any bytes."""

    whole: bytes
    regions: Sequence[tuple[int, int]]
    attempt: Callable[[bytes], None]


def _boot_image(data: bytes) -> None:
    found = read_boot_image(BytesSource("case", data))
    if found.relocations is not None:
        assert all((part < 0).all() for part in found.relocations)


def _kallsyms(data: bytes) -> None:
    found = find_kallsyms(data, RODATA, "case")
    assert len(found.addresses) == len(found.letters) == len(found.name_at)


def _packed(packer: str) -> Callable[[], Format]:
    def make() -> Format:
        vmlinux = elf.image([elf.Part(".text", TEXT, random.Random(1).randbytes(9000), flags=6)])
        whole = bzimage(vmlinux + relocation_list([TEXT + 8], [TEXT + 16], [TEXT + 1, TEXT + 5]), packer)
        return Format(whole, [HEADER, (PAYLOAD, PAYLOAD + 64), (len(whole) - 128, len(whole))], _boot_image)

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
}


def damaged(form: Format, chance: random.Random) -> bytes:
    """The file with one to four pieces of damage, mostly in its headers."""
    data = bytearray(form.whole)
    for _ in range(chance.randint(1, 4)):
        low, high = chance.choice([*form.regions, (0, len(data))])
        at = chance.randrange(low, max(low + 1, min(high, len(data))))
        size = chance.choice((1, 2, 4, 8))
        kind = chance.randrange(5)
        if kind == 0:
            data[at : at + 1] = chance.randbytes(1)
        elif kind == 1:
            data[at : at + size] = (chance.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif kind == 2:
            data[at : at + size] = b""
        elif kind == 3:
            data[at:at] = chance.randbytes(size)
        elif chance.random() < 0.2:
            del data[at:]
    return bytes(data)


def run(name: str, count: int, seed: int) -> Counter[str]:
    """Tries `count` cases; how many gave an answer and how many an error. Anything else is raised, with its number."""
    form, seen = FORMATS[name](), Counter[str]()
    for number in range(count):
        signal.alarm(SECONDS)
        try:
            form.attempt(damaged(form, random.Random(f"{name} {seed} {number}")))
            seen["answers"] += 1
        except OrcdbgError:
            seen["errors"] += 1
        except BaseException:
            print(f"{name}: case {number} of seed {seed}", file=sys.stderr)
            raise
        finally:
            signal.alarm(0)
    return seen


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["all", *FORMATS])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_AS, (MEMORY + (1 << 30), resource.RLIM_INFINITY)
    )  # libraries map much, use little
    for name in FORMATS if options.name == "all" else [options.name]:
        print(name, dict(run(name, options.count, options.seed)), f"seed {options.seed}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"peak memory {peak} MB")
    if peak > MEMORY >> 20:
        raise SystemExit(f"more than {MEMORY >> 20} MB")


if __name__ == "__main__":
    main()
