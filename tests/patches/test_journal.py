"""A journal gives back the places that were written, and whatever else is in a file is refused."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Mismatch, NotInSnapshot, OrcdbgError, UnsupportedFormat
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.patch_export import Exported, export_patches
from orcdbg.orc.check import check_kernel
from orcdbg.patches.journal import (
    MAX_LINE,
    Journal,
    JournalLedger,
    check_journal,
    cluster_json,
    read_journal,
    write_journal,
)
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from orcdbg.patches.text import PatchedText, TextSource
from orcdbg.target.session import Session
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.conftest import RunProgram

HEAD = {"build_id": "ab" * 20, "release": "6.1", "slide": "0x1000"}


def place(address: int, size: int, expected: bytes | None) -> Cluster:
    """A place that one pass wrote."""
    site = PatchSite("alternative", address, size, "X", bytes(size), expected, "CPU has X", 3)
    return Cluster(address, bytes(size), expected, (site,))


PLACES = [place(0x1000, 4, b"\x90" * 4), place(0x1004, 2, b"\xcc\xc3"), place(0x2000, 7, b"\x0f" * 7)]


def written(clusters: list[Cluster], stack: list[Cluster], head: dict[str, Any] | None = None) -> bytes:
    """A journal."""
    file = io.BytesIO()
    write_journal(
        file,
        HEAD if head is None else head,
        (cluster_json(one, one.expected, ()) for one in clusters),
        (cluster_json(one, one.expected, ()) for one in stack),
    )
    return file.getvalue()


def read(data: bytes) -> Journal:
    """What is read from it."""
    return read_journal(io.BytesIO(data), "made")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_written_is_read(count: int) -> None:
    """Places, passes and head; any JSON reader takes it too."""
    data = written(PLACES[:count], PLACES[1:])
    found = read(data)
    assert found == Journal("made", "ab" * 20, "6.1", 0x1000, PLACES[:count], PLACES[1:])
    assert len(json.loads(data)["clusters"]) == count


def test_memory_stands_in_for_what_cannot_be_told() -> None:
    """Where no pass could say what it wrote."""
    unknown = place(0x1000, 2, None)
    file = io.BytesIO()
    write_journal(file, HEAD, [cluster_json(unknown, b"\x01\x02", ())], [])
    assert read(file.getvalue()).clusters[0].expected == b"\x01\x02"


@given(st.integers(0, 0x2100), st.integers(1, 32))
def test_places_are_found_by_address(address: int, size: int) -> None:
    """As a look through all of them finds them."""
    ledger = JournalLedger(PLACES)
    covering = [one for one in PLACES if one.address <= address < one.end]
    assert ledger.find(address) == (covering[0] if covering else None)
    assert ledger.between(address, address + size) == [
        one for one in PLACES if one.address < address + size and one.end > address
    ]


def test_a_mechanism_chooses() -> None:
    """By the passes that wrote somewhere."""
    ledger = JournalLedger(PLACES)
    assert (ledger.mechanisms, len(ledger)) == (["alternative"], 3)
    assert list(ledger.clusters("alternative")) == list(ledger.clusters()) == PLACES
    assert not list(ledger.clusters("paravirt"))


def change(**fields: Any) -> bytes:
    """A journal whose one place has other fields."""
    found = {**cluster_json(PLACES[0], None, ()), **fields}
    file = io.BytesIO()
    write_journal(file, HEAD, [found], [])
    return file.getvalue()


SITE = cluster_json(PLACES[0], None, ())["sites"][0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 5000,
        written([], [], {**HEAD, "build_id": 7}),
        written([], [], {**HEAD, "slide": "-0x1"}),
        written([], [], {**HEAD, "release": "x" * 5000}),
        written([], []).replace(b'"orcdbg_patches": 1', b'"orcdbg_patches": 2'),
        written(PLACES, PLACES)[:-3],
        written(PLACES[::-1], []),
        written([PLACES[0], PLACES[0]], []),
        change(address="0x" + "f" * 16),
        change(address="0x" + "f" * 17),
        change(address=4096),
        change(image=""),
        change(image="0"),
        change(image="zz"),
        change(image="90" * 4097),
        change(expected="90"),
        change(memory="90" * 5),
        change(sites={}),
        change(sites=[1]),
        change(sites=[SITE] * 257),
        change(sites=[{**SITE, "size": 5}]),
        change(sites=[{**SITE, "size": True}]),
        change(sites=[{**SITE, "size": 0}]),
        change(sites=[{**SITE, "address": "0xfff"}]),
        change(sites=[{**SITE, "image": "00"}]),
        change(sites=[{**SITE, "decided_by": None}]),
        change(sites=[{**SITE, "order": -1}]),
        change(pad="x" * MAX_LINE),
        written([], []).replace(b"\n]", b"\n" + b"[" * 50_000 + b"\n]", 1),
        written([], []).replace(b"\n]", b"\n{" + b'"a":' + b"9" * 5000 + b"}\n]", 1),
    ],
)
def test_damage_is_refused(data: bytes) -> None:
    """With the line that it is in."""
    with pytest.raises(UnsupportedFormat, match="made: line "):
        read(data)


@given(st.integers(0), st.integers(1, 255))
def test_any_byte_changed_gives_a_journal_or_an_error_of_ours(at: int, change_by: int) -> None:
    """And places that stay in order."""
    data = bytearray(written(PLACES, PLACES))
    data[at % len(data)] ^= change_by
    try:
        found = read(bytes(data))
    except OrcdbgError:
        return
    for places in (found.clusters, found.stack):
        assert all(one.end <= other.address for one, other in itertools.pairwise(places))


def test_only_the_same_boot_is_taken() -> None:
    """By build-id, slide, and where the kernel's text is."""
    journal = read(written(PLACES, PLACES))
    check_journal(journal, " " + "AB" * 20 + "\n", 0x1000, lambda address: True)
    with pytest.raises(Mismatch):
        check_journal(journal, None, 0x1000, lambda address: True)
    with pytest.raises(Mismatch):
        check_journal(journal, "cd" * 20, 0x1000, lambda address: True)
    with pytest.raises(UnsupportedFormat, match="another boot"):
        check_journal(journal, "ab" * 20, 0, lambda address: True)
    with pytest.raises(UnsupportedFormat, match="not in the kernel's text"):
        check_journal(journal, "ab" * 20, 0x1000, lambda address: address != 0x2006)


