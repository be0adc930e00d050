"""A worked plug-in: the command `kthreads`, a patch mechanism, and a reader of raw memory images.

    orcdbg --plugin plugins/example/hello.py VMLINUX SNAPSHOT -e kthreads

The mechanism names the places where a debugger left an int3 in text, given as `ORCDBG_INT3=address,address`; it shows what
a mechanism has to say: where its sites are, what decided, what bytes result. The reader takes a file that begins with
`RAWMEM1`, four kilobytes of VMCOREINFO text, and then physical memory from address 0.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from orcdbg.plugin import (
    Answer,
    Applied,
    Build,
    ByteSource,
    Debugger,
    Effect,
    NotInSnapshot,
    PatchPass,
    PluginApi,
    Snapshot,
    SnapshotReader,
    Spans,
    UsageError,
    WorkingText,
    command,
    make_spans,
)

RAW_MAGIC = b"RAWMEM1\n"
RAW_HEADER = 4096


@command("kthreads", summary="list the kernel threads", group="example", effect=Effect.NONE)
def kthreads(debugger: Debugger, arguments: argparse.Namespace) -> Answer:
    """The kernel threads, by name."""
    threads = [task for task in debugger.session.tasks if task.is_kernel_thread and task.pid]
    lines = tuple(f"{task.pid:>8}  {task.comm}" for task in threads)
    return Answer(lines, {"kthreads": [{"pid": task.pid, "comm": task.comm} for task in threads]})


class Int3Pass:
    """Breakpoints at addresses that the user names."""

    mechanism = "int3"

    def __init__(self, addresses: Sequence[int]) -> None:
        self._spans = make_spans(list(addresses), [1] * len(addresses))

    def spans(self) -> Spans:
        """One byte each."""
        return self._spans

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Writes the int3."""
        text.write(int(self._spans.starts[index]), b"\xcc")
        return Applied("breakpoint", "named in ORCDBG_INT3")


def int3_passes(build: Build) -> list[PatchPass]:
    """The mechanism's passes; none when the user names no address."""
    words = [word for word in os.environ.get("ORCDBG_INT3", "").split(",") if word]
    try:
        return [Int3Pass([int(word, 16) for word in words])] if words else []
    except ValueError as error:
        raise UsageError(f"ORCDBG_INT3: {error}") from error


class RawMemory:
    """Physical memory as the tail of a file."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address."""
        if address < 0 or RAW_HEADER + address + size > self._source.size:
            raise NotInSnapshot("physical", address, size)
        return self._source.read_at(RAW_HEADER + address, size)


def open_raw(source: ByteSource) -> Snapshot:
    """The snapshot in a RAWMEM1 file: memory and VMCOREINFO, but no CPU registers."""
    text = source.read_at(len(RAW_MAGIC), RAW_HEADER - len(RAW_MAGIC)).rstrip(b"\0").decode("ascii", "replace")
    info = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Snapshot(source.name, "raw memory", RawMemory(source), (), info)


def register(api: PluginApi) -> None:
    """What orcdbg calls."""
    api.require(1, 2)
    api.add_command(kthreads)
    api.add_patch_mechanism(int3_passes)
    api.add_snapshot_reader(SnapshotReader("raw memory", lambda head: head.startswith(RAW_MAGIC), open_raw))
