"""How long is each instruction of a patch site, and where does its text say so?

Capstone decodes; what it does not know, but kernels put into alternatives, is listed here (lengths checked against
binutils' objdump). Capstone itself is imported by the first decoding, since most walks need none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from orcdbg.base.sizes import U64

if TYPE_CHECKING:
    import capstone

# Two-byte-opcode group 0f 01 with a register form, e.g. CLAC, WRMSRNS, ERETS, is always three bytes; capstone 5 knows some.
_PREFIXES = b"\x66\xf2\xf3\x2e\x3e\x26\x64\x65\x36"
_GROUP_7 = b"\x0f\x01"
_UD1 = b"\x0f\xb9"  # with a modrm byte, which capstone 5 takes for the next instruction; WARN has it since 7.0


class Operand(NamedTuple):
    """A four-byte immediate or displacement inside an instruction: where it is, and whether it counts from the next one."""

    offset: int
    relative: bool


class Instruction(NamedTuple):
    """One decoded instruction; `target` is where a direct branch or call goes, `sp_change` how many bytes it pushes.

    `sp_change` is None when the stack pointer afterwards cannot be told from the instruction alone.
    """

    address: int
    size: int
    raw: bytes
    mnemonic: str
    operands: str
    target: int | None
    sp_change: int | None
    ends_flow: bool
    is_call: bool
    is_conditional: bool

    @property
    def end(self) -> int:
        """Address of the next instruction."""
        return self.address + self.size

    @property
    def text(self) -> str:
        """Mnemonic and operands."""
        return f"{self.mnemonic} {self.operands}".strip()


class NamedAddress(NamedTuple):
    """An address that an instruction's operand names; `is_per_cpu` where it counts from the CPU's base (%gs)."""

    address: int
    is_per_cpu: bool


class MemoryOperand(NamedTuple):
    """Memory at `segment: base + times * scale + displacement`; a part that is missing is None.

    `base` is `rip` where the operand counts from the next instruction. An operand that is neither read nor written, as that of
    `lea`, has neither flag.
    """

    base: str | None
    times: str | None
    scale: int
    displacement: int
    segment: str | None
    size: int
    is_read: bool
    is_written: bool

    def address(self, registers: Mapping[str, int], end: int) -> int | None:
        """Where it is.

        Args:
            registers: values before the instruction, `gs` and `fs` their bases.
            end: of the instruction.

        Returns:
            None where a register of it is not known.
        """
        total = self.displacement
        for name, factor in ((self.base, 1), (self.times, self.scale), (self.segment, 1)):
            if name is None:
                continue
            value = end if name == "rip" else registers.get(name)
            if value is None:
                return None
            total += value * factor
        return total & U64


class Outlined(NamedTuple):
    """An instruction as `outline` sees it: `size` in bytes, and its words in AT&T syntax."""

    address: int
    size: int
    mnemonic: str
    operands: str

    @property
    def end(self) -> int:
        """Address of the next instruction."""
        return self.address + self.size


class _Decoder:
    """Capstone with the tables that read its answers."""

    def __init__(self) -> None:
        import capstone
        from capstone import x86

        self.x86 = x86
        self.engine: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.engine.detail = True
        self.engine.syntax = capstone.CS_OPT_SYNTAX_ATT
        self.fixed_change = {
            x86.X86_INS_PUSH: 8,
            x86.X86_INS_PUSHFQ: 8,
            x86.X86_INS_POP: -8,
            x86.X86_INS_POPFQ: -8,
            x86.X86_INS_RET: -8,
            x86.X86_INS_CALL: 0,
            x86.X86_INS_SYSCALL: 0,
            x86.X86_INS_INT3: 0,
        }
        self.ends = {
            x86.X86_INS_RET,
            x86.X86_INS_JMP,
            x86.X86_INS_IRETQ,
            x86.X86_INS_IRET,
            x86.X86_INS_UD2,
            x86.X86_INS_INT3,
            x86.X86_INS_SYSRET,
            x86.X86_INS_LJMP,
        }
        self.masks = {x86.X86_INS_AND, x86.X86_INS_OR, x86.X86_INS_XOR, x86.X86_INS_TEST}
        self.branches = {x86.X86_GRP_JUMP, x86.X86_GRP_CALL, x86.X86_GRP_BRANCH_RELATIVE}

    def first(self, raw: bytes, address: int) -> capstone.CsInsn | None:
        """What capstone makes of the first instruction in `raw`."""
        return next(self.engine.disasm(raw[:15], address, 1), None)

    def sp_change(self, insn: capstone.CsInsn) -> int | None:
        """Bytes that an instruction pushes; negative when it pops; None when it sets rsp to something else."""
        x86: Any = self.x86
        operands = insn.operands
        if insn.id in (x86.X86_INS_PUSH, x86.X86_INS_POP) and insn.prefix[2] == 0x66:
            return None
        if insn.id == x86.X86_INS_POP and operands[0].type == x86.X86_OP_REG and operands[0].reg == x86.X86_REG_RSP:
            return None
        if insn.id in self.fixed_change:
            return self.fixed_change[insn.id]
        accessed: Any = insn.regs_access()
        if x86.X86_REG_RSP not in accessed[1]:
            return 0
        if insn.id in (x86.X86_INS_ADD, x86.X86_INS_SUB) and operands[0].type == x86.X86_OP_IMM:
            return int(operands[0].imm) * (1 if insn.id == x86.X86_INS_SUB else -1)
        if insn.id == x86.X86_INS_LEA and operands[0].mem.base == x86.X86_REG_RSP and not operands[0].mem.index:
            return -int(operands[0].mem.disp)
        return None

    def direct_target(self, insn: capstone.CsInsn) -> int | None:
        """Where a direct branch or call goes."""
        if not set(insn.groups) & self.branches:
            return None
        first = insn.operands[0] if insn.operands else None
        return int(first.imm) & U64 if first is not None and first.type == self.x86.X86_OP_IMM else None

    def convert(self, insn: capstone.CsInsn) -> Instruction:
        """An instruction in the terms of this module."""
        return Instruction(
            insn.address,
            insn.size,
            bytes(insn.bytes),
            insn.mnemonic,
            insn.op_str,
            self.direct_target(insn),
            self.sp_change(insn),
            insn.id in self.ends,
            insn.id == self.x86.X86_INS_CALL,
            self.x86.X86_GRP_JUMP in insn.groups and insn.id not in self.ends,
        )

    def wide_operands(self, insn: capstone.CsInsn) -> list[Operand]:
        """The four-byte displacements of an instruction, and its four-byte immediate if that stands for 64 bits."""
        encoding, found = insn.encoding, []
        # In 64-bit mode a displacement has one byte or four. capstone says two where a prefix makes the operand that wide.
        if encoding.disp_offset and encoding.disp_size in (2, 4):
            kinds = self.x86.X86_OP_MEM, self.x86.X86_REG_RIP
            relative = any(o.type == kinds[0] and o.mem.base == kinds[1] for o in insn.operands)
            found.append(Operand(encoding.disp_offset, relative))
        if encoding.imm_offset and encoding.imm_size == 4:
            relative = self.direct_target(insn) is not None
            # Only as 64 bits, sign-extended, can it be an address of the kernel: 32 bits are a number, and masks are too.
            is_long = insn.id not in self.masks and any(
                o.type == self.x86.X86_OP_IMM and o.size == 8 for o in insn.operands
            )
            if relative or is_long:
                found.append(Operand(encoding.imm_offset, relative))
        return found


@functools.cache
def _decoder() -> _Decoder:
    return _Decoder()


def _group_7(raw: bytes, address: int) -> Instruction | None:
    """A register form of 0f 01: three bytes after its prefixes, whether or not capstone has a name for it."""
    start = 0
    while start < len(raw) and raw[start] in _PREFIXES:
        start += 1
    if raw[start : start + 2] != _GROUP_7 or len(raw) < start + 3 or raw[start + 2] < 0xC0:
        return None
    size = start + 3
    if raw[start + 2] == 0xCA and raw[start - 1 : start] in (b"\xf2", b"\xf3"):
        name = "erets" if raw[start - 1] == 0xF2 else "eretu"  # capstone 5 reads CLAC
        return Instruction(address, size, raw[:size], name, "", None, None, True, False, False)
    named = _decoder().first(raw[:size], address)
    name = named.mnemonic if named is not None and named.size == size else "(0f 01 group)"
    return Instruction(address, size, raw[:size], name, "", None, 0, False, False, False)


def _ud1_size(raw: bytes) -> int | None:
    """Bytes of a UD1 at the start of `raw`, its operand included; None where there is none."""
    start = 0
    while start < len(raw) and (raw[start] in _PREFIXES or raw[start] == 0x67):
        start += 1
    start += start < len(raw) and raw[start] & 0xF0 == 0x40
    if raw[start : start + 2] != _UD1 or len(raw) < start + 3:
        return None
    mode, rest = raw[start + 2] >> 6, raw[start + 2] & 7
    size = start + 3 + (0, 1, 4, 0)[mode]
    if mode != 3 and rest == 4:  # an SIB byte, of which a base of 5 means four bytes more where mode is 0
        size += 1 + (4 if mode == 0 and raw[start + 3 : start + 4] and raw[start + 3] & 7 == 5 else 0)
    elif mode == 0 and rest == 5:
        size += 4
    return size if size <= len(raw) else None


def decode_one(raw: bytes, address: int) -> Instruction | None:
    """The instruction at the start of `raw`; None where the bytes are none."""
    known = _group_7(raw[:15], address)
    if known is not None:
        return known
    found = _decoder().first(raw, address)
    if found is None:
        return None
    size = _ud1_size(raw[:15]) if found.mnemonic == "ud1" else None
    insn = _decoder().convert(found)
    return insn if size is None else insn._replace(size=size, raw=raw[:size], operands="")


def decode(raw: bytes, address: int) -> Iterator[Instruction]:
    """The instructions in `raw`, one after another, up to the first that cannot be decoded."""
    offset = 0
    while offset < len(raw):
        found = decode_one(raw[offset : offset + 15], address + offset)
        if found is None:
            return
        yield found
        offset += found.size


def wide_operands(raw: bytes, address: int) -> list[Operand]:
    """The four-byte immediates and displacements of the instruction at the start of `raw`."""
    found = _decoder().first(raw, address)
    return [] if found is None else _decoder().wide_operands(found)


def references(raw: bytes, address: int) -> list[NamedAddress]:
    """The addresses in the operands of the instruction at the start of `raw`, but for a direct branch's target.

    That of an immediate is any number of 64 bits, so the caller asks what is there.
    """
    decoder = _decoder()
    found = decoder.first(raw, address)
    if found is None or decoder.direct_target(found) is not None:
        return []
    x86: Any = decoder.x86
    references = []
    for operand in found.operands:
        if operand.type == x86.X86_OP_IMM and operand.size == 8:
            references.append(NamedAddress(int(operand.imm) & U64, False))
        elif operand.type == x86.X86_OP_MEM and operand.mem.base in (0, x86.X86_REG_RIP):
            base = address + found.size if operand.mem.base else 0
            references.append(NamedAddress(base + int(operand.mem.disp) & U64, operand.mem.segment == x86.X86_REG_GS))
    return references


_DECIMAL = re.compile(r"\([^)]*\)|(?<![\w%.])(\$?-?)(\d+)(?!\w)")


def in_hexadecimal(operands: str) -> str:
    """Operands with their small numbers, which capstone writes in decimal, in hexadecimal; scales stay as they are."""

    def number(match: re.Match[str]) -> str:
        return match[0] if match[2] is None else f"{match[1]}{int(match[2]):#x}"

    return _DECIMAL.sub(number, operands)


@functools.cache
def _whole_registers() -> dict[int, str]:
    """The 64-bit general register that each part of one belongs to, by capstone's number of the part."""
    x86: Any = _decoder().x86
    parts: dict[str, tuple[str, ...]] = {
        f"r{name}": (f"r{name}", f"e{name}", name) for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
    }
    parts |= {f"r{name}x": (*parts[f"r{name}x"], f"{name}l", f"{name}h") for name in "abcd"}
    parts |= {f"r{name}": (*parts[f"r{name}"], f"{name}l") for name in ("si", "di", "bp", "sp")}
    parts |= {f"r{n}": (f"r{n}", f"r{n}d", f"r{n}w", f"r{n}b") for n in range(8, 16)}
    return {getattr(x86, f"X86_REG_{part.upper()}"): whole for whole, names in parts.items() for part in names}


