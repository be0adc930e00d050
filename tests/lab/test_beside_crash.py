"""crash 9 is asked the same of the same dumps: whatever both show is equal, or it is said here what crash has wrong.

crash is Debian sid's, with its own libraries. It opens 5.10, 6.1 and 6.12; 7.2 only without the kernel's modules
(`--no_modules`), since `struct module` has no member num_gpl_syms there any more, which module_init() of its kernel.c
insists on. What it cannot answer then is in CANNOT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.subsystems.machine import tick_length
from orcdbg.subsystems.memory_totals import memory_totals
from orcdbg.subsystems.zones import counters, nodes
from orcdbg.target.session import Session
from orcdbg.typed.objects import Object
from orcdbg.views.as_json import encode
from tests.lab import crash_answers as answers
from tests.lab.conftest import OpenScene
from tests.lab.crash_answers import Fields, Read, ReadOurs
from tests.lab.crash_utility import Told, ask
from tests.lab.draw import kernels_of
from tests.lab.skips import skipped_if_unavailable

# Kernels whose scene of tasks, files, mounts and connections this run makes anyhow; and one after a panic.
SCENES = [
    *((kernel, "words") for kernel in kernels_of("words of crash")),
    *((kernel, "nmi") for kernel in kernels_of("crash after a panic")),
]
pytestmark = [pytest.mark.lab, pytest.mark.parametrize(("kernel", "scene"), SCENES)]

# What crash needs told.
OPTIONS = {"7.2": ("--no_modules",)}
# Lines by their first words that crash cannot answer of a kernel, and why; the test sees that it still cannot.
_NO_LOCAL_NODE = "struct kmem_cache has no member local_node since per-CPU sheaves, and crash gives up there"
CANNOT: dict[str, dict[str, str]] = {
    "7.2": {
        "mod": "its modules could not be opened",
        "timer -r": "a hrtimer's expiry has moved in its queue's node, and crash reads 0 there and stops at the first",
        "kmem -s": _NO_LOCAL_NODE,
        "kmem f": _NO_LOCAL_NODE,
    },
}

OBJECTS, TASKS, HZ_OF_CRASH = 24, 4, 1000
MOST_ZONES = 64
IMAGE = 0xFFFFFFFF80000000  # __START_KERNEL_map


@dataclass(frozen=True, slots=True)
class Question:
    """A line for crash, the same for orcdbg where that is another, and what reads their answers."""

    line: str
    theirs: Read
    ours: ReadOurs
    our_line: str = ""


def questions(session: Session, random: Random) -> list[Question]:
    """Of the whole machine, and of things that are drawn from it."""
    return [*of_the_machine(), *of_structures(session, random), *of_slabs(session, random)]


def of_the_machine() -> list[Question]:
    return [
        Question("ps", answers.ps, answers.our_ps),
        Question("foreach files", answers.files, answers.our_files),
        Question("foreach vm", answers.vm, answers.our_vm),
        Question("foreach sig", answers.sig, answers.our_sig),
        Question("foreach net -s", answers.sockets, answers.our_sockets),
        Question("mount", answers.mount, answers.our_mount),
        Question("net", answers.net, answers.our_net),
        Question("irq", answers.irq, answers.our_irq),
        Question("irq -s", answers.irq_counts, answers.our_irq_counts),
        Question("irq -b", answers.softirqs, answers.our_softirqs),
        Question("timer", answers.timers, answers.our_timers),
        Question("timer -r", answers.hrtimers, answers.our_hrtimers),
        Question("runq", answers.runq, answers.our_runq),
        Question("dev", answers.dev, answers.our_dev),
        Question("mod", answers.mod, answers.our_mod),
        Question("sys", answers.sys_, answers.our_sys),
        Question("log", answers.log, answers.our_log),
        Question("kmem -i", answers.totals, answers.our_totals),
        Question("kmem -s", answers.caches, answers.our_caches),
    ]


def of_structures(session: Session, random: Random) -> list[Question]:
    """Lists, trees, members, page tables and words of memory."""
    found = [
        Question(f"list -H {_symbol(session, 'modules'):x}", answers.listed, answers.our_listed),
        Question(
            f"list -H {_symbol(session, 'super_blocks'):x} -o super_block.s_list -s super_block.s_flags",
            answers.listed,
            answers.our_listed,
        ),
        Question("list task_struct.tasks -h init_task -s task_struct.pid,comm", answers.listed, answers.our_listed),
        Question("tree -t xarray -r pid_namespace.idr init_pid_ns", answers.tree, answers.our_tree),
    ]
    with_memory = [task for task in session.tasks if int(session.object("task_struct", task.address).mm)]
    for task in random.sample(with_memory, TASKS):
        mm = session.object("task_struct", task.address).mm
        tree = (
            f"tree -t maple -r mm_struct.mm_mt {int(mm):x}"
            if mm.has_member_("mm_mt")  # (mm: start tracking VMAs with maple tree, 6.1)
            else f"tree -l -t rbtree -o vm_area_struct.vm_rb -r mm_struct.mm_rb {int(mm):x}"
        )
        area = _first_area(mm)
        found += [
            Question(tree, answers.tree, answers.our_tree, tree.replace(" -l ", " ")),
            Question(
                f"struct task_struct.pid,tgid,prio,flags,mm,comm {task.address:x}", answers.members, answers.our_members
            ),
            Question(f"vtop {task.address:x}", answers.vtop, answers.our_vtop),
            Question(f"vtop -c {task.pid} {area:x}", answers.vtop, answers.our_vtop),
            Question(f"rd {task.address:x} 64", answers.words, answers.our_words),
        ]
    wanted = random.choice(with_memory).address
    return [*found, Question(f"search -k {wanted:x}", answers.hits, answers.our_hits)]


def _symbol(session: Session, name: str) -> int:
    address = session.variable(name).address_
    assert address is not None
    return address


def _first_area(mm: Object) -> int:
    return int(mm.start_code)


def of_slabs(session: Session, random: Random) -> list[Question]:
    """Objects, some free, of caches that have some."""
    debugger, registry = Debugger(session), standard_commands()
    found: list[Question] = []
    all_caches = [one for one in encode(registry.run(debugger, "kmem -s"))["caches"] if one["slabs"]]
    for cache in random.sample(all_caches, OBJECTS):
        contents = encode(registry.run(debugger, f"kmem -S {cache['cache']}"))["contents"][0]
        slab = random.choice(contents["slabs"])
        allocated = [one["object"] for one in slab["objects"] if one["state"] == "allocated"]
        free = [one["object"] for one in slab["objects"] if one["state"] == "free"]
        for objects in filter(None, (allocated, free)):
            line = f"kmem {int(random.choice(objects), 16):x}"
            found.append(
                Question(line, answers.slab_object, partial(answers.our_slab_object, allocated=len(allocated)))
            )
    return found


# What crash has wrong


@dataclass(frozen=True, slots=True)
class Differs:
    """A value that differs, of a line."""

    session: Session
    key: Any
    ours: Any
    theirs: Any


def _idle_parent(one: Differs) -> bool:
    if one.ours is None or one.theirs is None:
        return False
    return bool(one.ours == {**one.theirs, "ppid": one.ours["ppid"]} and one.ours["pid"] == 0)


def _unsynchronized(session: Session, address: int, kilobytes: int) -> bool:
    """Whether the threads of a task hold so much that its mm has not been told of."""
    task = session.object("task_struct", address)
    if not task.has_member_("rss_stat"):
        return False
    group = [one for one in session.tasks if one.tgid == int(task.tgid)]
    pages = sum(
        int(session.object("task_struct", one.address).rss_stat.count[kind]) for one in group for kind in (0, 1, 3)
    )
    return pages * 4 == kilobytes


def _threads_pages(one: Differs) -> bool:
    if one.ours is None or one.theirs is None:
        return False
    if isinstance(one.ours, dict):
        more = one.theirs["resident"] - one.ours["resident"]
        same = one.ours == {**one.theirs, "resident": one.ours["resident"]}
        return bool(same) and _unsynchronized(one.session, one.key, more)
    more = one.theirs[2] - one.ours[2]
    same = (*one.ours[:2], *one.ours[3:]) == (*one.theirs[:2], *one.theirs[3:])
    return bool(same) and _unsynchronized(one.session, one.key, more)


def _path(one: Differs) -> bool:
    if one.ours is None or one.theirs is None or one.ours[:4] != one.theirs[:4]:
        return False
    path, other = str(one.ours[4]), str(one.theirs[4])
    if one.ours[3] == "SOCK":
        return path.startswith("socket:[") and other.isalnum()
    if one.ours[3] == "FIFO":
        return path.startswith("pipe:[") and other == ""
    return path in (f"{other} (deleted)", f"anon_inode:{other}") or path == other.replace("/bound/bin/", "/bound/")


def _deferrable(one: Differs) -> bool:
    """Only crash misses it, and its base is the last of three."""
    return one.theirs is None and _timer_base(one.session, one.key) == 2


def _timer_base(session: Session, address: int) -> int:
    found = encode(standard_commands().run(Debugger(session), "timer"))["timers"]
    return next(int(timer["base"]) for timer in found if int(timer["address"], 16) == address)


def _ticks(one: Differs) -> bool:
    """Whether crash's uptime is the count of ticks, at the kernel's rate or at the one that crash takes it for."""
    if one.key != "UPTIME":
        return False
    jiffies = int(one.session.variable("jiffies_64"))
    rates = (HZ_OF_CRASH, round(1e9 / tick_length(one.session.program)))
    counts = [(jiffies + 300 * rate) % (1 << 32) // rate for rate in rates]
    return str(one.theirs) in [f"{count // 3600:02}:{count // 60 % 60:02}:{count % 60:02}" for count in counts]


def _not_mapped(one: Differs) -> bool:
    """Only crash has it, in the image's range, where the kernel's page tables have nothing."""
    if one.ours is not None or one.key < IMAGE:
        return False
    try:
        one.session.memory.read(one.key, 8)
    except OrcdbgError:
        return True
    return False


def _without_cpus(one: Differs) -> bool:
    return one.key == "COMMITTED" and bool(max(int(one.session.variable("vm_committed_as").count), 0) == one.theirs)


def _not_handed_in(one: Differs) -> bool:
    """Whether crash's pages are what the zones and nodes have counted, without what their CPUs will still tell them."""
    program = one.session.program
    zones = [zone for node in nodes(program, Budget(MOST_ZONES)) for zone in node.zones]
    free = sum(zone.counters["NR_FREE_PAGES"] for zone in zones)
    of_nodes = counters(program, "node_stat_item", one.session.linux.address("vm_node_stat"))
    slabs = [count for name, count in of_nodes.items() if name.startswith("NR_SLAB_")]
    totals = memory_totals(program, [])
    others = (totals.buffers or 0) + of_nodes.get("NR_SWAPCACHE", totals.swap_cached or 0)
    counted = {
        "FREE": free,
        "USED": totals.total - free,
        "SLAB": sum(slabs),
        "CACHED": of_nodes["NR_FILE_PAGES"] - others,
    }
    return bool(counted.get(one.key) == one.theirs)


