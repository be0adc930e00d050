"""Crash's words on real kernels: what they say is what the guest's own /proc says, and what drgn finds in the same snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.subsystems.containers import lists, maple_tree, rbtree, xarray
from orcdbg.subsystems.kernel_variables import variable
from orcdbg.subsystems.memory_maps import areas_of
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of
from tests.lab.scenes import Scene
from tests.lab.words import printed

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("words of crash"))]

Json = dict[str, Any]
Ask = Callable[[str], Json]
Printed = dict[str, list[str]]


@pytest.fixture
def told(kernel: str, open_scene: OpenScene) -> Printed:
    """What the guest printed, by the name of the file."""
    return printed(open_scene(kernel, "words")[0])


@pytest.fixture
def session(kernel: str, open_scene: OpenScene) -> Session:
    """The session over the snapshot."""
    return open_scene(kernel, "words")[1]


@pytest.fixture
def ask(session: Session) -> Ask:
    """Runs a command over the scene; its answer as JSON, without problems."""
    debugger, registry = Debugger(session), standard_commands()

    def run(line: str) -> Json:
        found: Json = encode(registry.run(debugger, line))
        assert not found.get("problems")
        return found

    return run


@pytest.fixture
def drgn_program(kernel: str, open_scene: OpenScene) -> Any:
    """drgn over the same snapshot."""
    drgn = pytest.importorskip("drgn")
    scene: Scene = open_scene(kernel, "words")[0]
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    try:
        program.load_debug_info([str(scene.vmlinux)])
    except drgn.MissingDebugInfoError:
        pass  # of modules, which nothing here asks for
    return program


def by_pid(answer: Json) -> dict[int, Json]:
    """The tasks of an answer, the swappers, which share pid 0, left out."""
    return {task["pid"]: task for task in answer["tasks"] if task["pid"]}


# Tasks: /proc/PID


def _descriptors(text: str) -> dict[int, dict[int, str]]:
    found: dict[int, dict[int, str]] = {}
    for pid, body in re.findall(r"(?ms)^/proc/(\d+)/fd:\n(.*?)(?=^/proc/|\Z)", text):
        found[int(pid)] = {int(fd): path for fd, path in re.findall(r"(?m) (\d+) -> (.*)$", body)}
    return found


def test_open_files_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Each task's descriptors and paths: across mounts, of pipes, sockets and anonymous inodes, and of a file that is gone."""
    ours = {
        pid: {file["descriptor"]: file["path"] for file in task["files"]}
        for pid, task in by_pid(ask("foreach files")).items()
    }
    theirs = _descriptors(told["fd"][0])
    # The first process is the one that was printing; the programs that it ran for that are gone.
    compared = ours.keys() & theirs.keys() - {1}
    assert len(compared) > 60
    assert {pid: ours[pid] for pid in compared} == {pid: theirs[pid] for pid in compared}
    paths = {path for pid in compared for path in ours[pid].values()}
    assert {"/tmp/deep/er/bound/busybox", "/tmp/deep/er/gone (deleted)", "/tmp/two words"} <= paths
    assert any(path.startswith("socket:[") for path in paths)


def test_pages_in_the_cache_are_those_of_drgn(ask: Ask, drgn_program: Any) -> None:
    """Of each open file, by its inode; a program in a file system of memory is there whole."""
    from drgn import Object

    files = {file["inode"]: file for task in ask("foreach files -c")["tasks"] for file in task["files"]}
    assert len(files) > 5
    for address, file in files.items():
        mapping = Object(drgn_program, "struct inode *", value=int(address, 16)).i_mapping
        assert (int(file["mapping"], 16), file["pages"]) == (mapping.value_(), mapping.nrpages.value_())
    assert [file["pages"] > 100 for file in files.values() if file["path"].endswith("/busybox")] == [True]


