"""Whatever files a user names, their readers are found, or it is said what they are not."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.extents import Extent, ExtentMemory
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.opening import open_paths, open_snapshot, recognise
from orcdbg.snapshot.readers import elf_core, raw
from orcdbg.snapshot.readers.reader import HEAD_SIZE, SnapshotReader
from orcdbg.snapshot.readers.registry import READERS
from tests.build.elf import Load, core, image
from tests.build.kdump import Kdump, flattened
from tests.build.memory_files import lime
from tests.fuzz import make_formats
from tests.snapshot.two_ranges import HIGH, write


@pytest.mark.parametrize("is_flattened", [False, True])
def test_a_snapshot_comes_through_a_pipe(tmp_path: Path, is_flattened: bool) -> None:
    """A stream is kept in a file without a name."""
    data = Kdump({3: HIGH[:PAGE], 5: HIGH[PAGE : 2 * PAGE]}).encode()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(flattened(data) if is_flattened else data,))
    writer.start()
    snapshot = open_paths(str(pipe))
    writer.join()
    assert snapshot.physical.read(5 * PAGE, PAGE) == HIGH[PAGE : 2 * PAGE]
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_flattened_stream_that_breaks_off_in_a_pipe_is_refused(tmp_path: Path) -> None:
    """There is no second try, so nobody is to work with half of it unknowingly."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = flattened(Kdump({3: HIGH[:PAGE]}).encode())[:-100]
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    with pytest.raises(UnsupportedFormat, match="cut off"):
        open_paths(str(pipe))
    writer.join()


def test_a_flattened_stream_without_its_first_block_says_so(tmp_path: Path) -> None:
    """As a file and through a pipe: nothing is known of what the other blocks hold."""
    data = flattened(Kdump({3: HIGH[:PAGE]}).encode(), block=5000)
    cut = data[:PAGE] + data[PAGE + 16 + 5000 :]
    (tmp_path / "file").write_bytes(cut)
    with pytest.raises(UnsupportedFormat, match="whose first 5000 bytes are in none of its blocks"):
        recognise(str(tmp_path / "file"))

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(cut,))
    writer.start()
    with pytest.raises(UnsupportedFormat, match="whose first 5000 bytes are in none of its blocks"):
        recognise(str(pipe))
    writer.join()


def test_the_running_kernels_memory_is_not_followed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to it is refused; the file itself is taken when it is named."""
    live = tmp_path / "kcore"
    live.write_bytes(core([Load(0x1000, HIGH)]))
    monkeypatch.setattr(elf_core, "KCORE", str(live))
    link = tmp_path / "innocent"
    link.symlink_to(live)
    with pytest.raises(UnsupportedFormat, match="running kernel"):
        recognise(str(link))
    assert open_paths(str(live)).format == "live memory"


def toy_reader(magic: bytes, name: str = "a toy") -> SnapshotReader:
    """A reader of a magic number and the memory behind it, from physical address 0 on."""

    def open_toy(source: ByteSource) -> Snapshot:
        size = source.size - len(magic)
        memory = ExtentMemory([Extent(0, source, len(magic), size, size)])
        return Snapshot(source.name, name, memory, [], {}, ranges=memory.ranges)

    return SnapshotReader(name, lambda head: head.startswith(magic), open_toy)


def test_a_format_is_known_through_whatever_is_around_it(tmp_path: Path) -> None:
    """A reader sees the format's own bytes: plain, compressed, in a flattened stream."""
    data = lime({0x1000: HIGH})
    for name, packed, kind in (
        ("plain", data, "a LiME or AVML memory image"),
        ("packed", gzip.compress(data), "a compressed LiME or AVML memory image"),
        ("stream", flattened(data), "a LiME or AVML memory image"),
    ):
        file = recognise(write(tmp_path / name, packed))
        assert file is not None
        assert file.kind == kind
        assert open_snapshot([file]).physical.read(0x1000, len(HIGH)) == HIGH


def test_a_reader_of_a_plug_in_is_asked_first(tmp_path: Path) -> None:
    """It may take a file that a built-in one knows, also one that looks compressed; others stay as they were."""
    ours = toy_reader(b"EMiL")
    file = recognise(write(tmp_path / "lime", lime({0x1000: HIGH})), [ours])
    assert file is not None
    assert file.reader is ours

    packed = write(tmp_path / "packed", b"\x1f\x8b not gzip")
    assert recognise(packed) is None
    file = recognise(packed, [toy_reader(b"\x1f\x8b")])
    assert file is not None
    assert open_snapshot([file]).physical.read(0, 9) == b" not gzip"

    other = recognise(write(tmp_path / "core", core([Load(0x1000, HIGH)])), [ours])
    assert other is not None
    assert other.reader is elf_core.READER


def test_what_no_reader_knows_is_none(tmp_path: Path) -> None:
    """An image, a compressed one, an empty file, text."""
    for number, data in enumerate((image([]), gzip.compress(image([])), b"", b"text", flattened(b"text"))):
        assert recognise(write(tmp_path / str(number), data)) is None


def test_only_parts_of_one_snapshot_go_together(tmp_path: Path) -> None:
    """Two files of a format without parts are two snapshots, and so are parts of two formats."""
    low, high = (write(tmp_path / name, lime({0x1000: HIGH})) for name in ("a", "b"))
    dump = write(tmp_path / "dump", Kdump({3: HIGH[:PAGE]}).encode())
    for names in ((low, high), (low, dump)):
        with pytest.raises(UsageError, match="2 snapshots"):
            open_paths(*names)


def test_each_built_in_format_is_known_by_one_reader() -> None:
    """Whichever order the readers are asked in, a good file of one format is not another's; and each reader has a file.

    The files are those that `tests/fuzz.py` damages, so that a reader whose format is not tried there is found here.
    """
    known: dict[str, list[str]] = {name: [] for name in make_formats()}
    for name, make in make_formats().items():
        head = make().whole[:HEAD_SIZE]
        known[name] = [reader.name for reader in READERS if reader.detect(head)]

    no_snapshots = {"flattened", "btf"}
    assert {name: readers for name, readers in known.items() if len(readers) != (name not in no_snapshots)} == {}

    # A plain image has no first bytes of its own.
    names = {name for readers in known.values() for name in readers} | {raw.READER.name}
    without_file = [reader.name for reader in READERS if reader.name not in names]
    assert without_file == [], "add a good file of each to make_formats in tests/fuzz.py"


@given(st.binary(max_size=64))
def test_any_first_bytes_are_a_formats_or_none(head: bytes) -> None:
    """No reader stumbles over what it is shown."""
    assert all(reader.detect(head) in (True, False) for reader in READERS)