def _no_date(one: Differs) -> bool:
    return one.key == "DATE" and bool(one.theirs == "Thu Jan  1 00:00:00 UTC 1970")


def _no_swap(one: Differs) -> bool:
    return one.key in ("TOTAL SWAP", "SWAP USED", "SWAP FREE") and one.theirs is None


@dataclass(frozen=True, slots=True)
class Wrong:
    """What crash shows otherwise, why, and how that is seen of a value."""

    lines: tuple[str, ...]
    why: str
    is_so: Callable[[Differs], bool]


WRONG = [
    Wrong(
        ("ps",),
        "the parent of a secondary CPU's swapper is init, which forked it (idle_threads_init()); crash says 0 for all",
        _idle_parent,
    ),
    Wrong(
        ("ps", "foreach vm"),
        "until 6.2 a task counts pages of its own before it tells its mm (SPLIT_RSS_COUNTING); crash adds what is not"
        " told yet, /proc does not, and orcdbg shows what /proc does",
        _threads_pages,
    ),
    Wrong(
        ("foreach files",),
        "paths are as in /proc/PID/fd: sockets and pipes by inode, `(deleted)`, and a path through a bind mount of a"
        " folder begins at that folder; crash has the protocol, nothing, the name alone, and the whole path below it",
        _path,
    ),
    Wrong(
        ("timer",),
        "since 6.9 a CPU has three bases (timers: Add global per-CPU base); crash reads the first two, without the"
        " deferrable timers",
        _deferrable,
    ),
    Wrong(
        ("sys",),
        "crash counts ticks, which begin some tenths of a second behind the clock, and takes HZ for 1000 where it is"
        " 250; orcdbg shows the clock of /proc/uptime and of the log",
        _ticks,
    ),
    Wrong(
        ("search",),
        "crash takes 512 MiB from __START_KERNEL_map for mapped, of which cleanup_highmap() leaves the image alone",
        _not_mapped,
    ),
    Wrong(
        ("sys",),
        "since 6.17 the timekeeper is in timekeeper_data[] (timekeeping: Introduce auxiliary timekeepers), which crash"
        " does not know; the guest's clock is right in its log",
        _no_date,
    ),
    Wrong(("kmem -i",), "crash 9.0.2 does not find 7.2's swap devices and has no lines for them", _no_swap),
    Wrong(
        ("kmem -i",),
        "crash leaves out what CPUs have counted and not handed in yet (vm_stat_diff, vm_node_stat_diff)",
        _not_handed_in,
    ),
    Wrong(
        ("kmem -i",),
        "crash reads vm_committed_as.count without the per-CPU parts, which vm_memory_committed() adds since 5.9",
        _without_cpus,
    ),
]