def test_root_and_working_directory_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Of each task, one of them in a mount below a mount."""
    links = re.findall(r"(?m)/proc/(\d+)/(cwd|root) -> (.*)$", told["links"][0])
    theirs = {(int(pid), which): path for pid, which, path in links}
    ours = {
        (pid, which): task[which] for pid, task in by_pid(ask("foreach files")).items() for which in ("cwd", "root")
    }
    compared = ours.keys() & theirs.keys()
    assert len(compared) > 120
    assert {key: ours[key] for key in compared} == {key: theirs[key] for key in compared}
    assert "/tmp/deep/er" in ours.values()


_MAP = re.compile(r"(?m)^/proc/(\d+)/maps:([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) \S+ \d+ *(.*)$")
MAP_FIELDS = ("start", "end", "permissions", "offset", "name")


def test_mapped_areas_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Bounds, permissions, offset and name of each area of each task, by the list of 5.10 and later kernels' trees."""
    theirs: dict[int, list[tuple[str, str, str, int, str]]] = {}
    for pid, start, end, letters, offset, name in _MAP.findall(told["maps"][0]):
        if name != "[vsyscall]":  # which is no area of the task's
            area = f"{int(start, 16):#x}", f"{int(end, 16):#x}", letters, int(offset, 16), name
            theirs.setdefault(int(pid), []).append(area)
    ours = {
        pid: [tuple(area[field] for field in MAP_FIELDS) for area in task["areas"]]
        for pid, task in by_pid(ask("foreach vm")).items()
        if task["areas"]
    }
    compared = ours.keys() & theirs.keys()
    assert len(compared) > 20
    assert {pid: ours[pid] for pid in compared} == {pid: theirs[pid] for pid in compared}


def test_the_structures_of_user_memory_are_those_that_its_list_shows(told: Printed, ask: Ask) -> None:
    """`vm -m` has the count of areas that /proc has lines; `vm -v` their bounds."""
    theirs: dict[int, list[tuple[int, int]]] = {}
    for pid, start, end, _, _, name in _MAP.findall(told["maps"][0]):
        if name != "[vsyscall]":
            theirs.setdefault(int(pid), []).append((int(start, 16), int(end, 16)))
    ours = {pid: task["structures"] for pid, task in by_pid(ask("foreach vm -m -v")).items() if task["structures"]}
    compared = ours.keys() & theirs.keys()
    assert len(compared) > 20
    for pid in compared:
        space, *areas = ours[pid]
        assert space["members"]["map_count"] == len(theirs[pid])
        assert [(area["members"]["vm_start"], area["members"]["vm_end"]) for area in areas] == theirs[pid]


def _status(text: str) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for pid, name, value in re.findall(r"(?m)^/proc/(\d+)/status:(\w+):\s*(.*)$", text):
        found.setdefault(int(pid), {})[name] = value
    return found


def test_memory_and_parents_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """VmSize and VmRSS in kB; PPid."""
    theirs = _status(told["status"][0])
    ours = by_pid(ask("ps"))
    compared = ours.keys() & theirs.keys() - {1}
    assert len(compared) > 60
    for pid in compared:
        task, status = ours[pid], theirs[pid]
        assert task["ppid"] == int(status["PPid"]), pid
        sizes = [None if size is None else f"{size >> 10} kB" for size in (task["mapped"], task["resident"])]
        assert sizes == [status.get("VmSize"), status.get("VmRSS")], pid


