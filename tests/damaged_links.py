"""Is a damaged list or tree always told?

`python -m tests.damaged_links --rounds 2000 --seed 7 [VMLINUX SNAPSHOT]` changes one word of a list or tree of a snapshot
(the bundled sample's without), and walks it. Where other nodes are reached than before, the walk must have a problem. What
no walk can tell is counted apart, by the rules of `EXCUSES` and no others: the structure keeps nothing besides the word
that was changed, or both ways of reading it are whole.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import orcdbg
from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.cli.main import sample_files
from orcdbg.kernel.linux import list_nodes
from orcdbg.subsystems.containers import lists, maple_tree, rbtree, xarray
from orcdbg.target.session import Session
from orcdbg.typed.program import Program

NODES = 1 << 14
# Words of a container that are changed, of how many: a list of all inodes is like one of a hundred.
MOST_WORDS = 3000

Reached = list[object]


class OneWord:
    """Memory in which one word is another."""

    def __init__(self, memory: AddressSpace, address: int, value: int) -> None:
        self._memory = memory
        self._address = address
        self._value = value.to_bytes(8, "little")

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, that word apart."""
        data = self._memory.read(address, size)
        if address + size <= self._address or self._address + 8 <= address:
            return data
        changed = bytearray(data)
        for number, byte in enumerate(self._value):
            if address <= self._address + number < address + size:
                changed[self._address + number - address] = byte
        return bytes(changed)


@dataclass(frozen=True)
class Container:
    """A list or tree: how it is walked, the words that link it, and what these say while it is whole.

    Attributes:
        kind: which sort.
        name: which one.
        walk: over a memory; what is reached, and the problems are the budget's.
        words: addresses of the links, by what each is.
        nodes: addresses that a link may be changed to.
    """

    kind: str
    name: str
    walk: Callable[[Program, Budget], Reached]
    words: dict[int, str]
    nodes: Sequence[int]


@dataclass
class Tally:
    """What was seen: damage by how it was told, and the silent ones in words."""

    told: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)


def containers(session: Session) -> Iterator[Container]:
    """Those of a snapshot that can be read whole and hold something."""
    program = session.program
    for made in (_lists, _hash_chains, _red_black_trees, _arrays, _maple_trees):
        yield from made(session, program)


def _readable(memory: AddressSpace, words: dict[int, str]) -> dict[int, str]:
    found = {}
    for address, what in words.items():
        try:
            memory.read(address, 8)
        except MemoryFault:
            continue
        found[address] = what
    return found


def _whole(
    program: Program,
    kind: str,
    name: str,
    walk: Callable[[Program, Budget], Reached],
    words: dict[int, str],
    nodes: Sequence[int],
) -> Iterator[Container]:
    budget = Budget(NODES)
    try:
        reached = walk(program, budget)
    except OrcdbgError:
        return
    if reached and budget.is_whole:
        yield Container(kind, name, walk, _readable(program.memory, words), nodes)


def _previous(memory: AddressSpace, node: int) -> int:
    return read_u64(memory, node + 8 & U64)


def _lists(session: Session, program: Program) -> Iterator[Container]:
    """Rings of `list_head`."""
    linux = session.linux
    heads = {
        name: linux.find_address(name)
        for name in (
            "modules",
            "slab_caches",
            "super_blocks",
            "vmap_area_list",
            "ftrace_events",
            "crypto_alg_list",
            "cgroup_roots",
            "workqueues",
            "bdi_list",
        )
    }
    heads["tasks"] = linux.address("init_task") + linux.types.offset("task_struct", "tasks")
    heads["children"] = linux.address("init_task") + linux.types.offset("task_struct", "children")
    for name, head in heads.items():
        if head is None:
            continue

        def walk(over: Program, budget: Budget, head: int = head) -> Reached:
            return list(list_nodes(over.memory, head, budget, "a list"))

        def asked(over: Program, budget: Budget, head: int = head) -> Reached:
            first = read_u64(over.memory, head)
            found = lists.walk(over, first, 0, budget, head, functools.partial(_previous, over.memory))
            if found.broken_at is not None:
                budget.note_error("a list", found.broken_at, NotFound("node", "next"))
            return [*found.nodes, *found.from_end]

        nodes = [node for node in walk(program, Budget(NODES)) if isinstance(node, int)]
        words = {head: "head.next", head + 8: "head.prev"}
        for node in nodes:
            words |= {node: "next", node + 8 & U64: "prev"}
        yield from _whole(program, "list", name, walk, words, nodes)
        yield from _whole(program, "list command", name, asked, words, nodes)


