"""Does any word of memory, when it is another, make a command end otherwise than with an answer or one clear line?

    python -m tests.hostile_words --seed N --rounds N [--only ROUND] [VMLINUX SNAPSHOT]

A command is run on the undamaged snapshot (the bundled sample's without files), and what it reads is noted. Then it is run
again with some of these words changed, as they are read: pointers lead to other places that it reads, so that lists cycle
and cross, or to nowhere; counts are huge; texts hold escape sequences. It fails with any exception but an OrcdbgError, with
more than 5 s of CPU time, with more than 1 GB of memory over what the undamaged snapshot takes, with an answer that is
longer than 64 MB or has a control character, and with JSON that is none.

Each round depends on the seed and its number alone.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import orcdbg
from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.cli.main import sample_files
from orcdbg.cli.output import Output
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.x86.paging import PHYSICAL, PRESENT
from tests.build.memory import ChangedMemory
from tests.speed import slowness_of_this_run

SECONDS = 5.0
MEMORY = 1 << 30
LONGEST_ANSWER = 64 << 20
LONGEST_ERROR = 2000
WORD = 8
MASK = (1 << 64) - 1

# Reads of one command that are kept; it has most of its structures in the first ones, and the rest are more of the same.
MOST_READS = 200_000

Words = Mapping[int, int]


class HostileWords(ChangedMemory):
    """Physical memory in which some words are others, and which can note what is read of it.

    Attributes:
        reads: addresses and sizes of what was read, None where nobody asks.
    """

    def __init__(self, memory: AddressSpace) -> None:
        self.memory = memory
        self._pages: dict[int, dict[int, int]] = {}
        self.reads: dict[tuple[int, int], None] | None = None

    @property
    def words(self) -> Words:
        """What stands at physical addresses, which are multiples of 8, instead of what the snapshot has."""
        return {place: word for page in self._pages.values() for place, word in page.items()}

    @words.setter
    def words(self, words: Words) -> None:
        self._pages = {}
        for place, word in words.items():
            self._pages.setdefault(place // PAGE, {})[place] = word

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, with the words in their places."""
        data = self.memory.read(address, size)
        if self.reads is not None and size and len(self.reads) < MOST_READS:
            self.reads[address, size] = None
        pages = self._pages.keys() & range(address // PAGE, (address + size - 1) // PAGE + 1)
        if not pages:
            return data
        changed = bytearray(data)
        for page in pages:
            words = self._pages[page]
            places: Iterable[int] = words
            if size < PAGE:
                places = words.keys() & range(address & -WORD, address + size, WORD)
            for place in places:
                first, last = max(place, address), min(place + WORD, address + size)
                if first < last:
                    word = words[place].to_bytes(WORD, "little")
                    changed[first - address : last - address] = word[first - place : last - place]
        return bytes(changed)


# What stands in the place of a word


def _another(chance: random.Random, before: int, pointers: Sequence[int]) -> int:
    """Another pointer that the command reads: lists cross, cycle, and structures are of another type."""
    return chance.choice(pointers) if pointers else before


_TEXTS = (
    b"\x1b[2J\x1b[H",
    b"\n\r\x07\x08A\nB",
    b"\x1b]0;x\x07\0",
    b"\xff\xfe\x9b31m\0\0",
    b"\xe2\x80\xae\xc2\x9b1m",
    b"%s%n\0$(a",
)


def _hostile_word(chance: random.Random, before: int, pointers: Sequence[int]) -> int:
    """What stands in the place of `before`."""
    kind = chance.randrange(16)
    if kind <= 3:
        return _another(chance, before, pointers)
    if kind == 4:
        return _another(chance, before, pointers) + chance.choice((-8, 8, 16, 64, 0x1000, 1, 2, 3, -1)) & MASK
    if kind == 5:
        return before + chance.choice((1, 3, -8, 8, 0x40, 0x1000, -0x1000, 1 << 21)) & MASK
    if kind <= 7:
        return int.from_bytes(chance.choice(_TEXTS)[:WORD].ljust(WORD, b"\0"), "little")
    if kind == 8:
        return chance.getrandbits(64)
    if kind == 9:
        return before ^ 1 << chance.randrange(64)
    if kind == 10:
        low = chance.choice((0, 1, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 0x1000_0000, 0xFFFF, 4096))
        return low | before & ~0xFFFF_FFFF & MASK if chance.random() < 0.5 else low << 32 | before & 0xFFFF_FFFF
    wholes = (
        0,
        0,
        MASK,
        1 << 60,
        1 << 63,
        1 << 32,
        (1 << 63) - 1,
        0x7FFF_DEAD_0000,
        0xDEAD_0000_0000_0100,
        MASK - 11,
        1,
    )
    return chance.choice(wholes)


# The commands


def _options(session: Session) -> list[str]:
    """Lines of commands for what this kernel has."""
    tasks = [task for task in session.tasks if task.pid]
    users = [task for task in tasks if int(session.object("task_struct", task.address).mm)] or tasks
    user, other, kernel = users[0], users[-1], tasks[1 % len(tasks)]
    files = int(session.object("task_struct", user.address).files)
    mm = int(session.object("task_struct", user.address).mm)
    stack = user.stack + 0x2000
    modules = session.variable("modules").address_
    lines = [
        "list -H modules -o module.list -s module.name",
        "list -H modules -o module.list -r",
        "list task_struct.tasks -h init_task -s task_struct.pid,comm",
        "list task_struct.children -H init_task -S task_struct.comm",
        f"list -H {modules:x} -o module.list -S module.state",
        "tree -t xarray irq_desc_tree -p",
        "tree -t radix irq_desc_tree -p",
        "tree vmap_area_root -o vmap_area.rb_node -s vmap_area.va_start,va_end",
        "tree -t maple sparse_irqs -p",
        f"tree -t maple -r mm_struct.mm_mt {mm:x} -s vm_area_struct.vm_start",
        f"tree -r mm_struct.mm_rb {mm:x} -o vm_area_struct.vm_rb -s vm_area_struct.vm_start",
        f"task {user.pid}",
        f"task {kernel.pid} -R pid,comm,se.vruntime,sched_class,cred",
        f"files {user.pid}",
        f"files {other.pid}",
        "mount",
        f"mount -n {user.pid}",
        f"vm {user.pid}",
        f"vm -p {user.pid}",
        f"vm -f {other.pid}",
        "irq",
        "irq -u",
        "irq -s",
        "irq -a",
        "irq -b",
        "irq -d",
        "timer",
        "timer -r",
        "runq",
        "runq -m",
        "runq -g",
        "workqueue",
        "workqueue -a",
        f"sig {user.pid}",
        f"sig {other.pid}",
        "waits",
        f"waits -v {user.pid}",
        "locks",
        f"locks {user.pid}",
        "locks -t mutex cgroup_mutex",
        "waitq kswapd_wait",
        "waitq kthreadd_done.wait",
        f"waitq signal_struct.wait_chldexit {int(session.object('task_struct', user.address).signal):x}",
        "net",
        f"net -s {user.pid}",
        "dev",
        "dev -d",
        "mach",
        "mach -m",
        "ps",
        *(f"ps {letter}" for letter in ("-k", "-u", "-A", "-G", "-s", "-p", "-c", "-t", "-l", "-m", "-S")),
        "ps -a",
        "sys",
        "sys -c",
        "sys -t",
        "sys -i",
        "sys config",
        "log",
        "log -T -m",
        "log -c -d",
        "log -a",
        "mod",
        "mod -t",
        *(f"kmem -{letter}" for letter in "isvVnzfFpoHgc"),
        "kmem -S task_struct --limit 200",
        "kmem -S kmalloc-64 --limit 200",
        "kmem -p --limit 200",
        f"kmem {user.address:x}",
        f"kmem {files:x}",
        f"kmem {mm:x}",
        f"kmem {stack:x}",
        "kmem init_task",
        "kmem jiffies",
        f"search {user.address:x}",
        f"search -t {user.address:x}",
        f"search -p -c {user.comm}" if user.comm.isalnum() else "search -p 1234567812345678",
        f"search -w {user.pid:x} -s {user.address:x} -l 65536",
        f"rd {user.address:x} 64",
        f"rd -a {user.address:x} 512",
        f"rd -s {stack:x} 64",
        f"rd -S {stack:x} 64",
        f"x/8gx {user.address:#x}",
        f"x/s {user.address:#x}",
        "x/10i schedule",
        "x/4s linux_banner",
        "vtop init_task",
        f"vtop {stack:x}",
        f"vtop -c {user.pid} 400000",
        "p init_task",
        "p *init_task.mm",
        "p *init_task.signal",
        "p init_task.comm",
        "p *init_task.cred->user",
        "p runqueues:a",
        "p init_uts_ns",
        "p modules",
        "p *(struct module *)modules.next",
        "p ((struct module *)((char *)modules.next - 8))->name",
        "p container_of(init_task.tasks.next, struct task_struct, tasks)->comm",
        f"p *((struct task_struct *){user.address:#x})",
        f"p *((struct task_struct *){user.address:#x})->files->fdt",
        "p super_blocks",
        "px saved_command_line",
        "whatis init_task.mm",
        "whatis struct task_struct",
        "ptype init_task.signal",
        "ptype struct loop_device",
        "ptype struct net_bridge",
        "eval init_task.pid + 1",
        "eval 1 << 60",
        "info locals",
        "info args",
        "info registers",
        "info frame",
        "info symbol init_task",
        "info line schedule",
        "info threads",
        "info sharedlibrary",
        "trace",
        "trace -l",
        "trace -n 40",
        "trace -t CORE",
        f"gcore -o CORE {user.pid}",
        "foreach task -R pid,comm",
        "foreach user files",
        "foreach user vm",
        "foreach user sig",
        "foreach net -s",
        "foreach UN bt",
        "foreach ps -a",
    ]  # fmt: skip
    return list(dict.fromkeys(lines))


class TooMuch(BaseException):
    """A command took more than its time, or answered with too much; no `except Exception` catches it."""


class _Answer(io.StringIO):
    """What a command printed, up to a length."""

    def __init__(self) -> None:
        super().__init__()
        self._length = 0

    def write(self, text: str) -> int:
        self._length += len(text)
        if self._length > LONGEST_ANSWER:
            raise TooMuch(f"the answer is longer than {LONGEST_ANSWER >> 20} MB")
        return super().write(text)


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise TooMuch(f"more than {SECONDS * slowness_of_this_run():.1f} s of CPU time")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooMuch in the body when it has had so much CPU time."""
    before = signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass
class Report:
    """What was seen: how commands ended, the failures, and what took longest.

    Attributes:
        ends: rounds by how they ended.
        failures: what went wrong, each with all that repeats it.
        slowest: seconds, and the round.
    """

    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


class Ground:
    """A snapshot, its commands, and what each of them reads while nothing is damaged."""

    def __init__(self, files: Sequence[str], folder: str) -> None:
        opened = orcdbg.open(*files)
        self.memory = HostileWords(opened.snapshot.physical)
        self.session = open_session(*files, through=self._through)
        self.registry = standard_commands()
        self._lines = [line.replace("CORE", f"{folder}/core") for line in _options(opened)]
        self._reads: dict[str, tuple[list[tuple[int, int]], list[int]]] = {}
        self.folder = folder
        self._core = Path(folder, "core")

    @property
    def lines(self) -> list[str]:
        """The commands."""
        return self._lines

    def _through(self, memory: AddressSpace) -> AddressSpace:
        self.memory.memory = memory
        return self.memory

    def run(self, line: str, form: str, pid: int | None = None) -> tuple[str, str]:
        """Runs a command as of a session of its own, with that task selected; how it ended, and its output."""
        self.session.warnings.clear()
        self.session.move(self.session.snapshot)
        self._core.unlink(missing_ok=True)
        out = _Answer()
        output = Output(form, False, None)
        try:
            debugger = Debugger(self.session)
            if pid is not None:
                debugger.select(self.session.task(pid))
            result = self.registry.run(debugger, line)
            output.answer(line, result, out)
        except OrcdbgError as error:
            with contextlib.redirect_stderr(out):
                output.failure(line, error, out)
            return "error", out.getvalue()
        return "answered", out.getvalue()

    def reads(self, line: str) -> tuple[list[tuple[int, int]], list[int]]:
        """What a command reads of undamaged memory, by physical address; and the kernel's addresses among these words."""
        if line not in self._reads:
            self.memory.words = {}
            self.memory.reads = {}
            try:
                self.run(line, "text")
            finally:
                found, self.memory.reads = list(self.memory.reads), None
            pointers: dict[int, None] = {}
            for address, size in found:
                if size > 512:
                    continue
                data = self.memory.memory.read(address, size)
                for at in range(-address % WORD, size - WORD + 1, WORD):
                    word = int.from_bytes(data[at : at + WORD], "little")
                    if word >> 47 == MASK >> 47 or word >> 56 == 0xFF:
                        pointers[word] = None
            self._reads[line] = found, list(pointers)
        return self._reads[line]

    def choose(self, line: str, chance: random.Random) -> Words:
        """Words among those that a command reads, and what stands there now."""
        reads, pointers = self.reads(line)
        words: dict[int, int] = {}
        if not reads:
            return words
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8, 32))):
            address, size = chance.choice(reads)
            span = size if chance.random() < 0.5 else min(size, 64)
            place = address + chance.randrange(span) & -WORD
            try:
                before = int.from_bytes(self.memory.memory.read(place, WORD), "little")
            except OrcdbgError:
                continue
            looks_like_entry = before & PRESENT and 4096 <= before & PHYSICAL < 1 << 40
            if looks_like_entry and chance.random() < 0.2:
                # A page table leads to itself.
                words[place] = place & -PAGE | before & ~PHYSICAL
            else:
                words[place] = _hostile_word(chance, before, pointers)
        return words


