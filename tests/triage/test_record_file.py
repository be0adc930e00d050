"""A file of records: what was written stays, half a line is dropped, and nobody's own text is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.triage.record_file import RecordFile, drop_half_line, read_records
from orcdbg.triage.records import to_line
from tests.triage.made_records import FAILED, WHOLE, made


def test_records_are_there_as_soon_as_they_are_added(tmp_path: Path) -> None:
    """Whoever reads the file meanwhile has them: nothing waits in a buffer."""
    path = tmp_path / "r.jsonl"
    with path.open("wb") as opened:
        file = RecordFile(opened)
        file.add(WHOLE)
        assert read_records(str(path)).records == [WHOLE]
        file.add(FAILED)
        assert read_records(str(path)).records == [WHOLE, FAILED]


@pytest.mark.parametrize("cut", range(1, len(to_line(FAILED)), 7))
def test_half_a_line_is_dropped_wherever_it_ends(tmp_path: Path, cut: int) -> None:
    """Then another record can stand in its place."""
    path = tmp_path / "r.jsonl"
    path.write_text(to_line(WHOLE) + to_line(FAILED)[:cut])
    kept = read_records(str(path))
    assert (kept.records, kept.damaged) == ([WHOLE], 0)
    drop_half_line(str(path), kept.whole)
    assert path.read_text() == to_line(WHOLE)


def test_of_two_records_of_a_dump_the_last_counts(tmp_path: Path) -> None:
    """Its file was changed between the runs."""
    path = tmp_path / "r.jsonl"
    later = made(WHOLE.dump, signature="other")
    path.write_text(to_line(WHOLE) + to_line(later))
    assert read_records(str(path)).records == [later]


def test_a_damaged_line_costs_its_record_alone(tmp_path: Path) -> None:
    """It is counted."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xff\x00{\n" + to_line(WHOLE).encode())
    kept = read_records(str(path))
    assert (kept.records, kept.damaged) == ([WHOLE], 1)


@pytest.mark.parametrize("text", ["hello\n", "hello", "{}\n", '{"schema"; 1, "du', "x" * (1 << 20)])
def test_another_text_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing may be cut off it."""
    path = tmp_path / "notes"
    path.write_text(text)
    with pytest.raises(UnsupportedFormat, match="not a file of records"):
        read_records(str(path))


def test_no_file_is_no_records(tmp_path: Path) -> None:
    """An empty one too: the earlier run came to none."""
    assert read_records(str(tmp_path / "r.jsonl")).records == []
    (tmp_path / "r.jsonl").touch()
    assert read_records(str(tmp_path / "r.jsonl")).whole == 0
