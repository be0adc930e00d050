"""Does any loop over a snapshot's memory go without a bound?

    python -m tests.bounded_walks [FILE...]

Whoever makes a snapshot chooses every link and every count in it. Walks over memory go through `orcdbg/base/walks.py`, whose
nodes are counted and met once. This reads the syntax of the layers that read memory, and names

- `while` loops that read memory, themselves or by a function of the same module;
- loops over `range(n)` that read memory, where `n` is neither a constant nor the length of something that is there;
- functions that call themselves, by whatever way, and read memory;
- `itertools.count()` and `iter(function, sentinel)` in a function that reads memory;
- sizes of reads, and ranges, that are a number from memory as it was found there.

What is bounded by construction is in `ALLOWED`, each with its bound. An entry that allows nothing any more is named too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
ROOT = Path(__file__).parents[1]
# Files are read there, and bounded by their size (docs/security.md); or nothing is read at all.
NOT_MEMORY = ("formats", "cli", "repl", "views", "x86", "gdb")
# Names of functions and methods that read memory of a snapshot.
READS = {
    *("read", "read_u64", "read_u32", "read_s32", "read_cstring", "read_pieces", "read_memory_pieces", "read_words"),
    *("member", "first_member", "text_member", "translate", "is_mapped", "per_cpu", "per_cpu_offset"),
}
# Names that give a number as it stands in memory.
NUMBERS = {"read_u64", "read_u32", "read_s32", "member", "first_member"}
# Names that bound what they are given, or ask a budget for it.
BOUNDS = {"min", "len", "entries", "entries_before_zero"}

# By file and function: what bounds the loop. Say the number, or what there is as much of.
ALLOWED: Mapping[str, str] = {
    # By the size that the caller asks for, which is checked where it is from memory.
    "orcdbg/base/reading.py:read_cstring": "`limit` bytes",
    "orcdbg/emulation/engine.py:Engine.read": "the size asked for",
    "orcdbg/snapshot/extents.py:ExtentMemory.read": "the size asked for",
    "orcdbg/snapshot/pagetables.py:KernelMemory.read": "the size asked for",
    "orcdbg/snapshot/pagetables.py:KernelMemory.runs": "a budget of page tables",
    "orcdbg/snapshot/trimmed_memory.py:TrimmedMemory.read": "the size asked for",
    "orcdbg/subsystems/user_memory.py:UserMemory.read": "the size asked for",
    "orcdbg/subsystems/user_memory.py:UserMemory.stretches": "a budget of pages",
    "orcdbg/commands/gcore.py:_Layout._add_pages": "a budget of pages",
    "orcdbg/commands/gcore.py:_Layout._add_unmapped": "a budget of pages that are looked at one by one",
    "orcdbg/commands/gcore.py:gcore": "the pages that the layout has found, MAX_PAGES",
    "orcdbg/commands/rd.py:_into_file": "the size asked for, MAX_TO_FILE",
    "orcdbg/commands/rd.py:_text": "MAX_TEXT bytes",
    # By the size of a file, or of the image's tables.
    "orcdbg/image/debug_files.py:checksum": "the file's size",
    "orcdbg/triage/content.py:is_same": "the files' size",
    "orcdbg/patches/audit/core_text.py:_relocated_by_operand": "the kernel's text, MAX_TEXT; each round is further by a byte",
    "orcdbg/patches/ledger.py:PatchLedger.between": "the clusters that the ledger has",
    "orcdbg/patches/tables.py:built_bytes": "the addresses it is given; each round is further by one",
    "orcdbg/snapshot/spool.py:_copy": "the stream, and what room the disk has",
    "orcdbg/snapshot/spool.py:_read": "the size asked for",
    "orcdbg/snapshot/spool.py:_rearrange": "the stream, and what room the disk has",
    "orcdbg/trim/image_sections.py:_copy": "the section's size in the file",
    "orcdbg/symbols/btf_made.py:_plain_file": "the vmlinux, unpacked within the bounds of its format",
    # By what an x86-64 kernel can have.
    "orcdbg/image/memory_image.py:present_bytes": "MAX_AREA, checked by its callers",
    "orcdbg/kernel/ret_stack.py:_words": "512 words: each round goes down by one at least",
    "orcdbg/snapshot/placement.py:mapped_area": "512 large pages of the image's 1 GiB",
    "orcdbg/snapshot/search.py:_pages": "the pages that the snapshot's file has",
    "orcdbg/snapshot/memory_search.py:_pieces": "a run that the snapshot's file or a budget of page tables has",
    "orcdbg/snapshot/memory_search.py:_by_pages": "the pages of one piece, 4 MiB",
    "orcdbg/subsystems/page_scan.py:blocks": "MAX_FRAMES, and all memory, max_pfn",
    "orcdbg/subsystems/page_scan.py:_readable": "the halves of a block, down to a page",
    "orcdbg/snapshot/search.py:_pieces": "the pages that the snapshot's file has",
    "orcdbg/trim/essential_memory.py:section_ranges": "a root of 256 MiB at most, and a budget for the pages it names",
    "orcdbg/base/reading.py:stretches": "the pages of a range that the caller bounds: one stack's",
    "orcdbg/unwind/starts.py:tasks_on_cpus": "8192 CPUs",
    # By bounds of their own, beside the loop.
    "orcdbg/typed/values.py:_Reading.value": "MAX_VALUES parts",
    "orcdbg/typed/values.py:_Reading._members": "MAX_VALUES parts",
    "orcdbg/typed/values.py:_Reading._array": "MAX_VALUES parts",
    "orcdbg/commands/instructions.py:disassemble": "MAX_LENGTH bytes of text",
    "orcdbg/commands/emulation.py:Emulation.around": "MAX_FUNCTION bytes before, `after` instructions behind",
    "orcdbg/commands/live_steps.py:_next": "the user's count",
    "orcdbg/commands/context.py:context": "_STACK_WORDS words",
    "orcdbg/trim/selection.py:Keeper.keep": "a budget of pages",
    "orcdbg/emulation/emulator.py:Emulator._look_over": "a block's bytes, as the emulator ran it",
    "orcdbg/emulation/emulator.py:Emulator._run": "the limits of the emulation: instructions and seconds",
    "orcdbg/emulation/emulator.py:Emulator.back": "the instructions since the last checkpoint",
    "orcdbg/emulation/motions.py:Motions._go": "the limits of the emulation",
    "orcdbg/emulation/motions.py:Motions._watched": "the user's count",
    "orcdbg/emulation/motions.py:Motions.next": "the user's count",
    "orcdbg/emulation/pages.py:PageSource._replayed": "the halves of a page, down to a byte",
    "orcdbg/unwind/judge/entries.py:Entries._way_from": "MAX_WAYS functions, each once",
    "orcdbg/unwind/judge/entries.py:Entries._closure": "MAX_WAYS functions, each once",
    "orcdbg/unwind/judge/pointers.py:Pointers._targets": "a function's split-off parts, each once",
    "orcdbg/unwind/scan.py:Scan.above": "MAX_ATTEMPTS walks, MAX_FRAMES frames",
    "orcdbg/unwind/walker.py:Walker.walk": "MAX_FRAMES frames",
}


class Finding(NamedTuple):
    """A loop without a bound: `place` is file and function, as in ALLOWED."""

    place: str
    line: int
    what: str


def _called(node: ast.AST) -> str | None:
    """The last name of what a call calls."""
    if not isinstance(node, ast.Call):
        return None
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _calls(node: ast.AST) -> set[str]:
    return {name for one in ast.walk(node) if (name := _called(one)) is not None}


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """The functions of a module by their qualified names, inner ones with those around them."""

    def inside(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from inside(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, Function):
                yield f"{prefix}{node.name}", node

    yield from inside(tree.body, "")


class _Module:
    """What the functions of one module call of each other, and which of them read memory."""

    def __init__(self, tree: ast.Module) -> None:
        self.functions = list(_functions(tree))
        names = {title for title, _ in self.functions}
        direct = {title: self._local(title, function) & names for title, function in self.functions}
        self.whole = _closure(direct)
        self._readers = {title for title, function in self.functions if _reads_itself(function)}
        self._readers |= {title for title, called in self.whole.items() if called & self._readers}

    @staticmethod
    def _local(title: str, node: ast.AST) -> set[str]:
        """Functions and properties that are named without another object: NAME, or self.NAME of the same class."""
        owner = title.rpartition(".")[0]
        found: set[str] = set()
        for one in ast.walk(node):
            if isinstance(one, ast.Name):
                found.add(one.id)
            elif isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in ("self", "cls"):
                found.add(f"{owner}.{one.attr}")
        return found

    def reads(self, title: str, node: ast.AST) -> bool:
        """Whether a part of a function reads memory."""
        return _reads_itself(node) or bool(self._local(title, node) & self._readers)


def _closure(direct: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """What each function calls, by whatever way inside its module."""
    whole = {name: set(called) for name, called in direct.items()}
    is_growing = True
    while is_growing:
        is_growing = False
        for called in whole.values():
            more = {name for one in called for name in whole[one]} - called
            if more:
                called |= more
                is_growing = True
    return whole


def _reads_itself(node: ast.AST) -> bool:
    """Whether there is a call that reads memory, by its name or because it is handed memory or the kernel."""
    for one in ast.walk(node):
        name = _called(one)
        if name is not None and (name in READS or name.startswith("read_")):
            return True
        if isinstance(one, ast.Call) and any(_is_memory(argument) for argument in one.args):
            return True
    return False


def _is_memory(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_") in ("linux", "memory", "physical")


def _is_constant(node: ast.expr) -> bool:
    """Whether a number is known before memory is read: literals, names in capitals, lengths and bounded numbers."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Name):
        return node.id.isupper()
    if isinstance(node, ast.Attribute):
        return node.attr.isupper()
    if isinstance(node, ast.BinOp):
        return _is_constant(node.left) and _is_constant(node.right)
    if isinstance(node, ast.UnaryOp):
        return _is_constant(node.operand)
    return _called(node) in BOUNDS