def test_text_that_memory_lacks_comes_from_the_journal() -> None:
    """Inside one place; memory is believed where it is there."""

    class Nothing:
        """Memory of which all is missing but one page."""

        def read(self, address: int, size: int) -> bytes:
            """As an AddressSpace."""
            if address >= 0x2000:
                return b"\xee" * size
            raise NotInSnapshot("made", address, size)

    class Recorded:
        """The places, which are all there is."""

        ledger = stack_ledger = JournalLedger(PLACES)

        def holds(self, address: int) -> bool:
            """All is code."""
            return True

    text = PatchedText(Nothing(), Recorded(), Nothing(), Recorded())
    assert text.read_from(0x1001, 3) == (b"\x90" * 3, TextSource.REPLAY)
    assert text.read_from(0x1004, 2) == (b"\xcc\xc3", TextSource.REPLAY)
    assert text.read_from(0x2000, 7) == (b"\xee" * 7, TextSource.MEMORY)
    for address, size in ((0x1003, 2), (0xFFF, 1), (0x1006, 1)):
        with pytest.raises(NotInSnapshot):
            text.read(address, size)


# The sample's


@pytest.fixture(scope="module")
def journal_file(sample: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's journal."""
    path = tmp_path_factory.mktemp("journal") / "patches.json"
    export_patches(Debugger(sample), str(path))
    return path


def test_a_real_kernels_patches_come_back(sample: Session, journal_file: Path) -> None:
    """Every place in its text, as the ledgers have it, and the rows that do not hold."""
    with journal_file.open("rb") as file:
        journal = read_journal(file, str(journal_file))
    assert (journal.build_id, journal.slide) == (sample.image.build_id, sample.slide)
    for ledger, found in ((sample.ledger, journal.clusters), (sample.stack_ledger, journal.stack)):
        expected = [
            one for one in ledger.clusters() if one.sites and all(map(sample.is_image_text, (one.address, one.end - 1)))
        ]
        assert len(found) > 1000
        assert [replace(one, expected=None) for one in found] == [replace(one, expected=None) for one in expected]
        assert all(a.expected == b.expected for a, b in zip(found, expected, strict=True) if b.expected is not None)
    rows = [row for one in json.loads(journal_file.read_bytes())["stack"] for row in one["rows"]]
    hazards = [one.boundary for one in check_kernel(sample.code, sample.overlay).hazards]
    assert {(row["address"], row["stated_rule"], row["true_rule"]) for row in rows} == {
        (f"{one.address:#x}", str(one.stated), str(one.true)) for one in hazards
    }


def test_the_command_line_checks_a_journal(orcdbg_run: RunProgram, journal_file: Path, tmp_path: Path) -> None:
    """With an image it is not used; of another build, or none at all, it is refused."""
    status, _, err = orcdbg_run("demo", "--patches", str(journal_file), "-e", "sys")
    assert status == 0
    assert "not used" in err
    other = tmp_path / "other.json"
    other.write_bytes(journal_file.read_bytes().replace(b'"build_id": "7', b'"build_id": "8', 1))
    assert orcdbg_run("demo", "--patches", str(other), "-e", "sys")[0] == 4
    other.write_text("{}")
    assert orcdbg_run("demo", "--patches", str(other), "-e", "sys")[0] == 3
    assert orcdbg_run("demo", "--patches", str(tmp_path / "none"), "-e", "sys")[0] == 3


def test_the_answer_says_what_was_written(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """As text and as JSON."""
    path = tmp_path / "patches.json"
    status, out, _ = orcdbg_run("demo", "--format", "json", "-e", f"patch export -o {path}")
    result = json.loads(out)["result"]
    assert (status, result["path"], result["size"]) == (0, str(path), path.stat().st_size)
    assert result["places"] > 1000
    text = plain(lines_of(Exported(**result), None))
    assert text == f"{path}: {result['size']} bytes, {result['places']} places, {result['rows']} corrected rows\n"
    assert orcdbg_run("demo", "-e", "patch export -o /nowhere/at/all")[0] == 2
