"""Which lines of the source does a function, an address or a place come from, and what do they say?

The build names files and lines; the text is what a folder has that the user names. Nothing in them proves that both are of one
version, so it is looked whether a function's line names the function.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.lines import lines_at, positions_of
from orcdbg.commands.result import Result
from orcdbg.formats.dwarf_lines import SourceLine
from orcdbg.image.source_position import Position

LINES = 10
"""How many lines a listing has, as in gdb."""
MAX_LINES = 5000

_NO_FOLDER = "the text is shown with --source DIR, the top of this kernel's source tree"
_WORD = re.compile(r"[A-Za-z_]\w{2,}")
# Of a function's line, what says nothing of its name.
_KEYWORDS = frozenset(
    (
        *("static", "inline", "const", "void", "int", "unsigned", "signed", "long", "char", "short", "struct", "union"),
        *(
            "enum",
            "bool",
            "asmlinkage",
            "noinline",
            "notrace",
            "extern",
            "return",
            "for",
            "while",
            "else",
            "goto",
            "case",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class SourceText(Result):
    """Lines of a source file.

    Attributes:
        place: the file, and the line that is asked for.
        first: the number of the first line of `lines`.
        lines: their text; empty where it cannot be had, and `problems` say why.
        address: whose line it is, None where a line was named.
        name: of the address, as the kernel prints it.
        position: the functions that are inlined there; None where a line was named.
        problems: what stands in the way of the text, or of its being the build's.
    """

    place: SourceLine
    first: int
    lines: Sequence[str]
    address: int | None
    name: str | None
    position: Position | None
    problems: Sequence[str]


def around_line(debugger: Debugger, file: str, number: int, count: int) -> SourceText:
    """The lines around one that is named.

    Raises:
        UsageError: there is no folder with sources.
        NotFound: it has no such file, or the file no such line.
    """
    if debugger.source_folders is None:
        raise UsageError(f"no source files to show {file} of", _NO_FOLDER)
    lines = debugger.source_folders.lines(file)
    if not 0 < number <= len(lines):
        raise NotFound("line", f"{file}:{number}", f"the file has {len(lines)} lines")
    first, end = _around(number, count)
    return SourceText(SourceLine(file, number), first, lines[first - 1 : end], None, None, None, ())


def around_address(debugger: Debugger, address: int, count: int) -> SourceText:
    """The lines around that of an address; the innermost function's, where some are inlined there."""
    position, problems = _position(debugger, address)
    assert position.line is not None
    first, end = _around(position.line.line, count)
    return _text(debugger, address, position, position.line, first, end, problems)


def of_function(
    debugger: Debugger, address: int, code: Sequence[int], ends_there: bool, begins_there: bool
) -> SourceText:
    """The lines of the function that an address is in.

    Args:
        debugger: whom it is asked of.
        address: in the function.
        code: addresses of the function's instructions.
        ends_there: whether lines behind the address's are left out.
        begins_there: whether those before it are.
    """
    position, problems = _position(debugger, address)
    place = position.function_line or position.line
    assert place is not None

    positions, _ = positions_of(debugger.session, code)
    own = [each.function_line for each in positions.values() if each.function_line is not None]
    numbers = [each.line for each in own if each.file == place.file] or [place.line]
    declared = _declared(debugger, address)
    if declared is not None and declared[1].file == place.file and declared[1].line <= place.line:
        numbers.append(declared[1].line)

    first = place.line if begins_there else min(numbers)
    end = place.line if ends_there else max(numbers)
    return _text(debugger, address, position, place, first, min(end, first + MAX_LINES - 1), problems)


def _around(number: int, count: int) -> tuple[int, int]:
    """First and last line of so many around one."""
    first = max(number - count // 2, 1)
    return first, first + count - 1


def _position(debugger: Debugger, address: int) -> tuple[Position, list[str]]:
    positions, problems = positions_of(debugger.session, [address])
    position = positions.get(address)
    if position is None or position.line is None:
        raise NotFound("source line", f"{address:#x}", problems[0] if problems else None)
    return position, problems


def _declared(debugger: Debugger, address: int) -> tuple[str, SourceLine] | None:
    found = lines_at(debugger.session, address)
    if found is None:
        return None
    lines, link_address = found
    return lines.declared_at(link_address)


def _text(
    debugger: Debugger,
    address: int,
    position: Position,
    place: SourceLine,
    first: int,
    end: int,
    problems: Sequence[str],
) -> SourceText:
    name = debugger.session.names.describe(address)
    shown: Sequence[str] = ()
    said = list(problems)
    if debugger.source_folders is None:
        said.append(f"no text: {_NO_FOLDER}")
    else:
        try:
            lines = debugger.source_folders.lines(place.file)
            shown = lines[first - 1 : end]
            said += _doubts(debugger, address, place, lines)
        except OrcdbgError as error:
            said.append(f"no text: {error.message}")
    return SourceText(place, first, shown, address, name, position, said)


def _doubts(debugger: Debugger, address: int, place: SourceLine, lines: Sequence[str]) -> list[str]:
    """Why the file seems to be of another version than the build, if it does."""
    if place.line > len(lines):
        return [f"{place.file} has {len(lines)} lines: it is of another version than the build"]
    declared = _declared(debugger, address)
    if declared is None or declared[1].file != place.file:
        return []
    name, at = declared
    # Macros make functions of a part of their names: SYSCALL_DEFINE3(read, ...) makes __do_sys_read.
    words = set(_WORD.findall(" ".join(lines[at.line - 1 : at.line + 1]))) - _KEYWORDS
    if any(word in name or name in word for word in words):
        return []
    return [f"{at.file}:{at.line} does not name {name}, as the build has it: the file may be of another version"]