def _found_numbers(function: ast.AST) -> set[str]:
    """Local names for numbers as memory has them, with no bound around the read."""
    found: set[str] = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        pairs = [(node.targets[0], node.value)]
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(node.targets[0].elts, node.value.elts, strict=False))
        for target, value in pairs:
            names = _calls(value)
            if isinstance(target, ast.Name) and names & NUMBERS and not names & BOUNDS:
                found.add(target.id)
    return found


def _mentions(node: ast.expr, names: set[str]) -> bool:
    if _called(node) in BOUNDS:
        return False
    if isinstance(node, ast.Name):
        return node.id in names
    return any(_mentions(child, names) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))


def _in_function(title: str, function: Function, module: _Module) -> Iterator[tuple[int, str]]:
    numbers = _found_numbers(function)
    reads_here = module.reads(title, function)

    for node in ast.walk(function):
        if isinstance(node, ast.While) and module.reads(title, node):
            yield node.lineno, "a while loop reads memory"

        if isinstance(node, ast.For) and any(module.reads(title, one) for one in node.body):
            yield from _unbounded_range(node.iter)

        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) and module.reads(title, node):
            for generator in node.generators:
                yield from _unbounded_range(generator.iter)

        if isinstance(node, ast.Call):
            yield from _in_call(node, numbers, reads_here)

    if title in module.whole[title] and reads_here:
        yield function.lineno, "a function that reads memory calls itself"


