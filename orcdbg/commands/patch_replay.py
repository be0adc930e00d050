"""patch replay: what must all text be, as a file for objdump?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect
from orcdbg.commands.result import Result
from orcdbg.commands.writing import refuse_inputs, replacing
from orcdbg.formats.elf_writing import CodeStretch, Label, encode_elf
from orcdbg.patches.audit.core_text import replayed_kernel
from orcdbg.target.session import Session


@dataclass(frozen=True, slots=True)
class Replay(Result):
    """A replayed text that was written to a file, and the places in it whose bytes are not known."""

    path: str
    address: int
    size: int
    symbols: int
    problems: Sequence[str]


def add_replay(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`patch replay`."""
    parser = actions.add_parser("replay", help="write the text with all patches replayed", allow_abbrev=False)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the ELF file to write, for objdump")
    parser.set_defaults(answer=replay_text, effect=Effect.WRITES_FILES)


def _labels(session: Session, start: int, end: int) -> list[Label]:
    """The symbols in a stretch of the kernel's text, at run-time addresses."""
    table, slide = session.symbols, session.slide
    values = table.entries["value"] + np.uint64(slide)
    inside = (values >= np.uint64(start)) & (values < np.uint64(end)) & ((table.entries["info"] & 15) <= 2)
    inside &= table.entries["name"] != 0
    rows = np.flatnonzero(inside)
    sizes = table.entries["size"]
    return [Label(table.name_of(row), int(values[row]), int(sizes[row]), 0) for row in rows.tolist()]


def replay_text(debugger: Debugger, arguments: argparse.Namespace) -> Replay:
    """Writes the replayed text and its symbols."""
    session = debugger.session
    refuse_inputs(arguments.output, session.files)  # before the work, which takes its time
    replayed = replayed_kernel(session.patches)
    text = replayed.text
    labels = _labels(session, text.address, text.end)
    data = encode_elf([CodeStretch(".text", text.address, bytes(text.data))], labels)
    with replacing(arguments.output, session.files) as file:
        file.write(data)
    return Replay(arguments.output, text.address, len(text.data), len(labels), replayed.problems)