def test_signals_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Blocked, handled, ignored, pending for a task and for its process; some wait, since their task is stopped."""
    theirs = _status(told["status"][0])
    names = [line.partition("] ")[2] for line in ask("sig -l")["lines"]]

    def mask(found: list[str]) -> str:
        return f"{sum(1 << names.index(name) for name in found):016x}"

    waiting = 0
    ours = by_pid(ask("foreach sig"))
    for pid in ours.keys() & theirs.keys() - {1}:
        task, status = ours[pid], theirs[pid]
        assert mask(task["blocked"]) == status["SigBlk"], pid
        assert mask(task["pending"]) == status["SigPnd"], pid
        assert mask(task["shared_pending"]) == status["ShdPnd"], pid
        handling = task["handling"]
        assert mask([one["name"] for one in handling if one["handler"] == "0x1"]) == status["SigIgn"], pid
        assert mask([one["name"] for one in handling if one["handler"] not in (None, "0x1")]) == status["SigCgt"], pid
        assert task["threads"] == int(status["Threads"]), pid
        waiting += len(task["shared_queued"])
    assert waiting >= 2


def test_words_and_start_of_a_task_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """The first process's arguments, through its page table; each task's start, to a hundredth of a second."""
    assert ask("ps -a 1")["tasks"][0]["arguments"] == told["arguments"][0].split()
    started = {}
    for line in told["stat"][0].splitlines():
        pid, rest = line.partition(" (")[0], line.rpartition(") ")[2].split()
        started[int(pid)] = int(rest[19])
    ours = by_pid(ask("ps -t"))
    compared = ours.keys() & started.keys()
    assert len(compared) > 60
    assert {pid: ours[pid]["started"] // 10_000_000 for pid in compared} == {pid: started[pid] for pid in compared}


# The machine: /proc


def test_mounts_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Mounted on each other, bound, read-only; the root that hides below the first process's is ours alone."""
    theirs = set()
    for line in told["mounts"][0].splitlines():
        of_mount, _, of_superblock = line.partition(" - ")
        _, _, _, _, place, options = of_mount.split(" ")[:6]
        kind, device, more = of_superblock.split(" ")
        is_read_only = "ro" in options.split(",") or "ro" in more.split(",")
        rest = [word for word in options.split(",") if word not in ("ro", "rw")]
        theirs.add((place, kind, device, ("ro" if is_read_only else "rw", *rest)))
    ours = {
        (mount["path"], mount["type"], mount["device"], tuple(mount["options"])) for mount in ask("mount")["mounts"]
    }
    assert {kind for _, kind, _, _ in ours - theirs} <= {"nullfs"}
    assert theirs <= ours
    assert ("/tmp/deep/er/bound", "rootfs", "rootfs", ("ro",)) in {(p, k, d, o[:1]) for p, k, d, o in ours}


def test_files_and_inodes_of_mounts_are_those_of_drgn(ask: Ask, drgn_program: Any) -> None:
    """Each on the file system that drgn says, with its number; pages of a file are of its mapping, the first one first."""
    from drgn import Object
    from drgn.helpers.linux.list import list_for_each_entry

    def inode_at(address: str) -> Any:
        return Object(drgn_program, "struct inode *", value=int(address, 16))

    opened = {file["inode"]: mount for mount in ask("mount -f")["mounts"] for file in mount["files"]}
    assert len(opened) > 5
    for inode, mount in opened.items():
        assert inode_at(inode).i_sb.value_() == int(mount["superblock"], 16)

    dirty = 0
    for mount in ask("mount -i")["mounts"]:
        superblock = Object(drgn_program, "struct super_block *", value=int(mount["superblock"], 16))
        known = {
            f"{inode.value_():#x}": (inode.i_ino.value_(), inode.i_mapping.nrpages.value_())
            for inode in list_for_each_entry("struct inode", superblock.s_inodes.address_of_(), "i_sb_list")
        }
        for one in mount["inodes"]:
            assert (one["number"], one["pages"]) == known[one["inode"]]
            dirty += one["type"] == "REG" and one["pages"] > 0
    assert dirty  # files in memory are never written anywhere

    for task in ask("foreach files")["tasks"]:
        for file in task["files"]:
            if file["type"] == "REG" and file["pages"]:
                pages = ask(f"files -p {file['inode']}")["pages"]
                assert 0 < len(pages) <= file["pages"]
                assert pages[0]["index"] == 0
                for page in pages:
                    found = Object(drgn_program, "struct page *", value=int(page["page"], 16))
                    assert f"{found.mapping.value_():#x}" == file["mapping"]


