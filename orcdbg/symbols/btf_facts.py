"""Can these types be this kernel's, by what the kernel itself says of its structures?

VMCOREINFO has sizes and offsets of some twenty structures (kernel/vmcore_info.c, before 6.9 kernel/crash_core.c); a symbol
table has the sizes of variables whose type every kernel gives them; and the first task's name is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orcdbg.base.errors import MemoryFault, OtherTypes
from orcdbg.base.reading import AddressSpace
from orcdbg.snapshot.vmcoreinfo import number
from orcdbg.symbols.btf import STRUCT, TYPEDEF, UNION, Btf
from orcdbg.symbols.kallsyms import KallsymsTable
from orcdbg.symbols.table import SymbolTable

_SIZE = re.compile(r"SIZE\((\w+)\)")
_OFFSET = re.compile(r"OFFSET\((\w+)\.([\w.]+)\)")
_LENGTH = re.compile(r"LENGTH\((\w+)\.([\w.]+)\)")

# Variables that are one structure and nothing behind it, so that their symbols have its size; in every kernel from 4.14 on
# that has them. Left out are those with an array of no fixed length at their end, such as init_mm.
SYMBOL_TYPES: Mapping[str, str] = {
    "init_task": "task_struct",
    "init_cred": "cred",
    "init_fs": "fs_struct",
    "init_files": "files_struct",
    "init_nsproxy": "nsproxy",
    "init_uts_ns": "uts_namespace",
    "init_user_ns": "user_namespace",
    "init_pid_ns": "pid_namespace",
    "init_net": "net",
    "runqueues": "rq",
    "rcu_data": "rcu_data",
    "softnet_data": "softnet_data",
    "cpu_tss_rw": "tss_struct",
    "boot_cpu_data": "cpuinfo_x86",
}
# A kernel with KASAN may have a zone of no use behind each variable, which clang counts in the symbol.
_KASAN = "__asan_register_globals"

# INIT_TASK_COMM (include/linux/init_task.h); a kernel with several CPUs adds the number.
_FIRST_TASK = b"swapper"
_COMM_SIZE = 16

# What a kernel's types cannot be without. BTF of a BPF program, of which a kernel may hold some, has none of it.
_NEEDED = ("task_struct", "list_head")

_HINT = "BTF of exactly this build is needed"


def check_types(
    btf: Btf,
    info: Mapping[str, str],
    symbols: SymbolTable,
    slide: int = 0,
    memory: AddressSpace | None = None,
) -> None:
    """Refuses types that contradict what is known of the kernel.

    Args:
        btf: the types.
        info: VMCOREINFO of the kernel, empty where there is none.
        symbols: the image's symbols, at link addresses.
        slide: run-time minus link addresses.
        memory: kernel virtual memory; None of a kernel that does not run.

    Raises:
        OtherTypes: they are another kernel's.
        UnsupportedFormat: damaged, or VMCOREINFO is.
    """
    for name in _NEEDED:
        if btf.find(STRUCT, name) is None:
            raise OtherTypes(btf.name, f"struct {name} is not there", _HINT)
    contradictions = (
        *_by_vmcoreinfo(btf, info),
        *_by_symbols(btf, symbols),
        *(() if memory is None else _by_first_task(btf, symbols, slide, memory)),
    )
    if contradictions:
        raise OtherTypes(btf.name, contradictions[0], _HINT)


def _by_vmcoreinfo(btf: Btf, info: Mapping[str, str]) -> Iterator[str]:
    """What VMCOREINFO says otherwise. Of a structure that the types do not have, nothing is said."""
    structs = btf.structs
    for key in info:
        if match := _SIZE.fullmatch(key):
            theirs = _size_of(btf, match[1])
            ours = number(info, key, 10)
            if theirs is not None and theirs != ours:
                yield f"{match[1]} has {theirs} bytes there, VMCOREINFO says {ours}"
            continue

        match = _OFFSET.fullmatch(key) or _LENGTH.fullmatch(key)
        if match is None or not structs.exists(match[1]):
            continue
        member = structs.find(match[1], match[2])
        what = f"{match[1]}.{match[2]}"
        if member is None:
            yield f"{what} is not there, VMCOREINFO names it"
            continue
        is_offset = key.startswith("OFFSET")
        theirs = member.offset if is_offset else structs.array_length(match[1], match[2])
        ours = number(info, key, 10)
        if theirs != ours:
            aspect = "offset" if is_offset else "length"
            yield f"the {aspect} of {what} is {theirs} there, VMCOREINFO says {ours}"


def _size_of(btf: Btf, name: str) -> int | None:
    """The size of a structure, union or typedef; None where there is none of that name."""
    for kind in (STRUCT, UNION, TYPEDEF):
        type_id = btf.find(kind, name)
        if type_id is not None:
            return btf.size_of(type_id)
    return None


def _by_symbols(btf: Btf, symbols: SymbolTable) -> Iterator[str]:
    """Which variables have other sizes by their symbols."""
    # The kernel's own table has no sizes, only the distance to the next symbol.
    if isinstance(symbols, KallsymsTable):
        return
    may_be_longer = symbols.find(_KASAN) is not None
    for name, structure in SYMBOL_TYPES.items():
        found = symbols.find_all(name)
        theirs = _size_of(btf, structure)
        if len(found) != 1 or not found[0].size or theirs is None:
            continue
        ours = found[0].size
        if theirs > ours or (theirs < ours and not may_be_longer):
            yield f"struct {structure} has {theirs} bytes there, the symbol {name} has {ours}"


def _by_first_task(btf: Btf, symbols: SymbolTable, slide: int, memory: AddressSpace) -> Iterator[str]:
    """Whether the first task has the name that it has in every kernel."""
    symbol = symbols.find("init_task")
    member = btf.structs.find("task_struct", "comm")
    if symbol is None or member is None:
        return
    try:
        name = memory.read(symbol.address + slide + member.offset, _COMM_SIZE)
    except MemoryFault:
        return
    if not name.startswith(_FIRST_TASK):
        yield f"the first task's name is not at offset {member.offset} of its task_struct"