@dataclass
class Asked:
    """Both over one dump."""

    session: Session
    told: Told
    questions: Mapping[str, Question] = field(default_factory=dict)


@pytest.fixture
def asked(kernel: str, scene: str, open_scene: OpenScene, seed: int) -> Asked:
    """One crash of the kernel has answered all."""
    files, session = open_scene(kernel, scene)
    found = {one.line: one for one in questions(session, Random(f"{seed} {kernel} {scene}"))}
    with skipped_if_unavailable("crash of Debian sid"):
        told = ask(files.vmlinux, files.snapshot, list(found), OPTIONS.get(kernel, ()))
    return Asked(session, told, found)


def differences(asked: Asked, question: Question) -> tuple[Fields, list[Differs]]:
    """What crash showed of a line, and where orcdbg's answer differs."""
    answer = encode(standard_commands().run(Debugger(asked.session), question.our_line or question.line))
    assert not answer.get("problems"), question.line
    ours, theirs = question.ours(answer), question.theirs(asked.told.answers.get(question.line, ""))
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key) or (key in ours) != (key in theirs)]
    return theirs, [Differs(asked.session, key, ours.get(key), theirs.get(key)) for key in keys]


def test_what_both_show_is_equal(kernel: str, scene: str, asked: Asked) -> None:
    """Each value of each line, but for what is proved of it in WRONG."""
    unequal: list[str] = []
    for line, question in asked.questions.items():
        theirs, found = differences(asked, question)
        if any(line.startswith(words) for words in CANNOT.get(kernel, ())):
            assert found, f"crash can answer {line} now"
            continue
        if not theirs:
            unequal.append(
                f"{line}: nothing of crash's answer was understood: {asked.told.answers.get(line, asked.told.start)[:200]!r}"
            )
        known = [wrong for wrong in WRONG if line.startswith(wrong.lines)]
        for one in found:
            if not any(wrong.is_so(one) for wrong in known):
                unequal.append(f"{line}: {one.key}: orcdbg {one.ours!r}, crash {one.theirs!r}")
    assert not unequal, "\n".join(unequal)
