"""rd: memory as words."""

from __future__ import annotations

import argparse
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE, U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.writing import replacing

MAX_READ = 16 << 20
MAX_TO_FILE = 1 << 30
MAX_TEXT = 1 << 16


class Radix(enum.Enum):
    """How numbers are written."""

    HEX = "hexadecimal"
    SIGNED = "signed decimal"
    UNSIGNED = "unsigned decimal"


@dataclass(frozen=True, slots=True)
class MemoryWords(Result):
    """Memory as words of `width` bytes; `names` are what each points to, where that was asked for."""

    address: int
    width: int
    data: bytes
    names: Sequence[str | None] | None
    radix: Radix = Radix.HEX
    is_network_order: bool = False
    is_with_text: bool = True

    def value(self, index: int) -> int:
        """The word of that number."""
        chunk = self.data[index * self.width : (index + 1) * self.width]
        order = "big" if self.is_network_order else "little"
        return int.from_bytes(chunk, order, signed=self.radix is Radix.SIGNED)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class StringInMemory(Result):
    """Memory as text: bytes as they are, which are not safe for a terminal. `is_cut`: it was still text at the end."""

    address: int
    data: bytes
    is_cut: bool


@dataclass(frozen=True, slots=True)
class MemoryFile(Result):
    """Memory that was written into a file."""

    address: int
    size: int
    path: str


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL")
    parser.add_argument("count", nargs="?", type=_count, help="how many words (default: 1)")
    width = parser.add_mutually_exclusive_group()
    for bits in (8, 16, 32, 64):
        width.add_argument(f"-{bits}", dest="bits", action="store_const", const=bits, help=f"words of {bits} bits")
    width.add_argument("-a", "--text", action="store_true", help="text, up to the first byte that is not printable")
    space = parser.add_mutually_exclusive_group()
    space.add_argument("-p", "--physical", action="store_true", help="ADDR is a physical address")
    space.add_argument("-u", "--user", action="store_true", help="ADDR is a user address of the selected task")
    parser.add_argument("-s", "--symbols", action="store_true", help="show words that are kernel addresses as symbols")
    parser.add_argument(
        "-S", "--names", action="store_true", help="as -s, and words that point to objects of slabs by their cache"
    )
    radix = parser.add_mutually_exclusive_group()
    radix.add_argument(
        "-d", dest="radix", action="store_const", const=Radix.SIGNED, default=Radix.HEX, help="signed decimal numbers"
    )
    radix.add_argument("-D", dest="radix", action="store_const", const=Radix.UNSIGNED, help="unsigned decimal numbers")
    parser.add_argument("-x", "--no-text", action="store_true", help="leave out the text beside the words")
    parser.add_argument("-N", "--network", action="store_true", help="words in network byte order")
    parser.add_argument("-R", "--backwards", action="store_true", help="the words that end with the one at ADDR")
    parser.add_argument("-e", "--end", metavar="ADDR", help="up to this address, in place of a number of words")
    parser.add_argument("-o", "--offset", metavar="BYTES", help="so many bytes further than ADDR; may be negative")
    parser.add_argument("-r", "--raw", metavar="FILE", help="write the bytes into FILE")


def _count(text: str) -> int:
    return int(text, 0)


def memory_of(debugger: Debugger, address: int, arguments: argparse.Namespace) -> AddressSpace:
    """The memory that an address is of: a user address is the selected task's."""
    session = debugger.session
    if arguments.physical:
        return session.snapshot.physical
    if arguments.user:
        return session.kernel_memory.user_memory(debugger.task)
    if address >> 63:
        return session.memory
    try:
        return session.kernel_memory.user_memory(debugger.task)
    except OrcdbgError:
        return session.memory  # nobody asked for a task's memory: that there is none is no answer


