"""A file that is not read is called what it is, and the way to something that is read is named."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.exit_status import ExitStatus
from orcdbg.formats.foreign import foreign_kind
from orcdbg.snapshot.opening import open_paths
from orcdbg.target.opening import sort_files
from tests.build.elf import Load, core, note
from tests.conftest import RunProgram


def uki() -> bytes:
    """The headers of a unified kernel image."""
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    return dos.ljust(0x80, b"\0") + b"PE\0\0\x64\x86".ljust(0x100, b"\0") + b".osrel\0\0" + b".linux\0\0" + bytes(4000)


def archive(kind: str) -> bytes:
    """A dump packed together with something else."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as packed:
            packed.writestr("vmcore", b"x" * 5000)
    else:
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("vmcore"))
    return out.getvalue()


FILES = {
    "a migration stream of QEMU": b"QEVM" + struct.pack(">I", 3) + b"\1" * 5000,
    "a guest that libvirt saved": b"LibvirtQemudSave" + struct.pack("<I", 2) + b"\1" * 5000,
    "a Windows crash dump of 64 bits": b"PAGEDU64" + b"\1" * 8192,
    "a zip archive": archive("zip"),
    "a tar archive": archive("tar"),
    "an EnCase image": b"EVF\x09\x0d\x0a\xff\0" + b"\1" * 5000,
    "a qcow2 disk": b"QFI\xfb" + struct.pack(">I", 3) + b"\1" * 5000,
    "the memory of a suspended Hyper-V guest": b"\x14\x20\x28\x01" + b"\1" * 5000,
    "a report of apport": b"ProblemType: KernelCrash\nArchitecture: amd64\n",
    "a table of symbols": b"0000000000000000 D __per_cpu_start\nffffffff81000000 T _text\n",
    "a unified kernel image": uki(),
    "an empty file": b"",
    "nothing but zeros": bytes(9000),
    "a saved state of VirtualBox": b"\x7fVirtualBox SavedState V2.0\n" + bytes(5000),
    "a swap area": bytes(4086) + b"S1SUSPEND\0",
}


@pytest.mark.parametrize("what", FILES)
def test_what_is_not_read_has_its_name_and_a_way_out(tmp_path: Path, what: str) -> None:
    """Not the one hint that a plain image needs its address, which sends most people the wrong way."""
    path = tmp_path / "file"
    path.write_bytes(FILES[what])
    with pytest.raises(UnsupportedFormat, match=what) as error:
        sort_files([str(path)])
    assert error.value.hint
    assert error.value.exit_status is ExitStatus.UNSUPPORTED


def test_checkup_names_it_too(tmp_path: Path, orcdbg_run: RunProgram) -> None:
    """In the words of opening."""
    path = tmp_path / "file"
    path.write_bytes(FILES["a qcow2 disk"])
    _, out, _ = orcdbg_run("checkup", str(path))
    assert "a qcow2 disk" in out
    assert "dump-guest-memory" in out


@given(st.binary(max_size=4096), st.integers(0, 1 << 40))
def test_any_first_bytes_are_a_kind_or_none(head: bytes, size: int) -> None:
    """Nothing is raised for them."""
    found = foreign_kind(head, size)
    assert found is None or (found.what and found.way_out)


def test_cores_without_physical_memory_say_whose_they_are(tmp_path: Path) -> None:
    """A copy of virtual memory, and a Xen guest's, whose memory is in sections."""
    path = tmp_path / "core"
    path.write_bytes(core([Load((1 << 64) - 1, b"x" * 4096)]))
    with pytest.raises(UnsupportedFormat, match="p_paddr is -1"):
        open_paths(str(path))
    path.write_bytes(core([], note("Xen", 0x2000000, bytes(32))))
    with pytest.raises(UnsupportedFormat, match="xl dump-core"):
        open_paths(str(path))


@pytest.mark.parametrize(("owner", "writer"), [("VBCORE", "VirtualBox"), ("Xen", "Xen"), ("CORE", "kdump")])
def test_a_core_says_who_wrote_it(tmp_path: Path, owner: str, writer: str) -> None:
    """By the owners of its notes."""
    path = tmp_path / "core"
    path.write_bytes(core([Load(0, b"x" * 4096)], note(owner, 0xB00, bytes(20))))
    assert open_paths(str(path)).format == f"ELF core ({writer})"