def _hash_chains(session: Session, program: Program) -> Iterator[Container]:
    """The buckets of the timer wheels, which are `hlist`s."""
    try:
        size = program.type("timer_base").size
        first = session.variable("timer_bases", 0).address_ or 0
        heads = [
            bucket.member_("first").address_ or 0
            for number in range(2)
            for bucket in program.object("timer_base", first + number * size).member_("vectors")
        ]
    except (OrcdbgError, TypeError):
        return
    offset = lists.offset_of(program, "struct timer_list", "entry")
    for head in heads:

        def walk(over: Program, budget: Budget, head: int = head) -> Reached:
            first = read_u64(over.memory, head)
            chain = lists.chained(first, over, "struct timer_list", "entry", budget, None, head)
            return [one.address_ for one in chain]

        try:
            nodes = [node + offset for node in walk(program, Budget(NODES)) if isinstance(node, int)]
        except OrcdbgError:
            continue
        words = {head: "first"}
        for node in nodes:
            words |= {node: "next", node + 8 & U64: "pprev"}
        yield from _whole(program, "hlist", f"{head:#x}", walk, words, nodes)


def _red_black_trees(session: Session, program: Program) -> Iterator[Container]:
    """The areas of vmalloc, of a process, and files of sysfs."""
    linux = session.linux
    roots = {
        "vmap_area_root": linux.find_address("vmap_area_root"),
        "free_vmap_area_root": linux.find_address("free_vmap_area_root"),
    }
    for task in session.tasks:
        mm = linux.member("task_struct", "mm", task.address)
        if mm and linux.types.has("mm_struct", "mm_rb"):
            roots[f"mm of {task.pid}"] = mm + linux.types.offset("mm_struct", "mm_rb")
    try:
        folder = int(session.variable("sysfs_root_kn"))
        child = program.object("kernfs_node", folder).member_("dir.children").address_
        roots["sysfs"] = child
        kernel = session.variable("kernel_kobj")
        roots["sys/kernel"] = kernel.member_("sd").member_("dir.children").address_
    except OrcdbgError:
        pass
    for name, root in roots.items():
        if not root:
            continue

        def walk(over: Program, budget: Budget, root: int = root) -> Reached:
            return [node.address for node in rbtree.walk(over, read_u64(over.memory, root), budget, "a tree")]

        try:
            nodes = [node for node in walk(program, Budget(NODES)) if isinstance(node, int)]
        except OrcdbgError:
            continue
        words = {root: "root"}
        for node in nodes:
            words |= {node: "parent", node + 8 & U64: "child", node + 16 & U64: "child"}
        yield from _whole(program, "rbtree", name, walk, words, nodes)


