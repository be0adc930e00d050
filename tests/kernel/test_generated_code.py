"""The kernel's lists of code that it made, written by code, and damaged."""

from __future__ import annotations

import orcdbg
from orcdbg.cli.main import sample_files
from orcdbg.kernel.generated_code import MAX_SIZE, CodeKind, GeneratedCode, GeneratedCodes
from orcdbg.kernel.linux import Linux
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.target.session import Session
from tests.build.kernel import U8, U32, U64, Structure, made_linux
from tests.build.memory import SparseMemory

DATA, OPS, PROBES, PROGRAMS = (0xFFFFFFFF82000000 + 0x100000 * i for i in range(4))
TEXT, CODE = 0xFFFFFFFF81000000, 0xFFFFFFFFC0000000
END, TABLE, PLAIN, DETOURS, KSYMS = DATA + 0x100, DATA + 0x200, DATA + 0x500, DATA + 0x580, DATA + 0x600
PLAIN_PAGE, DETOUR_PAGE = CODE + 0x1000, CODE + 0x2000
AGGREGATE = TEXT + 0x900
WORDS: Structure = (16, {"next": (0, U64), "prev": (8, U64)})
TYPES: dict[str, Structure] = {
    "list_head": WORDS,
    "ftrace_ops": (32, {"next": (0, U64), "flags": (8, U64), "trampoline": (16, U64), "trampoline_size": (24, U64)}),
    "arch_specific_insn": (16, {"insn": (0, U64), "size": (9, U8)}),
    "kprobe": (
        48,
        {"hlist": (0, U64), "addr": (16, U64), "pre_handler": (24, U64), "ainsn": (32, "arch_specific_insn")},
    ),
    "arch_optimized_insn": (16, {"insn": (0, U64), "size": (8, U64)}),
    "optimized_kprobe": (64, {"optinsn": (48, "arch_optimized_insn")}),
    "kprobe_insn_cache": (32, {"pages": (0, "list_head"), "insn_size": (16, U64)}),
    "kprobe_insn_page": (32, {"list": (0, "list_head"), "insns": (16, U64)}),
    "name": (16, {}),
    "bpf_ksym": (64, {"start": (0, U64), "end": (8, U64), "name": (16, "name"), "lnode": (32, "list_head")}),
    "unused": (4, {"x": (0, U32)}),
}
SYMBOLS = {
    "ftrace_ops_list": (DATA, 8), "ftrace_list_end": (END, 32), "ftrace_caller": (TEXT, 64),
    "ftrace_caller_end": (TEXT + 64, 0), "ftrace_regs_caller": (TEXT + 0x100, 96),
    "ftrace_regs_caller_end": (TEXT + 0x160, 0), "kprobe_table": (TABLE, 512), "kprobe_insn_slots": (PLAIN, 32),
    "kprobe_optinsn_slots": (DETOURS, 32), "aggr_pre_handler": (AGGREGATE, 16), "bpf_kallsyms": (KSYMS, 16),
    "optprobe_template_entry": (TEXT + 0x800, 0), "optprobe_template_end": (TEXT + 0x840, 0),
}  # fmt: skip


class Kernel:
    """Lists in memory; each test adds what it is about."""

    def __init__(self) -> None:
        self.memory = SparseMemory()
        self.memory.put_words(DATA, END)
        self.memory.put_words(TABLE, *[0] * 64)
        self.memory.put_words(KSYMS, KSYMS, KSYMS)
        for number, (cache, page, size) in enumerate(((PLAIN, PLAIN_PAGE, 15), (DETOURS, DETOUR_PAGE, 100))):
            node = DATA + 0x1000 + 0x40 * number
            self.memory.put_words(cache, node, node, size, 0)
            self.memory.put_words(node, cache, cache, page, 0)

    def operations(self, *each: tuple[int, int, int], circle: bool = False) -> None:
        """ftrace's operations: flags, trampoline and its size."""
        for number, (flags, start, size) in enumerate(each):
            is_last = number + 1 == len(each)
            following = OPS + 32 * (0 if is_last else number + 1) if circle or not is_last else END
            self.memory.put_words(OPS + 32 * number, following, flags, start, size)
        self.memory.put_words(DATA, OPS)

    def probe(self, address: int, slot: int, detour: int, handler: int) -> None:
        """One kprobe, whose instruction has three bytes and whose detour copied seven."""
        table = [0] * 64
        table[9] = PROBES
        self.memory.put_words(TABLE, *table)
        self.memory.put_words(PROBES, 0, 0, address, handler, slot, 3 << 8, detour, 7)

    def program(self, start: int, end: int, name: bytes) -> None:
        """One BPF program."""
        node = PROGRAMS + 32
        self.memory.put_words(KSYMS, node, node)
        words = [int.from_bytes(name.ljust(16, b"\0")[at : at + 8], "little") for at in (0, 8)]
        self.memory.put_words(PROGRAMS, start, end, *words, KSYMS, KSYMS)

    def codes(self) -> GeneratedCodes:
        """What is found."""
        return GeneratedCodes(self.linux())

    def linux(self) -> Linux:
        """The kernel."""
        return made_linux(self.memory, TYPES, SYMBOLS)


