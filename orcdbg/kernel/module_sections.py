"""Where did the loader put each section of a module?

Mirrors add_sect_attrs() in kernel/module/sysfs.c: what /sys/module/NAME/sections shows.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.errors import Corrupt
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.modules import Module

MAX_SECTIONS = 4096


def module_sections(linux: Linux, module: Module) -> dict[str, int]:
    """Addresses of a module's allocated sections, by name; those of freed init sections are stale.

    Raises:
        OrcdbgError: the kernel keeps no such list, or it cannot be read.
    """
    attributes = linux.member("module", "sect_attrs", module.address)
    return dict(_sections(linux, attributes)) if attributes else {}


def _sections(linux: Linux, attributes: int) -> Iterator[tuple[str, int]]:
    types = linux.types
    first = attributes + types.offset("module_sect_attrs", "attrs")
    # Since 6.14 the attributes carry the address themselves, and no count is kept.
    wrapped = types.has("module_sect_attr", "address")
    struct, path = ("module_sect_attr", "battr.attr.name") if wrapped else ("bin_attribute", "attr.name")
    size = types.size(struct)
    for number in range(_count(linux, attributes)):
        at = first + number * size
        name = read_cstring(linux.memory, linux.member(struct, path, at), 128).decode("ascii", "replace")
        yield name, linux.member(struct, "address" if wrapped else "private", at)


def _count(linux: Linux, attributes: int) -> int:
    """Number of sections: kept as such, or by the list of attributes that ends with NULL."""
    if linux.types.has("module_sect_attrs", "nsections"):
        count = linux.member("module_sect_attrs", "nsections", attributes) & 0xFFFF_FFFF
    else:
        pointers = linux.member("module_sect_attrs", "grp.bin_attrs", attributes)
        count = 0
        while count <= MAX_SECTIONS and read_u64(linux.memory, pointers + 8 * count):
            count += 1
    if count > MAX_SECTIONS:
        raise Corrupt(f"module_sect_attrs {attributes:#x}: {count} sections")
    return count
