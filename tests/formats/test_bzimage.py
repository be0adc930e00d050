"""Boot images: what is packed in them comes back whole, and what lies about itself is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats import codecs
from orcdbg.formats.bzimage import read_boot_image
from tests.build import elf
from tests.build.bzimage import PACKERS, bzimage, relocation_list

TEXT = 0xFFFF_FFFF_8100_0000
VMLINUX = elf.image([elf.Part(".text", TEXT, bytes(range(256)) * 64, flags=6)])
WIDE, INVERSE, NARROW = [TEXT + 8, TEXT + 64], [TEXT + 33], [TEXT + 1, TEXT + 5, TEXT + 90]


def link_addresses(places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    """As unsigned numbers."""
    return [place & (1 << 64) - 1 for place in places.tolist()]


@pytest.mark.parametrize("packer", PACKERS)
def test_each_codec_gives_the_vmlinux_and_its_relocations(packer: str) -> None:
    """All the ways that the kernel's build can pack it."""
    for inverse in (INVERSE, None):
        payload = VMLINUX + relocation_list(WIDE, inverse, NARROW)
        found = read_boot_image(BytesSource("vmlinuz", bzimage(payload, packer)))
        assert found.vmlinux.read_at(0, len(VMLINUX)) == VMLINUX
        assert found.relocations is not None
        lists = [link_addresses(one) for one in found.relocations]
        assert lists == [WIDE, NARROW, inverse or []]


def test_a_kernel_that_stays_in_place_has_no_list() -> None:
    """Nothing behind the ELF file is no list, not an empty one."""
    assert read_boot_image(BytesSource("vmlinuz", bzimage(VMLINUX, "gzip"))).relocations is None


@pytest.mark.parametrize(
    ("tail", "what"),
    [(relocation_list([5], [], [TEXT]), "not the kernel's"), (bytes(16), "parts"), (b"\1\0\0\x80" * 4, "parts")],
)
def test_a_list_that_cannot_be_one_is_refused(tail: bytes, what: str) -> None:
    """Better no list than a wrong one."""
    with pytest.raises(UnsupportedFormat, match=what):
        read_boot_image(BytesSource("vmlinuz", bzimage(VMLINUX + tail, "gzip")))


@pytest.mark.parametrize("packer", PACKERS)
def test_more_than_the_limit_is_not_unpacked(packer: str) -> None:
    """A small file with much in it ends at the limit."""
    packed = PACKERS[packer](bytes(20 << 20))
    assert len(packed) < 1 << 20
    with pytest.raises(UnsupportedFormat, match="larger"):
        codecs.decompressed(BytesSource("bomb", packed), 10 << 20)


def test_what_is_large_goes_through_a_file() -> None:
    """Byte for byte the same."""
    size = codecs.IN_MEMORY + (5 << 20)
    found = codecs.decompressed(BytesSource("large", PACKERS["zstd"](bytes(size - 4) + b"last")))
    assert (found.size, found.read_at(size - 5, 5)) == (size, b"\0last")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PACKERS)), st.randoms(use_true_random=False), st.integers(1, 4))
def test_damage_gives_an_image_or_an_error(packer: str, chance: random.Random, hits: int) -> None:
    """Changed and missing bytes anywhere, header and packed data alike."""
    data = bytearray(bzimage(VMLINUX + relocation_list(WIDE, INVERSE, NARROW), packer))
    for _ in range(hits):
        at = chance.choice(
            (chance.randrange(len(data)), chance.randrange(0x1F0, 0x260), chance.randrange(0x840, 0x8A0))
        )
        data[at : at + 1] = chance.choice((b"\0", b"\xff", chance.randbytes(1), b""))
    try:
        found = read_boot_image(BytesSource("vmlinuz", bytes(data)))
    except OrcdbgError:
        return
    assert found.vmlinux.size <= 16 << 20