def _arrays(session: Session, program: Program) -> Iterator[Container]:
    """Interrupts, pids, and the pages of files."""
    heads = {}
    for name, path in (
        ("irq_desc_tree", "xa_head"),
        ("init_pid_ns", "idr.idr_rt.xa_head"),
        ("worker_pool_idr", "idr_rt.xa_head"),
    ):
        try:
            heads[name] = session.variable(name).member_(path).address_
        except OrcdbgError:
            continue
    for number, task in enumerate(session.tasks):
        try:
            exe = session.object("task_struct", task.address).member_("mm.exe_file.f_inode.i_data.i_pages.xa_head")
            heads[f"exe {number}"] = exe.address_
        except OrcdbgError:
            continue
    layout = program.object("xa_node", 0)
    slots, count = layout.member_("slots").address_ or 0, len(layout.member_("slots"))
    parent = layout.member_("parent").address_ or 0
    for name, head in heads.items():
        if not head:
            continue
        seen: set[int] = set()

        def walk(over: Program, budget: Budget, head: int = head) -> Reached:
            return list(xarray.walk(over, read_u64(over.memory, head), budget, "an array"))

        words = {head: "head"}
        try:
            pending = [read_u64(program.memory, head)]
            whole = Budget(NODES)
            xarray.walk(program, pending[0], whole, "an array")
        except MemoryFault:
            continue
        while pending and whole.is_whole:
            entry = pending.pop()
            if entry & 3 != 2 or entry <= 4096 or entry in seen:
                continue
            seen.add(entry)
            words[entry - 2 + parent] = "parent"
            for slot in range(count):
                words[entry - 2 + slots + 8 * slot] = "slot"
                pending.append(read_u64(program.memory, entry - 2 + slots + 8 * slot))
        yield from _whole(program, "xarray", name, walk, words, sorted(seen))


def _maple_trees(session: Session, program: Program) -> Iterator[Container]:
    """Interrupts, and the areas of processes."""
    linux = session.linux
    roots = {}
    if linux.find_address("sparse_irqs") is not None:
        roots["sparse_irqs"] = session.variable("sparse_irqs").member_("ma_root").address_
    for task in session.tasks:
        mm = linux.member("task_struct", "mm", task.address)
        if mm and linux.types.has("mm_struct", "mm_mt"):
            roots[f"mm of {task.pid}"] = session.object("mm_struct", mm).member_("mm_mt.ma_root").address_
    if not roots:
        return  # up to 6.0 there are none
    place = program.object("maple_tree", 0).member_("ma_root").address_ or 0
    for name, root in roots.items():
        if not root:
            continue
        reads: set[int] = set()

        def walk(over: Program, budget: Budget, root: int = root) -> Reached:
            head = read_u64(over.memory, root)
            return list(maple_tree.walk(over, head, budget, "a tree", root - place))

        try:
            walk(program.over(_Noting(program.memory, reads)), Budget(NODES))
        except OrcdbgError:
            continue
        words = {root: "root"}
        for node in reads - {root}:
            words |= {node + 8 * number: "parent" if not number else "word" for number in range(32)}
        yield from _whole(program, "maple", name, walk, words, sorted(reads - {root}))