def place_of(debugger: Debugger, arguments: argparse.Namespace) -> tuple[int, int]:
    """Address and size in bytes that the words name.

    Raises:
        UsageError: they contradict each other, or it is nothing or too much.
    """
    width = (arguments.bits or 64) // 8
    start = debugger.address(arguments.where)
    if arguments.offset is not None:
        try:
            start = start + int(arguments.offset, 0) & U64
        except ValueError as error:
            raise UsageError(
                f"not a number of bytes: {arguments.offset}", "for example: rd -o 0x10 init_task"
            ) from error

    limit = MAX_TO_FILE if arguments.raw is not None else MAX_READ
    if arguments.end is not None:
        if arguments.count is not None or arguments.backwards:
            raise UsageError("-e stands in place of a number of words, and goes with no -R")
        size = debugger.address(arguments.end) - start
        size = -(-size // width) * width
        if not 0 < size <= limit:
            raise UsageError(f"cannot read from {start:#x} to {arguments.end}", f"1 to {limit} bytes")
        return start, size

    count = 1 if arguments.count is None else arguments.count
    size = count * width
    if not 0 < size <= limit:
        raise UsageError(f"cannot read {count} words at once", f"1 to {limit // width} words of {width} bytes")
    return (start - size + width & U64 if arguments.backwards else start), size


def _text(debugger: Debugger, arguments: argparse.Namespace) -> StringInMemory:
    """The text at the address: `count` bytes of it, else up to the first that is not printable."""
    arguments.bits = 8
    start, size = place_of(debugger, arguments)
    memory = memory_of(debugger, start, arguments)
    if arguments.count is not None or arguments.end is not None:
        return StringInMemory(start, memory.read(start, size), False)

    found = bytearray()
    while len(found) < MAX_TEXT:
        address = start + len(found) & U64
        try:
            piece = memory.read(address, PAGE - address % PAGE)
        except MemoryFault:
            if not found:
                raise
            return StringInMemory(start, bytes(found), True)
        length = next((i for i, byte in enumerate(piece) if not (32 <= byte < 127 or byte in b"\t\n")), None)
        if length is not None:
            return StringInMemory(start, bytes(found + piece[:length]), False)
        found += piece
    return StringInMemory(start, bytes(found[:MAX_TEXT]), True)


def _into_file(debugger: Debugger, arguments: argparse.Namespace) -> MemoryFile:
    start, size = place_of(debugger, arguments)
    memory = memory_of(debugger, start, arguments)
    with replacing(arguments.raw, debugger.session.files) as file:
        for at in range(start, start + size, PAGE):
            file.write(memory.read(at & U64, min(PAGE, start + size - at)))
    return MemoryFile(start, size, arguments.raw)


def name_of_word(debugger: Debugger, value: int) -> str | None:
    """What `-s` calls a word: the symbol that it lies in; None for a number, and for an address without one."""
    return debugger.session.names.describe(value) if value >> 63 else None


def name_of_object(debugger: Debugger, value: int) -> str | None:
    """What `-S` calls a word: as `-s`, else the slab cache whose slab it points into, in brackets."""
    if not value >> 63:
        return None
    name = name_of_word(debugger, value)
    if name is not None:
        return name
    parts = debugger.session.kernel_memory
    try:
        if not parts.places.in_direct_map(value):
            return None
        slab = parts.slabs.slab_of(parts.pages.of_physical(parts.places.physical_of(value)))
        return None if slab is None else f"[{parts.slabs.cache(slab.cache).name}]"
    except OrcdbgError:
        return None  # the word is shown as it is; `kmem ADDR` says what stands in the way


def _effect(arguments: argparse.Namespace) -> Effect:
    """`-r` writes a file."""
    return Effect.NONE if arguments.raw is None else Effect.WRITES_FILES


@command(
    "rd",
    summary="read memory",
    group="data",
    effect=_effect,
    arguments=_arguments,
    aliases=("x",),
    operands=("symbol",),
    examples=(
        ("rd linux_banner 8", "eight words"),
        ("rd -s ffffc90000193d00 16", "a piece of stack as symbols"),
        ("rd -u 7ffe8ebd4898 4", "user memory of the selected task"),
        ("rd -a linux_banner", "text"),
        ("rd -32 -d jiffies", "a word of 32 bits, decimal"),
        ("rd -e _etext -r text.bin _text", "the kernel's text into a file"),
    ),
)
def rd(debugger: Debugger, arguments: argparse.Namespace) -> MemoryWords | StringInMemory | MemoryFile:
    """Answers with words of memory from an address on."""
    if arguments.raw is not None:
        return _into_file(debugger, arguments)
    if arguments.text:
        return _text(debugger, arguments)

    start, size = place_of(debugger, arguments)
    width = (arguments.bits or 64) // 8
    data = memory_of(debugger, start, arguments).read(start, size)
    names = None
    if (arguments.symbols or arguments.names) and width == 8:
        name = name_of_object if arguments.names else name_of_word
        names = [name(debugger, int.from_bytes(data[i : i + 8], "little")) for i in range(0, size, 8)]
    return MemoryWords(start, width, data, names, arguments.radix, arguments.network, not arguments.no_text)