def _in_call(call: ast.Call, numbers: set[str], reads_here: bool) -> Iterator[tuple[int, str]]:
    called = _called(call)
    if reads_here and called == "count" and _is_of(call, "itertools"):
        yield call.lineno, "itertools.count() in a function that reads memory"
    if reads_here and called == "iter" and len(call.args) == 2:
        yield call.lineno, "iter() with a sentinel in a function that reads memory"
    if called == "range" and any(_mentions(one, numbers) for one in call.args):
        yield call.lineno, "a range as long as memory says"
    if called == "read" and len(call.args) == 2 and _mentions(call.args[1], numbers):
        yield call.lineno, "a read as large as memory says"


def _is_of(call: ast.Call, module: str) -> bool:
    function = call.func
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == module


def _unbounded_range(iterable: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(iterable, ast.Call) and _called(iterable) in ("enumerate", "reversed") and iterable.args:
        iterable = iterable.args[0]
    if isinstance(iterable, ast.Call) and _called(iterable) == "range":
        stop = iterable.args[0] if len(iterable.args) == 1 else iterable.args[1]
        if not _is_constant(stop):
            yield iterable.lineno, "a loop over a range reads memory"


def findings_in(source: str, name: str) -> list[Finding]:
    """The loops of one module that have no bound to be seen.

    Args:
        source: the module's text.
        name: its file, from the repository's top.
    """
    module = _Module(ast.parse(source))
    found = {
        Finding(f"{name}:{title}", line, what)
        for title, function in module.functions
        for line, what in _in_function(title, function, module)
    }
    return sorted(found, key=lambda one: (one.line, one.what))


def memory_readers() -> list[Path]:
    """The modules of the layers that read memory; the helper itself is the one that may."""
    top = ROOT / "orcdbg"
    helper = top / "base" / "walks.py"
    return [
        path
        for path in sorted(top.rglob("*.py"))
        if path.relative_to(top).parts[0] not in NOT_MEMORY and path != helper
    ]


def main(words: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a loop has no bound, or an entry of ALLOWED allows nothing."""
    chosen = [Path(word) for word in (sys.argv[1:] if words is None else words)]
    found: list[Finding] = []
    for path in chosen or memory_readers():
        name = path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name
        found += findings_in(path.read_text(encoding="utf-8"), name)

    places = {one.place for one in found}
    stale = sorted(ALLOWED.keys() - places) if not chosen else []
    wrong = [one for one in found if one.place not in ALLOWED]
    for one in wrong:
        print(
            f"{one.place.partition(':')[0]}:{one.line}: {one.what} ({one.place.partition(':')[2]}): see orcdbg/base/walks.py"
        )
    for place in stale:
        print(f"tests/bounded_walks.py: ALLOWED has {place}, which needs no leave any more")
    return 1 if wrong or stale else 0


if __name__ == "__main__":
    sys.exit(main())
