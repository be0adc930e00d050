"""Source lines and inlined functions of real kernels, against addr2line and, where the two differ on the file, gdb."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from orcdbg.image.source_lines import SourceLines
from orcdbg.image.source_position import Position
from orcdbg.image.vmlinux import Image, open_source
from tests.lab.draw import kernels_of
from tests.lab.fetch import ensure
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab

ADDRESSES = 200
Place = tuple[str | None, str]


def asked(vmlinux: Path, addresses: list[int]) -> dict[int, list[Place]]:
    """What addr2line says: function and file:line, innermost first."""
    words = ["addr2line", "-i", "-f", "-a", "-e", str(vmlinux)]
    text = subprocess.run(
        words, input="\n".join(map(hex, addresses)), capture_output=True, text=True, check=True
    ).stdout
    found: dict[int, list[Place]] = {}
    for block in re.split(r"(?m)^(?=0x)", text)[1:]:
        address, *lines = block.splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        places: list[Place] = [(name, posixpath.normpath(re.sub(r" \(.*\)$", "", place))) for name, place in pairs]
        found[int(address, 16)] = places
    return found


def ours(position: Position) -> list[Place]:
    """A position in the same form; the outermost function's name is a symbol's, and not of DWARF."""
    places: list[Place] = [(one.symbol, f"{one.at.file}:{one.at.line}" if one.at else "?") for one in position.inlined]
    outer = position.function_line
    return [*places, (None, f"{outer.file}:{outer.line}" if outer else "?")]


def have_same_names(mine: list[Place], theirs: list[Place]) -> bool:
    """Rust's names are mangled in one and not in the other."""
    return len(mine) == len(theirs) and all(
        name in (None, other) or str(other).startswith("_R") for (name, _), (other, _) in zip(mine, theirs, strict=True)
    )


def same(mine: list[Place], theirs: list[Place]) -> bool:
    """Names and lines."""
    pairs = zip(mine, theirs, strict=False)
    return have_same_names(mine, theirs) and all(there.endswith(place) for (_, place), (_, there) in pairs)


def gdb_line(vmlinux: Path, address: int) -> str:
    """gdb's file:line of an address."""
    words = ["gdb", "-nx", "-batch", "-ex", f"info line *{address:#x}", str(vmlinux)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r'Line (\d+) of "([^"]+)"', text)
    return f"{posixpath.normpath(found[2])}:{found[1]}" if found else text


def is_witnessed(mine: str, binutils: str, gdb: str) -> bool:
    """Whether gdb says so; or it has the file and binutils the line.

    Of several lines at one address gdb takes the last that begins a statement, binutils the last, as the standard has it;
    and binutils has files confused in functions out of headers.
    """
    if gdb.endswith(mine) or mine.endswith(gdb):
        return True
    (file, _, line), (other, _, _) = mine.rpartition(":"), gdb.rpartition(":")
    return other != "" and (file.endswith(other) or other.endswith(file)) and binutils.endswith(f":{line}")


@pytest.mark.parametrize("kernel", kernels_of("source lines"))
def test_lines_and_inlined_functions_are_those_of_binutils(kernel: str, seed: int) -> None:
    """At addresses chosen at random from all text. Where binutils says otherwise, gdb decides."""
    if shutil.which("addr2line") is None or shutil.which("gdb") is None:
        pytest.skip("addr2line and gdb are not installed")
    with skipped_if_unavailable(kernel):
        vmlinux = ensure(kernel).vmlinux
    random = Random(seed)
    image = Image(open_source(str(vmlinux)))
    lines = SourceLines(image.elf)
    text = image.find_section(".text")
    assert text is not None
    addresses = [random.randrange(text.address, text.end) for _ in range(ADDRESSES)]
    compared = by_gdb = 0
    for address, theirs in asked(vmlinux, addresses).items():
        position = lines.at(address)
        if position is None or position.line is None:
            if not theirs[0][1].endswith((":0", ":?")):  # between functions binutils goes by what it was asked before
                by_gdb += 1
                assert "No line number information" in gdb_line(vmlinux, address), (hex(address), theirs)
            continue
        compared += 1
        mine = ours(position)
        if not same(mine, theirs):
            by_gdb += 1
            first = gdb_line(vmlinux, address)
            assert is_witnessed(mine[0][1], theirs[0][1], first), (hex(address), mine, theirs, first)
            assert have_same_names(mine[:-1], theirs[:-1]), (hex(address), mine, theirs)
    print(f"{kernel}: {compared} of {ADDRESSES} addresses have a line; gdb was asked for {by_gdb}")
    assert compared > ADDRESSES // 3
    assert by_gdb <= compared // 10