def test_trampolines_are_those_of_the_operations_that_allocated_one() -> None:
    """Each a copy of the template that its operation asked for."""
    kernel, owner = Kernel(), "__builtin__ftrace"
    kernel.operations((1 << 11, CODE, 80), (1 << 11 | 1 << 2, CODE + 0x400, 120), (0, TEXT, 0))
    codes = kernel.codes()
    assert codes.all == [
        GeneratedCode(CodeKind.FTRACE, CODE, CODE + 80, "ftrace_trampoline", owner, TEXT, 64),
        GeneratedCode(CodeKind.FTRACE, CODE + 0x400, CODE + 0x400 + 120, "ftrace_trampoline", owner, TEXT + 0x100, 96),
    ]
    assert codes.at(CODE + 79) == codes.all[0]
    assert [codes.at(address) for address in (CODE - 1, CODE + 80, 0x1000)] == [None] * 3
    assert codes.problems == []


def test_slots_are_found_by_their_probes() -> None:
    """The detour only of a probe that has room for one, and only in the pages that hold detours."""
    kernel, owner = Kernel(), "__builtin__kprobes"
    kernel.probe(TEXT + 0x20, PLAIN_PAGE + 15, DETOUR_PAGE + 100, AGGREGATE)
    plain = GeneratedCode(
        CodeKind.KPROBE, PLAIN_PAGE + 15, PLAIN_PAGE + 30, "kprobe_insn_page", owner, TEXT + 0x20, 0, 3
    )
    start = DETOUR_PAGE + 100
    detour = GeneratedCode(CodeKind.OPTPROBE, start, start + 100, "kprobe_optinsn_page", owner, TEXT + 0x20, 64, 7)
    assert kernel.codes().all == [plain, detour]
    kernel.probe(TEXT + 0x20, PLAIN_PAGE + 15, DETOUR_PAGE + 100, AGGREGATE + 1)
    assert kernel.codes().all == [plain]
    kernel.probe(TEXT + 0x20, TEXT, TEXT, AGGREGATE)
    assert kernel.codes().all == []


def test_programs_are_those_with_a_name() -> None:
    """As in /proc/kallsyms."""
    kernel = Kernel()
    kernel.program(CODE, CODE + 100, b"bpf_prog_6dee")
    assert kernel.codes().all == [GeneratedCode(CodeKind.BPF, CODE, CODE + 100, "bpf_prog_6dee", "bpf")]


def test_a_list_that_breaks_off_leaves_a_problem_and_the_others() -> None:
    """A circle of operations, and a size that cannot be."""
    kernel = Kernel()
    kernel.operations((1 << 11, CODE, 80), circle=True)
    kernel.program(CODE + 0x800, CODE + 0x900, b"bpf_prog_1")
    codes = kernel.codes()
    assert codes.at(CODE + 0x800) is not None
    assert len(codes.problems) == 1
    kernel = Kernel()
    kernel.operations((1 << 11, CODE, MAX_SIZE + 1), (1 << 11, 0x1000, 10))
    assert kernel.codes().all == []


def test_a_kernel_without_these_lists_has_no_made_code() -> None:
    """Nothing is asked of memory."""
    assert GeneratedCodes(made_linux(SparseMemory(), {})).all == []


class Running(KernelMemory):
    """A snapshot's memory in which words become others, as they do while a guest runs."""

    def __init__(self, memory: KernelMemory) -> None:
        self._memory = memory
        self.words: dict[int, int] = {}

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, but for whole words that are others by now."""
        word = self.words.get(address & -8)
        return self._memory.read(address, size) if word is None else word.to_bytes(8, "little")[address & 7 :][:size]

    def forget(self) -> None:
        """Nothing is kept here."""


def test_what_a_guest_made_since_the_last_stop_is_seen_at_the_next() -> None:
    """A trampoline that appears, and one that is gone again: names, rules, what counts as text."""
    sample = orcdbg.open(*sample_files())
    memory = Running(sample.memory)
    session = Session(sample.image, sample.snapshot, mapped=(sample.placement, memory))
    operations, code, name = session.linux.address("ftrace_ops_list"), 0xFFFFFFFFA0000000, "ftrace_trampoline"
    end, types = session.linux.address("ftrace_list_end"), session.types
    new = {"next": end, "flags": 1 << 11, "trampoline": code, "trampoline_size": 80}
    for is_there in (False, True, False):
        memory.words = {operations: OPS if is_there else end}
        memory.words |= {OPS + types.offset("ftrace_ops", key): value for key, value in new.items()}
        session.move(session.snapshot)
        assert [one.start for one in session.names.made.all] == ([code] if is_there else [])
        assert session.names.describe(code + 8) == (f"{name}+0x8/0x50 [__builtin__ftrace]" if is_there else None)
        assert session.is_text(code + 8) is is_there
        assert (session.overlay.at(code, True).rule is not None) is is_there
        assert (session.code.locate(code) is not None) is is_there
