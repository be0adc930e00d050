"""Does any snapshot, made so on purpose, take more than 1 GB, or 10 s of CPU time, for an answer?

    python -m tests.hostile NAME|all [VMLINUX SNAPSHOT]

A snapshot (the bundled sample's without files) is opened with some words of its memory changed. Links and counts lead into
96 MB of false memory, in which every word is the address of the word 64 bytes further: read as whatever structure, it is a
list of 1.5 million false nodes, and every pointer in each node leads into it too. For each case some commands are run, each
with a session of its own. A line of JSON tells what came of each: seconds of CPU, how slow the machine was (tests/speed.py),
the peak of memory in MB, problems.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace, I64Array, U64Array, read_u64
from orcdbg.cli.main import sample_files
from orcdbg.cli.output import Output
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from tests.build.memory import ChangedMemory
from tests.speed import reference_work, slowness

# A slot of the page tables that no kernel uses, with four levels of the top one, and physical memory that no machine has.
FALSE, TABLE, STORE = 0xFFFF_C100_0000_0000, 1 << 46, 1 << 47
UNITS, UNIT = 1_500_000, 64
SIZE = UNITS * UNIT
SECONDS, MEMORY = 10, 1 << 30
_LARGE = 0x80 | 3
Words = dict[int, int]


class Hostile(ChangedMemory):
    """Physical memory with words that are others, and false memory behind it.

    Args:
        memory: as the snapshot has it.
        words: physical addresses of words, and what they are now.
        false: the words of the false memory.
    """

    def __init__(self, memory: AddressSpace, words: Mapping[int, int], false: bytes) -> None:
        self._memory = memory
        self._words = words
        self._pages = {place // 4096 for place in words}
        self._false = false
        self._table = (STORE | _LARGE).to_bytes(8, "little") + bytes(4088)

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, but for what was changed."""
        if address >= STORE:
            offset = address - STORE
            return self._false[offset : offset + size].ljust(size, b"\0")
        if address >= TABLE:
            return self._table[address - TABLE : address - TABLE + size]
        data = self._memory.read(address, size)
        if self._pages.isdisjoint(range(address // 4096, (address + size - 1) // 4096 + 1)):
            return data
        changed = bytearray(data)
        for place, word in self._words.items():
            for at, byte in enumerate(word.to_bytes(8, "little"), place - address):
                if 0 <= at < size:
                    changed[at] = byte
        return bytes(changed)

    def read_pieces(self, addresses: U64Array, sizes: I64Array) -> list[bytes | None]:
        """As any snapshot's reader: false memory's pieces without a call for each, which would take longer than the answer."""
        false, places = self._false, addresses.tolist()
        if not places or min(places) < STORE or max(places) >= STORE + SIZE:
            return super().read_pieces(addresses, sizes)
        ends = (addresses + sizes.astype(np.uint64)).tolist()
        pieces = [false[start - STORE : end - STORE] for start, end in zip(places, ends, strict=True)]
        return [piece.ljust(size, b"\0") for piece, size in zip(pieces, sizes.tolist(), strict=True)]


def false_words() -> U64Array:
    """Every word is the address of the word 64 bytes further, the last ones of the first: it all ends in a circle."""
    count = SIZE // 8
    return (np.arange(count, dtype=np.uint64) * np.uint64(8) + np.uint64(UNIT)) % np.uint64(SIZE) + np.uint64(FALSE)


class Scene:
    """A kernel whose memory is being changed: `words` by virtual address, `false` the words of the false memory."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.linux = session.linux
        self.types = session.types
        self.words: Words = {}
        self.false = false_words()

    def put(self, address: int, *words: int) -> None:
        """Changes words, in the kernel's memory or in the false one."""
        for number, word in enumerate(words):
            place = address + 8 * number
            if FALSE <= place < FALSE + SIZE:
                self.false[(place - FALSE) // 8] = word & (1 << 64) - 1
            else:
                self.words[place] = word

    def put_member(self, struct: str, path: str, address: int, value: int) -> None:
        """Changes a member; its neighbours in the word stay."""
        place = address + self.types.offset(struct, path)
        size = min(self.types.size_of_member(struct, path), 8)
        shift, mask = place % 8 * 8, (1 << 8 * size) - 1
        self.put(place & -8, self.word(place & -8) & ~(mask << shift) | (value & mask) << shift)

    def word(self, address: int) -> int:
        """A word as it is now."""
        if FALSE <= address < FALSE + SIZE:
            return int(self.false[(address - FALSE) // 8])
        return self.words.get(address) or read_u64(self.linux.memory, address)

    def physical_words(self) -> Words:
        """The changes by physical address, the top page table's among them."""
        memory = self.session.memory
        found = {memory.translate(address): word for address, word in self.words.items()}
        table = memory.root
        if memory.levels == 5:
            entry = self.session.snapshot.physical.read(table + 8 * (FALSE >> 48 & 511), 8)
            table = int.from_bytes(entry, "little") & 0x000F_FFFF_FFFF_F000
        found[table + 8 * (FALSE >> 39 & 511)] = TABLE | 3
        return found


# What is changed: one word, where no more is said.


def _kprobe_word(scene: Scene) -> None:
    """The first bucket of the kprobes leads to the second, which leads nowhere."""
    table = scene.linux.address("kprobe_table")
    scene.put(table, table + 8)


def _kprobe_circle(scene: Scene) -> None:
    table = scene.linux.address("kprobe_table")
    scene.put(table, table)


def _kprobe_nodes(scene: Scene) -> None:
    """All buckets lead into false memory, each elsewhere."""
    table = scene.linux.address("kprobe_table")
    scene.put(table, *(FALSE + 0x10_0000 + SIZE // 128 // UNIT * UNIT * number for number in range(64)))


def _first_page(scene: Scene) -> int:
    return read_u64(scene.linux.memory, scene.linux.address("ftrace_pages_start"))


def _page_circle(scene: Scene) -> None:
    page = _first_page(scene)
    scene.put_member("ftrace_page", "next", page, page)


def _page_nodes(scene: Scene) -> None:
    scene.put_member("ftrace_page", "next", _first_page(scene), FALSE + 0x10_0000)


def _page_index(scene: Scene) -> None:
    """A page of 2^20 - 1 records, again and again in false memory."""
    size, count = scene.types.size("ftrace_page"), 4000
    for number in range(count):
        page = FALSE + 0x10_0000 + size * number
        scene.put(page, *([0] * (size // 8)))
        scene.put_member("ftrace_page", "next", page, page + size if number + 1 < count else 0)
        scene.put_member("ftrace_page", "index", page, (1 << 20) - 1)
        scene.put_member("ftrace_page", "records", page, FALSE + 0x80_0000)
    scene.put_member("ftrace_page", "next", _first_page(scene), FALSE + 0x10_0000)


def _traced(scene: Scene) -> None:
    """The first functions are traced, by trampolines of their own."""
    page = _first_page(scene)
    records = scene.linux.member("ftrace_page", "records", page)
    size = scene.types.size("dyn_ftrace")
    for number in range(8):
        place = records + size * number
        scene.put_member("dyn_ftrace", "flags", place, 1 << 31 | 1 << 27 | 1)


def _operation_nodes(scene: Scene) -> None:
    _traced(scene)
    scene.put(scene.linux.address("ftrace_ops_list"), FALSE + 0x10_0000)


def _operation_circle(scene: Scene) -> None:
    _traced(scene)
    _false_operation(scene, FALSE + 0x10_0000, bits=4)
    scene.put_member("ftrace_ops", "next", FALSE + 0x10_0000, FALSE + 0x10_0000)


def _operation_word(scene: Scene) -> None:
    """The first operation's `next` leads into the kernel's text."""
    _traced(scene)
    first = read_u64(scene.linux.memory, scene.linux.address("ftrace_ops_list"))
    scene.put_member("ftrace_ops", "next", first, scene.linux.address("_text"))


def _false_operation(scene: Scene, operation: int, bits: int) -> None:
    """An operation that traces what a hash of so many bits names."""
    hashes, table = operation + 0x1000, operation + 0x2000
    scene.put(operation, *([0] * (scene.types.size("ftrace_ops") // 8)))
    scene.put_member("ftrace_ops", "next", operation, scene.linux.address("ftrace_list_end"))
    scene.put_member("ftrace_ops", "trampoline", operation, FALSE + 0x4000)
    scene.put_member("ftrace_ops", "func_hash", operation, hashes)
    scene.put_member("ftrace_ops_hash", "filter_hash", hashes, table)
    scene.put_member("ftrace_ops_hash", "notrace_hash", hashes, 0)
    scene.put_member("ftrace_hash", "size_bits", table, bits)
    scene.put_member("ftrace_hash", "count", table, 1 << bits)
    scene.put_member("ftrace_hash", "buckets", table, FALSE + 0x10_0000)
    scene.put(scene.linux.address("ftrace_ops_list"), operation)


def _hash_22_bits(scene: Scene) -> None:
    _traced(scene)
    _false_operation(scene, FALSE + 0x1000, bits=22)


def _hash_nodes(scene: Scene) -> None:
    _traced(scene)
    _false_operation(scene, FALSE + 0x1000, bits=12)


def _direct_nodes(scene: Scene) -> None:
    """direct_functions is a hash of false memory, and a function is called directly."""
    _hash_nodes(scene)
    variable = scene.linux.find_address("direct_functions")
    if variable is not None:
        scene.put(variable, FALSE + 0x1000 + 0x2000)
        records = scene.linux.member("ftrace_page", "records", _first_page(scene))
        scene.put_member("dyn_ftrace", "flags", records, 1 << 31 | 1 << 23 | 1)


def _list(head: str, to: int | None) -> Callable[[Scene], None]:
    """A list whose head leads into false memory, or whose first node leads to itself."""

    def change(scene: Scene) -> None:
        place = scene.linux.find_address(head)
        if place is None:
            return  # a kernel without BPF
        if head == "init_task":
            place += scene.types.offset("task_struct", "tasks")
        if to is not None:
            scene.put(place, to)
            return
        first = read_u64(scene.linux.memory, place)
        scene.put(first if first != place else place, first if first != place else FALSE)
        if first == place:
            scene.put(FALSE, FALSE)

    return change


def _threads(scene: Scene) -> None:
    """The threads of the first group behind the boot's lead into false memory."""
    linux = scene.linux
    first = read_u64(linux.memory, linux.address("init_task") + scene.types.offset("task_struct", "tasks"))
    signal = linux.member("task_struct", "signal", first - scene.types.offset("task_struct", "tasks"))
    scene.put(signal + scene.types.offset("signal_struct", "thread_head"), FALSE + 0x10_0000)


def _log(scene: Scene) -> None:
    """A ring of 2^20 records, all committed, and all of one text."""
    linux = scene.linux
    ring = read_u64(linux.memory, linux.address("prb"))
    sizes = scene.types.size("prb_desc"), scene.types.size("printk_info")
    descriptors, infos, count = FALSE, FALSE + 0x300_0000, 1 << 20
    for path, value in (
        ("desc_ring.count_bits", 20),
        ("desc_ring.descs", descriptors),
        ("desc_ring.infos", infos - infos % sizes[1]),
        ("desc_ring.head_id", count - 1),
        ("desc_ring.tail_id", 0),
        ("text_data_ring.size_bits", 16),
        ("text_data_ring.data", FALSE),
    ):
        scene.put_member("printk_ringbuffer", path, ring, value)
    numbers = np.arange(count, dtype=np.uint64)
    state, begin, end = (
        scene.types.offset("prb_desc", path) // 8 for path in ("state_var", "text_blk_lpos.begin", "text_blk_lpos.next")
    )
    rows = scene.false[: count * sizes[0] // 8].reshape(count, sizes[0] // 8)
    rows[:, state] = numbers | np.uint64(1 << 62)
    rows[:, begin], rows[:, end] = 0, 0xFFF8


CHANGES: dict[str, tuple[Callable[[Scene], None], tuple[str, ...]]] = {
    "kprobe-word": (_kprobe_word, ("patch audit", "bt -a")),
    "kprobe-circle": (_kprobe_circle, ("patch audit", "bt -a")),
    "kprobe-nodes": (_kprobe_nodes, ("patch audit", "bt -a", "patch list --mechanism kprobe")),
    "ftrace-page-circle": (_page_circle, ("patch audit",)),
    "ftrace-page-nodes": (_page_nodes, ("patch audit", "patch list --mechanism ftrace")),
    "ftrace-page-index": (_page_index, ("patch audit",)),
    "ftrace-ops-circle": (_operation_circle, ("patch audit", "bt -a")),
    "ftrace-ops-word": (_operation_word, ("patch audit", "bt -a")),
    "ftrace-ops-nodes": (_operation_nodes, ("patch audit", "bt -a")),
    "ftrace-hash-22-bits": (_hash_22_bits, ("patch audit",)),
    "ftrace-hash-nodes": (_hash_nodes, ("patch audit", "patch list --mechanism ftrace")),
    "ftrace-direct-nodes": (_direct_nodes, ("patch audit",)),
    "task-nodes": (_list("init_task", FALSE + 0x10_0000), ("ps", "bt", "sys")),
    "task-circle": (_list("init_task", None), ("ps", "foreach bt")),
    "thread-nodes": (_threads, ("ps", "bt")),
    "module-nodes": (_list("modules", FALSE + 0x10_0000), ("mod", "bt -a", "sym schedule", "patch audit")),
    "module-circle": (_list("modules", None), ("mod", "bt -a")),
    "bpf-nodes": (_list("bpf_kallsyms", FALSE + 0x10_0000), ("bt -a", "patch audit")),
    "bpf-circle": (_list("bpf_kallsyms", None), ("bt -a", "patch audit")),
    "log-nodes": (_log, ("log",)),
}


def hostile_session(name: str, files: Sequence[str]) -> Session:
    """A session over the memory of a case."""
    scene = Scene(open_session(*files))
    CHANGES[name][0](scene)
    words, false = scene.physical_words(), scene.false.tobytes()
    del scene
    return open_session(*files, through=lambda memory: Hostile(memory, words, false))


def _peak() -> int:
    """Megabytes that this program had in memory at most."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


def run(name: str, command: str, files: Sequence[str]) -> dict[str, Any]:
    """What came of a command: seconds of CPU, `slowness`, megabytes, and the answer's `problems`, or its error."""
    session = hostile_session(name, files)
    before = reference_work()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # what was in memory at most is counted from here
    start = time.process_time()
    out = io.StringIO()
    try:
        debugger = Debugger(session)
        Output("json", False, None).answer(command, standard_commands().run(debugger, command), out)
        seconds = time.process_time() - start
        answer = json.loads(out.getvalue())["result"]  # reading it is the test's work, a second of it for the longest
    except OrcdbgError as error:
        seconds = time.process_time() - start
        answer = {"error": str(error)}
    answer = {
        "answer": answer,
        "problems": [line for line in session.warnings if line not in session.snapshot.warnings],
    }
    peak = _peak()
    slow = slowness(before, reference_work())
    numbers = {"seconds": round(seconds, 2), "slowness": round(slow, 2), "peak": peak}
    return {"case": name, "command": command, **numbers, "answer": answer}


def is_within_bounds(result: Mapping[str, Any]) -> bool:
    """Whether a command took no more than it may, by what `run` gave."""
    return bool(result["seconds"] <= SECONDS * result["slowness"] and result["peak"] <= MEMORY >> 20)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a case took too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("name", choices=["all", *CHANGES])
    parser.add_argument("files", nargs="*", metavar="VMLINUX SNAPSHOT")
    parser.add_argument("--whole", action="store_true", help="whole answers, not only their problems")
    arguments = parser.parse_args(words)
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, resource.RLIM_INFINITY))
    is_good = True
    for name in CHANGES if arguments.name == "all" else [arguments.name]:
        for command in CHANGES[name][1]:
            result = run(name, command, arguments.files or sample_files())
            is_good &= is_within_bounds(result)
            if not arguments.whole:
                answer = result.pop("answer")
                result["problems"] = _problems(answer)[:6]
            print(json.dumps(result), flush=True)
    return 0 if is_good else 1


def _problems(answer: object) -> list[str]:
    """All problems, notes and errors in an answer."""
    found: list[str] = []
    if isinstance(answer, dict):
        for key, value in answer.items():
            if key in ("problems", "notes", "error"):
                found += [value] if isinstance(value, str) else value
            else:
                found += _problems(value)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
