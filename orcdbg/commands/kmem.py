"""kmem: what is this address, and what does the kernel's memory management hold?"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.kmem_lists import flag_names, huge_pages, page_list, per_cpu_offsets, vmalloc_list
from orcdbg.commands.kmem_slabs import cache_contents, cache_list
from orcdbg.commands.kmem_zones import (
    free_blocks,
    free_lists,
    memory_groups,
    memory_nodes,
    memory_use,
    statistics,
    zone_list,
)
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.target.address_findings import Finding, describe_address


@dataclass(frozen=True, slots=True)
class AddressFindings(Result):
    """What is found out about some addresses, the surest first."""

    addresses: Sequence[tuple[int, Sequence[Finding]]]


# Each option, what it shows, and who answers it.
_MODES: dict[str, tuple[tuple[str, ...], str, Callable[[Debugger, argparse.Namespace], Result]]] = {
    "totals": (("-i", "--totals"), "memory in total, and what it is used for, as /proc/meminfo", memory_use),
    "slabs": (("-s", "--slabs"), "slab caches, all or those named, and how full they are", cache_list),
    "contents": (("-S", "--contents"), "the slabs and objects of the caches that are named", cache_contents),
    "vmalloc": (("-v", "--vmalloc"), "the areas of the vmalloc space, and who asked for each", vmalloc_list),
    "statistics": (("-V", "--statistics"), "the counters of zones and nodes", statistics),
    "nodes": (("-n", "--nodes"), "memory nodes and their zones", memory_nodes),
    "zones": (("-z", "--zones"), "zones, with watermarks and counters", zone_list),
    "free": (("-f", "--free"), "free blocks of memory, counted by order", free_lists),
    "free_blocks": (("-F", "--free-blocks"), "the same, and the address of each block", free_blocks),
    "pages": (("-p", "--pages"), "the struct page of each address, or of all page frames", page_list),
    "per_cpu": (("-o", "--per-cpu"), "what is added to a per-CPU pointer for each CPU", per_cpu_offsets),
    "huge": (("-H", "--huge"), "pools of huge pages", huge_pages),
    "flags": (("-g", "--flags"), "the names of page flags, or those set in the values given", flag_names),
    "groups": (("-c", "--cgroups"), "memory cgroups, with use and limits", memory_groups),
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ADDR|CACHE",
        help="an address or symbol, virtual or physical; with -s and -S a slab cache, with -g a value of page flags",
    )
    modes = parser.add_mutually_exclusive_group()
    for name, (options, what, _) in _MODES.items():
        modes.add_argument(*options, dest="mode", action="store_const", const=name, help=what)
    parser.add_argument(
        "--limit", type=int, default=10000, help="how many lines of objects, pages or blocks at most (default: 10000)"
    )


@command(
    "kmem",
    summary="tell what an address is; show slabs, pages, zones, vmalloc areas",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("kmem ffff888004a2c1c0", "the slab object there, allocated or free with the proof, its page and its owner"),
        ("kmem -s dentry kmalloc-64", "how full two slab caches are"),
        ("kmem -S task_struct", "each slab and each object of one"),
        ("kmem -i", "memory in total"),
    ),
)
def kmem(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with what memory shows of addresses, or with one of the kernel's lists."""
    if not 0 < arguments.limit <= MAX_LIMIT:
        raise UsageError(f"cannot show {arguments.limit} lines", f"--limit is a number from 1 to {MAX_LIMIT}")
    if arguments.mode is not None:
        return _MODES[arguments.mode][2](debugger, arguments)
    if not arguments.words:
        raise UsageError("kmem needs an address or an option", "`help kmem` lists the options")
    return AddressFindings([described(debugger, word) for word in arguments.words])


MAX_LIMIT = 10_000_000


def described(debugger: Debugger, word: str) -> tuple[int, Sequence[Finding]]:
    """The address that a word means, and what is found out about it; one of user space is the selected task's."""
    address = debugger.address(word)
    if not 0 <= address < 1 << 64:
        raise UsageError(f"not an address: {word}")
    task = debugger.task if not address >> 63 else None
    return address, describe_address(debugger.session, address, task)