def faults_of(form: str, end: str, said: str) -> Iterator[str]:
    """What is wrong with an output, whatever it says."""
    if form == "json":
        for number, text in enumerate(said.splitlines()):
            try:
                json.loads(text)
            except ValueError as error:
                yield f"line {number} is no JSON: {error}"
                return
        if not said.isascii():
            yield "JSON with characters beyond ASCII"
    bad = next((c for c in said if not c.isprintable() and c != "\n"), None)
    if bad is not None:
        at = said.index(bad)
        yield f"control character {bad!r} in {said[max(at - 60, 0) : at + 40]!r}"
    if end == "error" and form == "text":
        message = [text for text in said.splitlines() if not text.startswith("hint: ")]
        if len(message) != 1 or len(message[0]) > LONGEST_ERROR:
            yield f"an error of {len(message)} lines, {len(said)} characters: {said[:300]!r}"


def try_round(ground: Ground, number: int, seed: int, report: Report, line: str | None = None) -> None:
    """One command with some words changed."""
    chance = random.Random(f"{seed} {number}")
    chosen = chance.choice(ground.lines)
    line = line or chosen
    form = chance.choice(("text", "json"))
    words = ground.choose(line, chance)
    ground.memory.words = words
    where = f"round {number} of seed {seed}, `{line}` as {form}"
    begin = time.process_time()
    faults: list[str] = []
    try:
        with limited(SECONDS * slowness_of_this_run()):
            end, said = ground.run(line, form)
        faults += faults_of(form, end, said)
    except (Exception, TooMuch) as error:
        end = type(error).__name__
        trace = "".join(traceback.format_exception(error, limit=-14))
        faults.append(trace[-3000:])
    finally:
        ground.memory.words = {}
    took = time.process_time() - begin
    report.slowest = max(report.slowest, (took, where))
    report.ends[end] += 1
    changes = ", ".join(f"{place:#x} -> {word:#x}" for place, word in words.items())
    report.failures += [f"{where}: {fault}\n    changed: {changes[:400]}" for fault in faults]