def _counts(text: str) -> dict[str, tuple[list[int], str]]:
    """Counts by CPU and the rest of each line of /proc/interrupts or /proc/softirqs."""
    lines = re.findall(r"(?m)^ *(\w+):((?: +\d+)+)(.*)$", text)
    return {name: ([int(word) for word in counts.split()], rest.strip()) for name, counts, rest in lines}


def test_interrupts_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Which are handled, by whom, and how often they came: no less than before the snapshot, no more than after."""
    before, after = (_counts(text) for text in told["interrupts"])
    ours = {str(one["number"]): one for one in ask("irq")["interrupts"]}
    numbered = {name for name in before if name.isdigit()}
    assert numbered <= ours.keys()
    assert {number for number, one in ours.items() if one["actions"]} == numbered
    for number in numbered:
        one = ours[number]
        counts = [one["counts"][cpu] for cpu in sorted(one["counts"], key=int)]
        assert all(
            low <= count <= high for low, count, high in zip(before[number][0], counts, after[number][0], strict=True)
        ), number
        assert before[number][1].endswith(", ".join(action["name"] for action in one["actions"])), number
        assert before[number][1].split()[0] == one["chip"], number


def test_softirqs_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """In the same order, with counts between those before and after."""
    before, after = (_counts(text) for text in told["softirqs"])
    ours = ask("irq -b")["softirqs"]
    assert [one["name"] for one in ours] == list(before)
    for one in ours:
        counts = [one["counts"][cpu] for cpu in sorted(one["counts"], key=int)]
        bounds = zip(before[one["name"]][0], counts, after[one["name"]][0], strict=True)
        assert all(low <= count <= high for low, count, high in bounds), one["name"]


def _hrtimers(text: str) -> Iterator[tuple[int, str, int, int]]:
    """CPU, function, soft and hard expiry of each timer in /proc/timer_list."""
    for cpu, body in re.findall(r"(?ms)^cpu: (\d+)\n(.*?)(?=^cpu: |^Tick Device|\Z)", text):
        found = re.findall(r" #\d+: <[^>]*>, (\w+), S:\d+\n # expires at (\d+)-(\d+) nsecs", body)
        yield from ((int(cpu), function, int(soft), int(hard)) for function, soft, hard in found)


def test_hrtimers_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Timers that were there before and after are in the snapshot, each on its CPU with its function and times."""
    before, after = (set(_hrtimers(text)) for text in told["timers"])
    ours = {(one["cpu"], one["symbol"], one["soft_expires"], one["expires"]) for one in ask("timer -r")["timers"]}
    lasting = before & after
    assert len(lasting) > 10
    assert lasting <= ours
    # A timer that runs for minutes and more was not made in the seconds between two looks.
    now = ask("timer -r")["now"]
    assert {one for one in ours if one[3] > now + 600 * 10**9} <= before | after


def test_devices_and_disks_are_those_of_proc(told: Printed, ask: Ask) -> None:
    """Majors and names; disks that have a size."""
    characters, _, blocks = told["devices"][0].partition("Block devices:")
    ours = ask("dev")
    numbers = re.compile(r"(?m)^ *(\d+) (.*)$")
    assert sorted((str(one["major"]), one["name"]) for one in ours["characters"]) == sorted(numbers.findall(characters))
    assert sorted((str(one["major"]), one["name"]) for one in ours["blocks"]) == sorted(numbers.findall(blocks))
    partitions = re.findall(r"(?m)^ +(\d+) +(\d+) +(\d+) (\w+)$", told["partitions"][0])
    disks = ask("dev -d")
    assert sorted(
        (str(one["major"]), str(one["minor"]), str(one["size"] >> 10), one["name"])
        for one in disks["disks"]
        if one["size"]
    ) == sorted(partitions)
    assert disks["requests"] == []


