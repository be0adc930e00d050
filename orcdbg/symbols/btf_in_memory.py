"""Where does the memory of a running kernel hold the kernel's own BTF?

A kernel with BTF keeps it in its read-only data for as long as it runs: since 5.4 (commit 341dfcf8d78e, "btf: expose BTF info
through sysfs") between `_binary__btf_vmlinux_bin_start` and `..._end`, since 5.7 (commit 90ceddcb4950, "bpf: Support
llvm-objcopy for vmlinux BTF") between `__start_BTF` and `__stop_BTF`. So a vmlinux that was stripped of it lacks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from orcdbg.base.errors import NotFound, OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import AddressSpace
from orcdbg.image.memory_image import MAX_AREA, present_bytes
from orcdbg.image.vmlinux import MAX_TABLE
from orcdbg.symbols.btf import HEADER, MAGIC, VERSION, Btf

# What looks like a header and is none of the kernel's: BPF programs that the kernel has in its read-only data have BTF too
# (kernel/bpf/preload, since 5.10).
MAX_CANDIDATES = 64

_MARK = MAGIC.to_bytes(2, "little") + bytes([VERSION])
# 24 bytes, or 32 with the layout of kinds (BTF_KIND_LAYOUT).
_HEADER_SIZES = range(HEADER.size, 65)

# The symbols that bound it, the newest first.
BOUNDS = (("__start_BTF", "__stop_BTF"), ("_binary__btf_vmlinux_bin_start", "_binary__btf_vmlinux_bin_end"))

NAME = "BTF in memory"


class BtfInMemory(NamedTuple):
    """BTF and the run-time address that it is at."""

    btf: Btf
    address: int


def find_btf(
    memory: AddressSpace,
    bounds: tuple[int, int] | None,
    area: Callable[[], tuple[int, int]],
    check: Callable[[Btf], None],
) -> BtfInMemory:
    """The kernel's BTF.

    Args:
        memory: kernel virtual memory.
        bounds: run-time addresses [start, end) of the section, where symbols tell them.
        area: gives those of the kernel's image, which is searched where no symbol tells.
        check: raises an OrcdbgError for BTF that cannot be the kernel's.

    Raises:
        NotFound: there is none.
        MemoryFault: it is not whole in the snapshot.
        OrcdbgError: it is damaged, or not the kernel's.
    """
    if bounds is not None:
        start, end = bounds
        if not 0 < end - start <= MAX_TABLE:
            raise UnsupportedFormat(NAME, f"{end - start} bytes of BTF")
        return BtfInMemory(_checked(memory.read(start, end - start), start, check), start)

    first, last = area()
    refused: OrcdbgError | None = None
    for address, size in _candidates(memory, first, min(last, first + MAX_AREA)):
        try:
            return BtfInMemory(_checked(memory.read(address, size), address, check), address)
        except OrcdbgError as error:
            refused = refused or error
    raise refused or NotFound("BTF", "in the kernel's image in memory")


def _checked(data: bytes, address: int, check: Callable[[Btf], None]) -> Btf:
    btf = Btf(data, f"{NAME} at {address:#x}")
    btf.check_whole()
    check(btf)
    return btf


def _candidates(memory: AddressSpace, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Address and size of whatever begins as BTF does and ends in the area, the largest first."""
    # What has a gap of zeros in it here is read once more, and then faults.
    data = present_bytes(memory, first, max(first, last))
    found: list[tuple[int, int]] = []
    place = data.find(_MARK)
    while place >= 0 and len(found) < MAX_CANDIDATES:
        size = _plausible_size(data[place : place + HEADER.size])
        if size is not None and place + size <= len(data):
            found.append((size, first + place))
        place = data.find(_MARK, place + 1)
    # The kernel's own has a hundred times what any BPF program needs.
    return ((address, size) for size, address in sorted(found, reverse=True))


def _plausible_size(header: bytes) -> int | None:
    """The size of a section by its header, None where no section of a kernel begins so."""
    if len(header) < HEADER.size:
        return None
    _, _, flags, header_size, type_offset, type_size, string_offset, string_size = HEADER.unpack(header)
    is_plausible = (
        not flags
        and header_size in _HEADER_SIZES
        and not (type_offset | type_size) % 4
        and type_offset + type_size <= string_offset
        and type_size
        and string_size
    )
    size: int = header_size + string_offset + string_size
    return size if is_plausible and size <= MAX_TABLE else None
