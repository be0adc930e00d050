"""search: where in memory does a value or a text stand?"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.base.reading import AddressSpace, read_memory_pieces
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.memory_search import Pattern, TextPattern, WordPattern, search
from orcdbg.snapshot.pagetables import MappedRun
from orcdbg.target.search_spaces import (
    direct_map_runs,
    image_runs,
    kernel_runs,
    no_more_than_held,
    physical_runs,
    range_runs,
    stack_runs,
    table_budget,
    user_runs,
    vmalloc_runs,
)

_USER_END = 1 << 56
_KERNEL_START = 1 << 63
MAX_LIMIT = 10_000_000
MAX_CONTEXT = 1024
MAX_CONTEXT_WORDS = 1 << 20  # of all matches together, a microsecond each


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match.

    Attributes:
        address: where.
        found: the word, or the text's bytes.
        symbol: of the address, where it has one.
        task: on whose stack it is; None where stacks were not what was searched.
    """

    address: int
    found: int | bytes
    symbol: str | None
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class SearchHits(Result):
    """Matches by address.

    Attributes:
        hits: the first of them.
        width: bytes of a word; 0 of texts.
        is_whole: False where there were more than the limit.
        pid: whose user memory was searched; None where it was other memory.
        contexts: with `-x`, the words before a match and those behind it, by its address; None for such as cannot be read.
        problems: what of memory was left out.
    """

    hits: Sequence[SearchHit]
    width: int
    is_whole: bool
    pid: int | None
    problems: Sequence[str]
    contexts: Mapping[int, Sequence[int | None]] | None = None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("values", nargs="+", metavar="VALUE|SYMBOL|TEXT", help="what to look for; any of them matches")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-k", "--kernel", action="store_true", help="in the kernel's memory (the default)")
    where.add_argument("-u", "--user", action="store_true", help="in the selected task's memory")
    where.add_argument("-p", "--physical", action="store_true", help="in all memory, by physical address")
    where.add_argument("-t", "--tasks", action="store_true", help="in the stacks of all tasks")
    where.add_argument("-T", "--active", action="store_true", help="in the stacks of the tasks on CPUs")
    where.add_argument(
        "-K", "--no-vmalloc", action="store_true", help="in the kernel's memory without vmalloc areas and modules"
    )
    where.add_argument("-V", "--vmalloc", action="store_true", help="in vmalloc areas and modules alone")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-w", dest="width", action="store_const", const=4, help="values of 4 bytes")
    what.add_argument("-H", dest="width", action="store_const", const=2, help="values of 2 bytes")
    what.add_argument("-c", "--text", action="store_true", help="the words are texts, at any address")
    parser.add_argument("-m", "--mask", metavar="BITS", help="bits of the values that may be anything, hexadecimal")
    parser.add_argument("-s", "--start", metavar="ADDR|SYMBOL", help="the first address to look at")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("-e", "--end", metavar="ADDR|SYMBOL", help="the first address not to look at")
    ends.add_argument("-l", "--length", metavar="BYTES", help="how many bytes to look at, such as 4096 or 0x1000")
    parser.add_argument(
        "-x", "--context", type=int, metavar="COUNT", help="so many words before and behind each match as well"
    )
    parser.add_argument("--limit", type=int, default=10000, help="how many matches at most (default: 10000)")