def test_network_devices_have_the_addresses_that_the_guest_shows(told: Printed, ask: Ask) -> None:
    """Name, index, size of packets, state, hardware and IP addresses."""
    theirs = []
    for index, name, flags, mtu, body in re.findall(
        r"(?ms)^(\d+): ([\w.]+)\S*: <(.*?)> mtu (\d+) (.*?)(?=^\d+: |\Z)", told["address"][0]
    ):
        hardware = re.search(r"link/\w+ ([0-9a-f:]+)", body)
        addresses = re.findall(r"inet6? (\S+)", body)
        is_up = "UP" in flags.split(",")
        theirs.append((int(index), name, is_up, int(mtu), hardware.group(1) if hardware else "", addresses))
    fields = ("index", "name", "is_up", "mtu", "hardware_address", "addresses")
    ours = [tuple(device[field] for field in fields) for device in ask("net")["devices"]]
    assert sorted(ours) == sorted(theirs)


def test_neighbours_are_as_many_as_their_tables_count(ask: Ask, drgn_program: Any) -> None:
    """The loopback device's is there once something was sent over it, and needs no ARP; it stands for any address."""
    found = ask("net -a")["neighbours"]
    tables = [drgn_program[name] for name in ("arp_tbl", "nd_tbl")]
    assert len(found) == sum(table.entries.counter.value_() for table in tables)
    loopback = [one for one in found if one["device_name"] == "lo" and one["ip"] == "0.0.0.0"]
    assert [(one["states"], one["hardware_address"]) for one in loopback] == [(["NOARP"], "00:00:00:00:00:00")]


def test_a_connection_has_its_two_ends(ask: Ask) -> None:
    """The two sockets of one connection over the loopback device name each other's address and port."""
    sockets = [socket for task in ask("foreach net")["tasks"] for socket in task["sockets"]]
    ends = [one for one in sockets if one["type"] == "STREAM" and one["state"] == "ESTABLISHED"]

    def port(address: str) -> str:
        return str(address).rpartition(":")[2]

    pairs = {(port(one["source"]), port(one["destination"])) for one in ends if one["family"] in ("INET", "INET6")}
    served = {pair for pair in pairs if pair[0] == "7100"}
    assert served
    assert {(there, here) for here, there in served} <= pairs


def test_the_machine_is_as_proc_says(told: Printed, ask: Ask) -> None:
    """Command line, taints, time since boot, processors."""
    system = ask("sys")["system"]
    assert system["command_line"].split() == told["cmdline"][0].split()
    assert int(ask("sys -t")["mask"] or "0", 16) == int(told["tainted"][0])
    before, after = (float(text.split()[0]) for text in told["uptime"])
    assert before - 0.1 <= system["uptime"] / 1e9 <= after

    names = ("vendor_id", "cpu family", "model", "model name")
    theirs = [
        tuple(re.findall(rf"(?m)^{name}\s*: (.*)$", part)[0] for name in names)
        for part in told["cpuinfo"][0].strip().split("\n\n")
    ]
    ours = [(cpu["vendor"], str(cpu["family"]), str(cpu["model_number"]), cpu["model"]) for cpu in ask("mach")["cpus"]]
    assert ours == theirs


# Containers and queues: drgn on the same snapshot


def test_lists_and_trees_are_those_of_drgn(session: Session, drgn_program: Any) -> None:
    """The task list, vmalloc's or swap's red-black tree, each task's areas, the page cache of each file."""
    from drgn.helpers.linux.list import list_for_each_entry
    from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

    program, budget = session.program, Budget(1 << 20)
    prog = drgn_program
    theirs = [
        task.value_()
        for task in list_for_each_entry("struct task_struct", prog["init_task"].tasks.address_of_(), "tasks")
    ]
    head = variable(program, "init_task", "struct task_struct").member_("tasks")
    assert [task.address_ for task in lists.entries(head, "struct task_struct", "tasks", budget)] == theirs

    if program.linux.find_address("vmap_area_root") is not None:
        root = variable(program, "vmap_area_root", "struct rb_root")
        areas = rbtree_inorder_for_each_entry("struct vmap_area", prog["vmap_area_root"].address_of_(), "rb_node")
        theirs = [area.value_() for area in areas]
        assert len(theirs) > 20
        assert [area.address_ for area in rbtree.entries(root, "struct vmap_area", "rb_node", budget)] == theirs
    assert budget.is_whole


