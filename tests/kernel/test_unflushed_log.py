"""What CPUs had printed and not moved into the log is shown beside it: kernels until 5.14."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import cast

import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.unflushed_log import UnflushedLine, read_unflushed

SIZE, BUFFER = 256, 40
PLACES = {("nmi_print_seq", 0): 0x1000, ("nmi_print_seq", 1): 0x2000, ("safe_print_seq", 0): 0x3000}


def kernel(contents: dict[int, bytes], has_buffers: bool = True) -> Linux:
    """A kernel with two CPUs and some buffers in its memory."""

    def read(address: int, size: int) -> bytes:
        for start, data in contents.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise NotInSnapshot("virtual", address, size)

    types = SimpleNamespace(
        has=lambda name, path: has_buffers,
        offset=lambda name, path: {"len": 0, "buffer": BUFFER}[path],
        size=lambda name: SIZE,
    )
    made = SimpleNamespace(
        types=types,
        memory=SimpleNamespace(read=read),
        per_cpu=lambda name, cpu: PLACES.get((name, cpu)),
        cpu_limit=lambda: 2,
        find_address=lambda name: None,
    )
    return cast(Linux, made)


def buffer(text: bytes, length: int | None = None) -> bytes:
    """A struct printk_safe_seq_buf."""
    head = struct.pack("<i", len(text) if length is None else length)
    return (head.ljust(BUFFER, b"\0") + text).ljust(SIZE, b"\0")


def test_lines_of_all_cpus_have_their_levels() -> None:
    """A header is no text; what follows the length, of messages that were moved, is not shown."""
    contents = {
        0x1000: buffer(b"\x010end of it\n\x016next\x01c one\n"),
        0x2000: buffer(b"old text\n", length=0),
        0x3000: buffer(b"without a level"),
    }
    assert read_unflushed(kernel(contents)) == (
        [
            UnflushedLine("nmi_print_seq", 0, 0, "end of it"),
            UnflushedLine("nmi_print_seq", 0, 6, "next one"),
            UnflushedLine("safe_print_seq", 0, 4, "without a level"),
        ],
        [],
    )


@pytest.mark.parametrize("length", [-1, SIZE - BUFFER + 1, 0x7FFFFFFF])
def test_an_impossible_length_costs_its_buffer_only(length: int) -> None:
    """So does one that is not in the snapshot."""
    contents = {0x1000: buffer(b"text", length), 0x3000: buffer(b"kept")}
    lines, problems = read_unflushed(kernel(contents))
    assert [line.text for line in lines] == ["kept"]
    assert [problem.partition(":")[0] for problem in problems] == ["nmi_print_seq of CPU 0", "nmi_print_seq of CPU 1"]


def test_a_kernel_without_such_buffers_has_none() -> None:
    """Since 5.15."""
    assert read_unflushed(kernel({}, has_buffers=False)) == ([], [])
