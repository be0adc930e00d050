"""Where did the loader put each section of a module?

Mirrors add_sect_attrs() in kernel/module/sysfs.c: what /sys/module/NAME/sections shows.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.base.walks import Budget, entries_before_zero
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.modules import Module

# A module has 30 to 60 sections, one with a section for each function some thousand.
MAX_SECTIONS = 4096
# Of all modules, where a question is about all: each false one costs 20 us.
MAX_SECTIONS_IN_ALL = 1 << 17


def module_sections(linux: Linux, module: Module, budget: Budget | None = None) -> dict[str, int]:
    """Addresses of a module's allocated sections, by name; those of freed init sections are stale.

    Args:
        linux: the kernel.
        module: the module.
        budget: what the sections of several modules draw on together, where a question is about several.

    Raises:
        OrcdbgError: the kernel keeps no such list, it cannot be read, or is more than the budget has left.
    """
    attributes = linux.member("module", "sect_attrs", module.address)
    if not attributes:
        return {}

    what = f"sections of module {module.name}"
    numbers = Budget(MAX_SECTIONS).entries(_count(linux, attributes, what), attributes, what)
    if budget is not None:
        budget.entries(len(numbers), attributes, f"{what} and others")
    return dict(_sections(linux, attributes, numbers))


def _sections(linux: Linux, attributes: int, numbers: range) -> Iterator[tuple[str, int]]:
    types = linux.types
    first = attributes + types.offset("module_sect_attrs", "attrs")
    # Since 6.14 the attributes carry the address themselves, and no count is kept.
    wrapped = types.has("module_sect_attr", "address")
    # Since 5.8 the name is that of a file in sysfs (ed66f991bb19, also in stable kernels of before); once a member of its own.
    name_of = "battr.attr.name" if types.has("module_sect_attr", "battr.attr.name") else "name"
    struct, path = ("module_sect_attr", name_of) if wrapped else ("bin_attribute", "attr.name")
    size = types.size(struct)
    for number in numbers:
        at = first + number * size
        name = read_cstring(linux.memory, linux.member(struct, path, at), 128).decode("ascii", "replace")
        yield name, linux.member(struct, "address" if wrapped else "private", at)


def _count(linux: Linux, attributes: int, what: str) -> int:
    """Number of sections: kept as such, or by the list of attributes that ends with NULL."""
    if linux.types.has("module_sect_attrs", "nsections"):
        return linux.member("module_sect_attrs", "nsections", attributes) & 0xFFFF_FFFF
    pointers = linux.member("module_sect_attrs", "grp.bin_attrs", attributes)
    return entries_before_zero(
        lambda number: read_u64(linux.memory, pointers + 8 * number), MAX_SECTIONS, pointers, what
    )