@functools.lru_cache(maxsize=1 << 13)
def written_registers(raw: bytes) -> frozenset[str] | None:
    """The general registers that the instruction at the start of `raw` writes, a part counting as the whole.

    None where capstone does not know the instruction. Where it lies makes no difference, and functions repeat one another:
    a few thousand contents are kept.
    """
    found = _decoder().first(raw, 0)
    if found is None:
        return None
    whole = _whole_registers()
    accessed: Any = found.regs_access()
    return frozenset(whole[number] for number in accessed[1] if number in whole)


# A segment register without a base of its own adds nothing in 64-bit mode.
_BASED_SEGMENTS = ("fs", "gs")


def memory_operands(raw: bytes, address: int) -> list[MemoryOperand]:
    """The memory operands of the instruction at the start of `raw`: those that are written down, and the stack is not.

    `operands.py` reads what is written; this asks the decoder, which also knows sizes, and which side an operand is on. None
    where the instruction is not known.
    """
    decoder = _decoder()
    found = decoder.first(raw, address)
    if found is None:
        return []
    x86: Any = decoder.x86
    found_operands = []
    for operand in found.operands:
        if operand.type != x86.X86_OP_MEM:
            continue
        names = [found.reg_name(number) if number else None for number in (operand.mem.base, operand.mem.index)]
        segment = found.reg_name(operand.mem.segment) if operand.mem.segment else None
        is_address = found.id in (x86.X86_INS_LEA, x86.X86_INS_NOP)
        found_operands.append(
            MemoryOperand(
                names[0],
                names[1],
                int(operand.mem.scale),
                int(operand.mem.disp),
                segment if segment in _BASED_SEGMENTS else None,
                int(operand.size),
                bool(operand.access & _READ) and not is_address,
                bool(operand.access & _WRITE) and not is_address,
            )
        )
    return found_operands


_READ, _WRITE = 1, 2  # CS_AC_READ, CS_AC_WRITE


@functools.cache
def _brief() -> Any:
    import capstone

    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    return engine


def outline(raw: bytes, address: int) -> Iterator[tuple[int, int, str, str]]:
    """The instructions in `raw`, up to the first that capstone does not know, without what they do: see `Outlined`.

    Many times quicker than `decode`: for looking through whole functions. That is also why they are plain tuples: a named one
    for each took 11 ms instead of 8 for 64 KiB of text.
    """
    offset: int | None = 0
    while offset is not None:
        begin, offset = offset, None
        for insn in _brief().disasm_lite(raw[begin:], address + begin):
            place = insn[0] - address
            size = _ud1_size(raw[place : place + 15]) if insn[2].startswith("ud1") else None
            if size is not None and size != insn[1]:
                yield insn[0], size, insn[2], ""
                offset = place + size
                break
            yield insn
