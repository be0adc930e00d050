"""Where are the records kept while there are more to come, and what is there from an earlier run?

Each record is a line, written as a whole and at once: whatever ends the program, those that were made stay. Only the last line
can be half a line; it is dropped, and its dump is looked at again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from orcdbg.base.errors import Corrupt, UnsupportedFormat
from orcdbg.triage.records import SCHEMA, DumpRecord, from_line, to_line

_MAX_LINE = 1 << 20
_BEGIN = f'{{"schema": {SCHEMA}, "dump"'.encode()  # of each line that was written here


class RecordFile:
    """A file of records, to which more are added.

    Args:
        file: open for writing, at its end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, record: DumpRecord) -> None:
        """Adds a record, so that it stays whatever comes; OSError as of a file."""
        self._file.write(to_line(record).encode("ascii"))
        self._file.flush()


class KeptRecords(NamedTuple):
    """The records of an earlier run.

    Attributes:
        records: the last one of each dump.
        whole: bytes of the file up to the end of its last whole line.
        damaged: how many lines are no records; their dumps are looked at again.
    """

    records: Sequence[DumpRecord]
    whole: int = 0
    damaged: int = 0


def read_records(path: str) -> KeptRecords:
    """The records in a file; none where there is no file.

    Raises:
        UnsupportedFormat: it cannot be read, or what is in it are no records at all.
    """
    records: dict[str, DumpRecord] = {}
    whole = damaged = 0
    try:
        with Path(path).open("rb") as file:
            while line := file.readline(_MAX_LINE):
                if not line.endswith(b"\n"):
                    # What is no record's beginning is somebody's own text, of which nothing is cut off.
                    if not line.startswith(_BEGIN[: len(line)]) or len(line) == _MAX_LINE:
                        raise UnsupportedFormat(path, "not a file of records: its last line is none")
                    break
                whole += len(line)
                try:
                    record = from_line(line)
                    records[record.dump] = record
                except Corrupt:
                    damaged += 1
    except FileNotFoundError:
        return KeptRecords([])
    except OSError as error:
        raise UnsupportedFormat(path, f"cannot be read: {error.strerror}") from error
    if damaged and not records:
        raise UnsupportedFormat(path, "not a file of records")
    return KeptRecords(list(records.values()), whole, damaged)


def drop_half_line(path: str, whole: int) -> None:
    """Cuts off what is behind the last whole line; OSError as of a file."""
    if os.path.getsize(path) > whole:  # noqa: PTH202
        os.truncate(path, whole)
