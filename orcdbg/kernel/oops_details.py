"""What else is in a report of the kernel: whose build, registers, code, where the kernel was loaded, which modules?

Mirrors dump_stack_print_info() of lib/dump_stack.c, __show_regs() of arch/x86/kernel/process_64.c, show_opcodes() of
arch/x86/kernel/dumpstack.c, dump_kernel_offset() of arch/x86/kernel/setup.c and print_modules() of kernel/module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orcdbg.kernel.log import LogRecord
from orcdbg.kernel.oops import PrintedFrame, parse_frame

_MAX_SETS = 64
_MAX_CODE = 256
_MAX_LINE = 4096
_RELEASE = re.compile(r"CPU: \d+ .*?(?:Not tainted|Tainted: [A-Z ]+?) (\d+\.\d+\S*) (#\d\S*)(.*)$")
_TAINTED = re.compile(r"CPU: \d+ .*?Tainted: ([A-Z ]+?) \d+\.\d+")
_BUILD_ID = re.compile(r"(?<![0-9a-f])([0-9a-f]{40})(?![0-9a-f])")
_BANNER = re.compile(r"Linux version (\d+\.\d+\S*) ")
_OFFSET = re.compile(r"Kernel Offset: (?:0x([0-9a-f]{1,16}) from 0x([0-9a-f]{1,16})|(disabled))")
_MODULES = re.compile(r"Modules linked in:(.*)$")
_MODULE = re.compile(r"(\w{1,56})(?:\(([A-Z+-]{1,16})\))?$")
_UNLOADED = re.compile(r"\[last unloaded.*")
_RIP = re.compile(r"RIP: ([0-9a-f]{4}):(?:\[<([0-9a-f]{16})>\] {0,2})?(?:\[<[0-9a-f]{16}>\] )?(\S.*)?$")
_CODE = re.compile(r"Code: (.*)$")
_REGISTER = re.compile(
    r"\b(R[ABCD]X|R[SD]I|RBP|RSP|R\d\d|EFLAGS|CR[0234]|ORIG_RAX): ?(?:[0-9a-f]{4}:)?([0-9a-f]{8,16})\b"
)
_PLACED = re.compile(r"\[<([0-9a-f]{16})>\] (?:\? )?([A-Za-z_$][\w.$]*)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?! \[)")
_BARE = re.compile(r"0x([0-9a-f]{1,16})$")
_USER_SELECTOR = 3


@dataclass(frozen=True, slots=True)
class PrintedCode:
    """The bytes of a `Code:` line, and which of them the instruction at RIP begins with (None where none is marked)."""

    data: bytes
    marked: int | None


@dataclass(slots=True)
class PrintedRegisters:
    """The registers of one place.

    Attributes:
        line: the number of the line that begins with RIP.
        is_user: they are a program's.
        rip: the place by its name; None where the kernel had none.
        rip_address: the address, where it is printed.
        values: by their names in small letters.
        code: the bytes at RIP; None where they are not there.
        code_missing: the kernel says that it could not read them.
    """

    line: int
    is_user: bool
    rip: PrintedFrame | None
    rip_address: int | None
    values: dict[str, int] = field(default_factory=dict)
    code: PrintedCode | None = None
    code_missing: bool = False

    @property
    def is_nowhere(self) -> bool:
        """The CPU had gone to where no code is, or at least none that could be read."""
        return not self.is_user and (self.code_missing or self.rip is None or self.rip.address is not None)


@dataclass(frozen=True, slots=True)
class PrintedKernel:
    """Which kernel a text is of, as far as it says.

    Attributes:
        releases: all that it names.
        build_ids: likewise.
        version: `#1` and what stands behind it, of the last line that has it; empty without.
        banner: the whole line `Linux version ...`; empty without.
        taint: letters.
        offset: of KASLR: from what it would be, None where the text does not say; 0 is "disabled".
        places: (address, symbol, offset, size) of lines that have addresses.
        modules: flags by name.
    """

    releases: Sequence[str]
    build_ids: Sequence[str]
    version: str
    banner: str
    taint: str
    offset: int | None
    places: Sequence[tuple[int, str, int, int]]
    modules: Mapping[str, str]


def printed_kernel(records: Sequence[LogRecord]) -> PrintedKernel:
    """What the lines say of their kernel."""
    releases: dict[str, None] = {}
    build_ids: dict[str, None] = {}
    version = banner = taint = ""
    offset: int | None = None
    places: list[tuple[int, str, int, int]] = []
    modules: dict[str, str] = {}
    for record in records:
        if record.is_from_user_space:
            continue
        text = record.text.strip()[:_MAX_LINE]
        if found := _BANNER.match(text):
            releases[found[1]] = None
            banner = text
        elif found := _RELEASE.match(text):
            releases[found[1]] = None
            version = f"{found[2]}{found[3]}".strip()
            build_ids |= dict.fromkeys(_BUILD_ID.findall(found[3]))
            tainted = _TAINTED.match(text)
            taint = tainted[1].replace(" ", "") if tainted is not None else taint
        elif found := _OFFSET.match(text):
            offset = 0 if found[3] else int(found[1], 16)
        elif found := _MODULES.match(text):
            modules |= _modules(found[1])
        elif len(places) < _MAX_CODE:
            places += [(int(a, 16), name, int(o, 16), int(s, 16)) for a, name, o, s in _PLACED.findall(text)]
    return PrintedKernel(list(releases), list(build_ids), version, banner, taint, offset, places, modules)


def _modules(text: str) -> dict[str, str]:
    words = [_MODULE.match(word) for word in _UNLOADED.sub("", text).split()]
    return {word[1]: word[2] or "" for word in words if word is not None}


def printed_registers(records: Sequence[LogRecord]) -> list[PrintedRegisters]:
    """The sets of registers, in order; each begins with a line of RIP."""
    found: list[PrintedRegisters] = []
    for record in records:
        if record.is_from_user_space:
            continue
        text = record.text.strip()[:_MAX_LINE]
        if (rip := _RIP.match(text)) is not None:
            if len(found) >= _MAX_SETS:
                break
            found.append(_begin(record.seq, rip))
        elif found and (code := _CODE.match(text)) is not None:
            if found[-1].code is None:
                found[-1].code = parse_code(code[1])
                found[-1].code_missing = found[-1].code is None
        elif found:
            for name, value in _REGISTER.findall(text):
                found[-1].values.setdefault(name.lower(), int(value, 16))
    return found


def _begin(number: int, rip: re.Match[str]) -> PrintedRegisters:
    is_user = int(rip[1], 16) & _USER_SELECTOR == _USER_SELECTOR
    rest = rip[3] or ""
    bare = _BARE.match(rest)
    address = int(rip[2], 16) if rip[2] else int(bare[1], 16) if bare is not None else None
    return PrintedRegisters(number, is_user, None if is_user else parse_frame(rest), address)


def parse_code(text: str) -> PrintedCode | None:
    """The bytes behind `Code:`; None where the kernel says that it could not read them."""
    data = bytearray()
    marked = None
    for word in text.split()[:_MAX_CODE]:
        found = re.fullmatch(r"([<(]?)([0-9a-f]{2})[>)]?", word)
        if found is None:
            return None if not data else PrintedCode(bytes(data), marked)
        if found[1]:
            marked = len(data)
        data.append(int(found[2], 16))
    return PrintedCode(bytes(data), marked) if data else None
