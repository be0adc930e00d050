"""What is a file that orcdbg does not read, by its first bytes, and what can be done with it?

Each of these comes with questions about dumps. What is known is its magic number alone: nothing else of it is read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from orcdbg.formats.tar import is_tar


class ForeignKind(NamedTuple):
    """A file of a kind that is not read: what it is, and the way to something that is."""

    what: str
    way_out: str


_MEMORY_DUMP = (
    "`virsh dump --memory-only DOMAIN FILE`, or dump-guest-memory of QEMU's monitor, writes what is read here"
)
_DISK = "a disk is not memory; the dump of a crashed kernel is a file on it, often in /var/crash"
_WINDOWS_TOOLS = (
    "that is a Windows crash dump; a Linux kernel's memory comes as an ELF core, kdump, LiME or plain image"
)

# By the first bytes.
_MAGICS: tuple[tuple[bytes, ForeignKind], ...] = (
    (b"QEVM", ForeignKind("a migration stream of QEMU (savevm)", _MEMORY_DUMP)),
    (b"LibvirtQemudSave", ForeignKind("a guest that libvirt saved (virsh save)", f"restore it, then {_MEMORY_DUMP}")),
    (b"LibvirtQemudPart", ForeignKind("a guest that libvirt did not finish saving", _MEMORY_DUMP)),
    (b"QFI\xfb", ForeignKind("a qcow2 disk, of a guest or of its snapshots", f"{_DISK}; of a guest: {_MEMORY_DUMP}")),
    (b"KDMV", ForeignKind("a VMware disk (.vmdk)", "its memory is in the .vmss or .vmsn, with a .vmem beside it")),
    (b"vhdxfile", ForeignKind("a Hyper-V disk (.vhdx)", _DISK)),
    (b"conectix", ForeignKind("a Hyper-V disk (.vhd)", _DISK)),
    (b"<<< Oracle VM VirtualBox", ForeignKind("a VirtualBox disk (.vdi)", _DISK)),
    (
        b"\x7fVirtualBox SavedState",
        ForeignKind(
            "a saved state of VirtualBox (.sav)", "`VBoxManage debugvm NAME dumpvmcore --filename FILE` writes a core"
        ),
    ),
    (b"PAGEDU64", ForeignKind("a Windows crash dump of 64 bits (PAGEDU64)", _WINDOWS_TOOLS)),
    (b"PAGEDUMP", ForeignKind("a Windows crash dump of 32 bits (PAGEDUMP)", _WINDOWS_TOOLS)),
    (b"MDMP", ForeignKind("a Windows minidump", _WINDOWS_TOOLS)),
    (b"EVF\x09\x0d\x0a\xff\x00", ForeignKind("an EnCase image (.E01)", "ewfexport, of libewf, writes a plain image")),
    (b"EVF2\x0d\x0a\x81\x00", ForeignKind("an EnCase image (.Ex01)", "ewfexport, of libewf, writes a plain image")),
    (b"PK\x03\x04", ForeignKind("a zip archive", "unpack it, and give the file that is in it")),
    (b"PK\x05\x06", ForeignKind("an empty zip archive", "the dump is not in it")),
    (b"7z\xbc\xaf\x27\x1c", ForeignKind("a 7-Zip archive", "unpack it, and give the file that is in it")),
    (b"Rar!\x1a\x07", ForeignKind("a RAR archive", "unpack it, and give the file that is in it")),
    (
        b"!<arch>\ndebian",
        ForeignKind("a Debian package", "`dpkg -x PACKAGE FOLDER` unpacks it; the vmlinux is in usr/lib/debug"),
    ),
    (
        b"\xed\xab\xee\xdb",
        ForeignKind("an RPM package", "`rpm2cpio PACKAGE | cpio -id` unpacks it; the vmlinux is in usr/lib/debug"),
    ),
    (
        b"ProblemType:",
        ForeignKind("a report of apport (.crash)", "`apport-unpack FILE FOLDER` writes the VmCore that is in it"),
    ),
    (b"\xa8\x19\x01\x73\x61\x8f\x23\xfd", ForeignKind("a dump of an s390 machine", "orcdbg reads x86-64 kernels only")),
    (
        b"\x14\x20\x28\x01",
        ForeignKind(
            "the memory of a suspended Hyper-V guest (.vmrs)", "`vm2core` of azure-linux-utils makes an ELF core of it"
        ),
    ),
    (b"070701", ForeignKind("a cpio archive, as initrd images are", "the kernel is the vmlinuz beside it")),
)

_SYSTEM_MAP = re.compile(rb"[0-9a-f]{8,16} [A-Za-z] [^\s]+\n")
_PE_OFFSET = 0x3C
_PE = b"PE\0\0"
# A stub's first sections; systemd's (.osrel, .cmdline, .uname) and everybody's (.linux, .initrd).
_UKI_SECTIONS = (b".linux\0", b".initrd\0", b".osrel\0", b".uname\0")
_SWAP_PAGE = 4096
_SWAP_MARKS = (b"SWAPSPACE2", b"S1SUSPEND\0", b"LINHIB0001")


def foreign_kind(head: bytes, size: int) -> ForeignKind | None:
    """What a file is that no reader knows; None where that is not known either.

    Args:
        head: its first bytes, up to a page.
        size: the file's.
    """
    if not size:
        return ForeignKind("an empty file", "the dump was not written: is the disk full that it was written to?")
    if not head.strip(b"\0"):
        return ForeignKind(
            "nothing but zeros at its start", "if it is a plain image of memory, give its physical address: FILE@0"
        )

    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if _SYSTEM_MAP.match(head):
        return ForeignKind(
            "a table of symbols (System.map or kallsyms)", "orcdbg needs the vmlinux, or the vmlinuz, of that kernel"
        )
    if is_tar(head):
        return ForeignKind("a tar archive", "unpack it, and give the file that is in it")
    if head[_SWAP_PAGE - 10 : _SWAP_PAGE] in _SWAP_MARKS:
        return ForeignKind("a swap area, perhaps with a hibernated system", "orcdbg does not read hibernation images")
    return _of_pe(head)


def _of_pe(head: bytes) -> ForeignKind | None:
    """Programs of UEFI: a kernel inside of one is found by who unpacks it."""
    if head[:2] != b"MZ":
        return None
    at = int.from_bytes(head[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if head[at : at + 4] != _PE:
        return None
    if any(name in head for name in _UKI_SECTIONS):
        return ForeignKind(
            "a unified kernel image (UKI)",
            "`objcopy -O binary --only-section=.linux FILE vmlinuz` takes the kernel out",
        )
    return ForeignKind("a program for UEFI or Windows", "a kernel with a UEFI stub is a vmlinuz; give that of /boot")