def limit_memory() -> None:
    """Lets this process have 1 GB more than it has now; more is a MemoryError."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))


def main() -> int:
    """The command line; exit status 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile_words", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", type=int, help="only the round of this number")
    parser.add_argument("--line", help="only this command")
    parser.add_argument("--match", help="only commands with this in their line")
    parser.add_argument("--seconds", type=float, help="no new round after so many seconds of CPU time")
    parser.add_argument("files", nargs="*", metavar="VMLINUX SNAPSHOT")
    arguments = parser.parse_args()

    report = Report()
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(arguments.files or sample_files(), folder)
        if arguments.match:
            ground.lines[:] = [line for line in ground.lines if arguments.match in line]
        limit_memory()
        start = time.process_time()
        rounds = range(arguments.rounds) if arguments.only is None else [arguments.only]
        for number in rounds:
            if arguments.seconds is not None and time.process_time() - start > arguments.seconds:
                break
            try_round(ground, number, arguments.seed, report, arguments.line)
            done += 1
    took = time.process_time() - start
    ends = ", ".join(f"{count} {name}" for name, count in report.ends.most_common())
    print(f"seed {arguments.seed}: {done} rounds of {len(ground.lines)} commands in {took:.1f} s: {ends}")
    print(f"  slowest: {report.slowest[0]:.2f} s, {report.slowest[1]}")
    for failure in report.failures:
        print(f"  {failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