def test_the_list_command_follows_lists_by_their_head_and_through_structures(session: Session, ask: Ask) -> None:
    """The modules, as `mod` has them; the thread group leaders, as `ps` has them."""
    modules = ask("list -H modules -o module.list -s module.name")
    assert [one["values"]["name"] for one in modules["nodes"]] == [one["name"] for one in ask("mod")["modules"]]
    leaders = ask("list task_struct.tasks -h init_task -s task_struct.pid")
    # Swappers of other CPUs are on no list.
    assert [one["values"]["pid"] for one in leaders["nodes"][1:]] == [
        task.pid for task in session.tasks if task.pid and task.pid == task.tgid
    ]
    assert (modules["broken"], leaders["broken"]) == (None, None)


def test_areas_of_all_tasks_are_those_of_drgn(session: Session, drgn_program: Any) -> None:
    """By the linked list or the maple tree."""
    from drgn import Object
    from drgn.helpers.linux.mm import for_each_vma

    program, budget = session.program, Budget(1 << 20)
    seen = 0
    for task in session.tasks:
        space = program.object("task_struct", task.address).member_("mm")
        if not int(space):
            continue
        theirs = Object(drgn_program, "struct mm_struct *", value=int(space))
        assert [area.address_ for area in areas_of(space, budget)] == [vma.value_() for vma in for_each_vma(theirs)]
        seen += 1
    assert seen > 20
    assert budget.is_whole


def test_page_caches_are_those_of_drgn(session: Session, drgn_program: Any) -> None:
    """The xarray of each mapped file's pages, with the index of each entry."""
    from drgn import Object
    from drgn.helpers.linux.xarray import xa_for_each

    program, budget = session.program, Budget(1 << 20)
    mappings = set()
    for task in session.tasks:
        space = program.object("task_struct", task.address).member_("mm")
        if int(space):
            files = [area.member_("vm_file") for area in areas_of(space, budget)]
            mappings |= {int(file.member_("f_mapping")) for file in files if int(file)}
    assert mappings
    entries = 0
    for address in mappings:
        ours = xarray.entries(program.object("struct address_space", address).member_("i_pages"), budget)
        pages = Object(drgn_program, "struct address_space *", value=address).i_pages.address_of_()
        theirs = [(index, entry.value_()) for index, entry in xa_for_each(pages)]
        found = {}
        for one in ours:
            found[one.index] = one.value
        assert sorted(found.items()) == theirs
        entries += len(theirs)
    assert entries > 100
    assert budget.is_whole


def test_maple_trees_are_those_of_drgn(session: Session, drgn_program: Any) -> None:
    """Ranges and entries: of the interrupts, where they are in one, and of each task's memory."""
    from drgn import Object
    from drgn.helpers.linux.mapletree import mt_for_each

    program, budget = session.program, Budget(1 << 20)
    if program.catalog.find("struct", "maple_tree") is None:
        assert program.linux.find_address("irq_desc_tree") is not None
        return
    trees = [program.linux.find_address("sparse_irqs")]
    for task in session.tasks:
        space = program.object("task_struct", task.address).member_("mm")
        if int(space):
            trees.append(space.member_("mm_mt").address_)
    seen = 0
    for address in trees:
        if address is None:
            continue
        ours = maple_tree.entries(program.object("struct maple_tree", address), budget)
        theirs = mt_for_each(Object(drgn_program, "struct maple_tree *", value=address))
        assert [(one.index, one.last, one.value) for one in ours] == [
            (first, last, entry.value_()) for first, last, entry in theirs
        ]
        seen += len(ours)
    assert seen > 100
    assert budget.is_whole