@command(
    "search",
    summary="find values or texts in memory",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("search ffff888004a2c1c0", "who points there"),
        ("search -t -m ffff ffff888004a20000", "stacks with an address of that 64 KiB"),
        ("search -p -c 'Kernel panic'", "a text in all memory"),
    ),
)
def search_(debugger: Debugger, arguments: argparse.Namespace) -> SearchHits:
    """Answers with the addresses of all matches, up to a limit."""
    if not 0 < arguments.limit <= MAX_LIMIT:
        raise UsageError(f"cannot show {arguments.limit} matches", f"--limit is a number from 1 to {MAX_LIMIT}")
    pattern = _pattern(debugger, arguments)
    start, end = _range(debugger, arguments)
    if arguments.context is not None and (arguments.text or not 0 < arguments.context <= MAX_CONTEXT):
        raise UsageError(f"no words around a match: -x {arguments.context}", f"1 to {MAX_CONTEXT}, and not of texts")
    budget = table_budget(debugger.session)
    found = _hits(debugger, arguments, pattern, (start, end), budget)
    hits = list(itertools.islice(found, arguments.limit + 1))
    width = pattern.width if isinstance(pattern, WordPattern) else 0
    is_whole, shown, problems = len(hits) <= arguments.limit, hits[: arguments.limit], budget.lines()
    contexts = None
    if arguments.context is not None:
        with_context = shown[: max(MAX_CONTEXT_WORDS // (2 * arguments.context + 1), 1)]
        contexts = _contexts(debugger, arguments, with_context, width)
        if len(with_context) < len(shown):
            problems.append(f"words around the matches are shown of the first {len(with_context)} alone")
    pid = debugger.task.pid if arguments.user else None
    return SearchHits(shown, width, is_whole, pid, problems, contexts)


def _contexts(
    debugger: Debugger, arguments: argparse.Namespace, hits: Sequence[SearchHit], width: int
) -> dict[int, list[int | None]]:
    """The words around each match, its own in their middle."""
    memory: AddressSpace = debugger.session.memory
    if arguments.physical:
        memory = debugger.session.snapshot.physical
    elif arguments.user:
        memory = debugger.session.kernel_memory.user_memory(debugger.task)
    around = range(-arguments.context, arguments.context + 1)
    found: dict[int, list[int | None]] = {}
    for hit in hits:
        places = [hit.address + number * width & U64 for number in around]
        pieces = read_memory_pieces(memory, places, [width] * len(places))
        found[hit.address] = [None if piece is None else int.from_bytes(piece, "little") for piece in pieces]
    return found


def _pattern(debugger: Debugger, arguments: argparse.Namespace) -> Pattern:
    if arguments.text:
        if arguments.mask is not None:
            raise UsageError("a mask is for values, not for texts")
        return TextPattern([text.encode() for text in arguments.values])
    width = arguments.width or 8
    values = [debugger.address(word) for word in arguments.values]
    for word, value in zip(arguments.values, values, strict=True):
        if not 0 <= value < 1 << 8 * width:
            raise UsageError(f"{word} does not fit into {width} bytes")
    return WordPattern(width, values, _number(arguments.mask, 16) if arguments.mask is not None else 0)


def _number(text: str, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError:
        raise UsageError(f"not a number: {text}") from None
    if not 0 <= value <= U64:
        raise UsageError(f"not a number of 64 bits: {text}")
    return value


def _range(debugger: Debugger, arguments: argparse.Namespace) -> tuple[int, int]:
    """[start, end) as the user gives it; all of the space where nothing is given."""
    lowest, highest = (0, 1 << 64)
    if arguments.user:
        highest = _USER_END
    elif not arguments.physical:
        lowest = _KERNEL_START
    start = debugger.address(arguments.start) if arguments.start is not None else lowest
    end = highest
    if arguments.end is not None:
        end = debugger.address(arguments.end)
    elif arguments.length is not None:
        end = start + _number(arguments.length, 0)
    if not lowest <= start < end <= highest:
        raise UsageError(f"no range of that memory: {start:#x} to {end:#x}")
    return start, end


def _hits(
    debugger: Debugger, arguments: argparse.Namespace, pattern: Pattern, bounds: tuple[int, int], budget: Budget
) -> Iterator[SearchHit]:
    session = debugger.session
    physical = session.snapshot.physical
    start, end = bounds
    if arguments.tasks or arguments.active:
        tasks = session.tasks
        if arguments.active:
            running = session.unwinder.running
            tasks = [task for task in tasks if task.address in running]
        for task, runs in stack_runs(session, tasks, budget):
            for hit in search(physical, runs, pattern):
                if start <= hit.address < end:
                    yield SearchHit(hit.address, hit.found, None, task)
        return
    is_kernel = not arguments.physical and not arguments.user
    mapped = no_more_than_held(session, _runs(debugger, arguments, bounds, budget), budget)
    for hit in search(physical, mapped, pattern):
        yield SearchHit(hit.address, hit.found, session.names.describe(hit.address) if is_kernel else None)


def _runs(
    debugger: Debugger, arguments: argparse.Namespace, bounds: tuple[int, int], budget: Budget
) -> Iterator[MappedRun]:
    session = debugger.session
    if arguments.physical:
        return physical_runs(session, *bounds)
    if arguments.user:
        return user_runs(session, debugger.task, *bounds, budget)
    if arguments.vmalloc:
        return vmalloc_runs(session, *bounds, budget)
    if arguments.no_vmalloc:
        return itertools.chain(direct_map_runs(session, *bounds), image_runs(session, *bounds, budget))
    if arguments.start is not None:
        return range_runs(session, *bounds, budget)
    return kernel_runs(session, *bounds, budget)