class _Noting:
    """Memory that notes where whole nodes of a maple tree are read."""

    def __init__(self, memory: AddressSpace, reads: set[int]) -> None:
        self._memory = memory
        self._reads = reads

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it."""
        if size == 256:
            self._reads.add(address)
        return self._memory.read(address, size)


def changed(container: Container, address: int, old: int, chance: random.Random) -> int:
    """What a word is changed to: nothing, another node, some bits, or anything."""
    nodes = container.nodes
    choices = [
        0,
        old ^ 1 << chance.randrange(64),
        chance.getrandbits(64),
        old + 8 * chance.randrange(-4, 5) & U64,
        address,
    ]
    if nodes:
        node = chance.choice(nodes)
        choices += [node, node, node | old & 7, node + 8 & U64, node ^ 2]
    return chance.choice(choices)


def excuse(container: Container, program: Program, address: int, old: int, new: int) -> str | None:
    """Why no walk could tell a change; None where one must."""
    role = container.words[address]
    memory = program.memory

    def word(at: int) -> int:
        try:
            return read_u64(memory, at & U64)
        except MemoryFault:
            return 0

    if container.kind == "rbtree":
        if role == "root" and (not new or not word(new) & ~3):
            return "rbtree: the root is another one, or none"
        is_red_leaf = old and not word(old) & 1 and not word(old + 8) and not word(old + 16)
        if role == "child" and not new and is_red_leaf:
            return "rbtree: a red leaf is lost"
    if container.kind == "hlist" and role in ("first", "next") and not new:
        return "hlist: the rest is lost, and NULL ends one"
    if container.kind == "xarray":
        return _array_excuse(role, old, new)
    if container.kind == "maple":
        if role == "root" and (new & 3 != 2 or new <= 4096):
            return "maple: the root is an entry, or none"
        return _maple_excuse(container, program, address, new) if role == "word" else None
    return None


def _array_excuse(role: str, old: int, new: int) -> str | None:
    """Of a word of an xarray."""
    is_entry = {each: bool(each) and (each & 3 != 2 or each <= 4096) for each in (old, new)}
    if role == "head" and (is_entry[new] or not new):
        return "xarray: the head is an entry, or none"
    if role == "slot" and is_entry[old] and is_entry[new]:
        return "xarray: an entry is another one"
    if role == "slot" and is_entry[new] and not new & 1:
        return "xarray: a node is an entry of many indexes"
    return None


def _maple_excuse(container: Container, program: Program, address: int, new: int) -> str | None:
    """Of a word of a node: an entry of a leaf, or a bound."""
    budget = Budget(NODES)
    before = container.walk(program, Budget(NODES))
    after = container.walk(program.over(OneWord(program.memory, address, new)), budget)
    old_entries = [(one.index, one.last) for one in before if isinstance(one, xarray.IndexedEntry)]
    new_entries = [(one.index, one.last) for one in after if isinstance(one, xarray.IndexedEntry)]
    values = [one.value for one in before if isinstance(one, xarray.IndexedEntry)]
    new_values = [one.value for one in after if isinstance(one, xarray.IndexedEntry)]
    if values == new_values:
        return "maple: a bound keeps its order"
    if set(new_entries) < set(old_entries) and len(old_entries) - len(new_entries) == 1:
        return "maple: an entry of a leaf is none"
    if old_entries == new_entries and sum(a != b for a, b in zip(values, new_values, strict=True)) == 1:
        return "maple: an entry of a leaf is another one"
    if set(old_entries) < set(new_entries) and len(new_entries) - len(old_entries) == 1:
        return "maple: an empty slot of a leaf holds an entry"
    return None


def strike(container: Container, program: Program, chance: random.Random, tally: Tally) -> None:
    """One damage."""
    words = list(container.words)[:MOST_WORDS]
    address = chance.choice(words)
    old = read_u64(program.memory, address)
    new = changed(container, address, old, chance)
    if new == old:
        return
    before = container.walk(program, Budget(NODES))
    budget = Budget(NODES)
    try:
        after = container.walk(program.over(OneWord(program.memory, address, new)), budget)
    except MemoryFault:
        tally.told[f"{container.kind}: refused"] += 1
        return
    if not budget.is_whole:
        tally.told[f"{container.kind}: a problem" + ("" if after != before else ", all nodes reached")] += 1
        return
    if after == before:
        tally.told[f"{container.kind}: nothing was lost"] += 1
        return
    why = excuse(container, program, address, old, new)
    if why is not None:
        tally.excused[why] += 1
        return
    change = f"{container.words[address]} at {address:#x}: {old:#x} became {new:#x}"
    tally.silent.append(f"{container.kind} {container.name}: {change}; {len(before)} nodes, then {len(after)}")


def run(session: Session, rounds: int, chance: random.Random) -> Tally:
    """So many damages over all containers of a snapshot, each kind as often as any other."""
    tally = Tally()
    by_kind: dict[str, list[Container]] = {}
    for container in containers(session):
        by_kind.setdefault(container.kind, []).append(container)
    kinds = sorted(by_kind)
    for number in range(rounds):
        strike(chance.choice(by_kind[kinds[number % len(kinds)]]), session.program, chance, tally)
    return tally


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    tally = run(orcdbg.open(*(options.files or sample_files())), options.rounds, random.Random(options.seed))
    for counter in (tally.told, tally.excused):
        for what, count in sorted(counter.items()):
            print(f"{count:6} {what}")
    for line in tally.silent[:20]:
        print("SILENT", line)
    print(f"seed {options.seed}: {len(tally.silent)} silent")
    return 1 if tally.silent else 0


if __name__ == "__main__":
    sys.exit(main())