def test_workqueues_are_those_of_drgn(ask: Ask, drgn_program: Any) -> None:
    """Pools with their CPUs and workers, and all workqueues by name."""
    from drgn.helpers.linux.idr import idr_for_each_entry
    from drgn.helpers.linux.list import list_for_each_entry

    prog = drgn_program
    theirs = []
    for number, pool in idr_for_each_entry(prog["worker_pool_idr"].address_of_(), "struct worker_pool"):
        workers = list_for_each_entry("struct worker", pool.workers.address_of_(), "node")
        theirs.append((int(number), pool.cpu.value_(), [worker.value_() for worker in workers]))
    ours = ask("workqueue")
    pools = [
        (pool["number"], pool["cpu"], [int(worker["address"], 16) for worker in pool["workers"]])
        for pool in ours["pools"]
    ]
    assert pools == theirs
    names = [
        queue.name.string_().decode()
        for queue in list_for_each_entry("struct workqueue_struct", prog["workqueues"].address_of_(), "list")
    ]
    assert [queue["name"] for queue in ours["workqueues"]] == names
    assert all(worker["pid"] > 0 for pool in ours["pools"] for worker in pool["workers"] if worker["task"])


def test_tasks_that_wait_for_a_cpu_are_those_that_are_ready(kernel: str, open_scene: OpenScene) -> None:
    """In a busy guest, each task that the run queue counts is the current one or waits in it, and is in state RU."""
    _, session = open_scene(kernel, "nmi")
    debugger = Debugger(session)
    answer = encode(standard_commands().run(debugger, "runq"))
    assert not answer["problems"]
    states = {task.address: task.state for task in session.tasks}
    ready = {task.address for task in session.tasks if task.state == "RU" and task.pid}
    found = set()
    arrivals: dict[int, int] = {}
    for queue in answer["queues"]:
        assert queue["current"] is not None
        queued = {int(one["task"], 16) for one in queue["queued"]}
        arrivals |= {one["pid"]: one["arrival"] for one in queue["queued"]}
        arrivals[queue["current"]["pid"]] = queue["current_arrival"]
        current = int(queue["current"]["task"], 16)
        assert queue["running"] == len(queued | ({current} if queue["current"]["pid"] else set()))
        # One that sleeps with its lag to work off is counted with the others.
        awake = {int(one["task"], 16) for one in queue["queued"] if not one["is_delayed"]}
        assert {states[task] for task in awake} <= {"RU"}
        found |= awake | {current}
    assert ready <= found
    arrivals.pop(0, None)
    by_ps = {task["pid"]: task["last_run"] for task in encode(standard_commands().run(debugger, "ps -l"))["tasks"]}
    assert arrivals == {pid: by_ps[pid] for pid in arrivals}


def test_parts_of_the_kernels_memory_are_searched_alone(ask: Ask) -> None:
    """`search -K` and `-V` together find what `-k` finds, and nothing twice; `-T` what `-t` finds on fewer stacks."""

    def places(line: str) -> list[str]:
        return [hit["address"] for hit in ask(line)["hits"]]

    without, alone, whole = (places(f"search {option} -c sleep swapper") for option in ("-K", "-V", "-k"))
    assert len(without) > 3
    assert sorted(without + alone) == sorted(whole)
    assert set(places("search -T -m ffffff schedule")) < set(places("search -t -m ffffff schedule"))


def test_data_is_data_and_code_is_code(session: Session, ask: Ask) -> None:
    """By the section, too: 7.2's `.data` is executable by its header, and nm calls what is in it text."""
    names = {
        "init_task": False,
        "init_uts_ns": False,
        "sys_call_table": False,
        "schedule": True,
        "relocate_kernel": True,
    }
    for name, is_text in names.items():
        address = session.linux.address(name)
        (found,) = (one for one in ask(f"kmem {address:x}")["addresses"][0]["findings"] if one["kind"] == "symbol")
        assert found["text"] == is_text, name
        assert is_text or not found["section"].endswith(".text"), name
