"""What did the boot write at each paravirt call site: .parainstructions and the pointers in pv_ops?

Mirrors apply_paravirt() in arch/x86/kernel/alternative.c and native_patch() in paravirt_patch.c of 4.14 to 5.11, and
paravirt_patch() of 6.1. Later kernels have no such table: their paravirt calls are alternatives.

`struct paravirt_patch_template` says which pointer a number means. Until 4.19 it was only the plan of several variables,
`pv_irq_ops` and its siblings; 4.20 made one variable of them, `pv_ops` (5c83511bdb98).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.tables import check_entries
from orcdbg.x86.instructions import decode

_SECTION = ".parainstructions"
STRIDE = 16  # bytes of an entry
_ENTRY = np.dtype(
    {
        "names": ["site", "type", "size", "clobbers"],
        "formats": ["<u8", "u1", "u1", "<u2"],
        "offsets": [0, 8, 9, 10],
        "itemsize": 16,
    }
)
_CALL_ABSOLUTE = b"\xff\x14\x25"
_JUMP_ABSOLUTE = b"\xff\x24\x25"

# Instructions that 5.3 to 5.11 put in place of a call when pv_ops.init.patch is native_patch (fb2af07110ce).
_INLINE = {
    "irq.save_fl": "9c58",
    "irq.restore_fl": "579d",
    "irq.irq_enable": "fb",
    "irq.irq_disable": "fa",
    "mmu.read_cr2": "0f20d0",
    "mmu.read_cr3": "0f20d8",
    "mmu.write_cr3": "0f22df",
    "cpu.wbinvd": "0f09",
    "cpu.swapgs": "0f01f8",
    "cpu.usergs_sysret64": "0f01f8480f07",
}
_INLINE_IF_NATIVE = {
    "lock.queued_spin_unlock": ("__raw_callee_save___native_queued_spin_unlock", "c60700"),
    "lock.vcpu_is_preempted": ("__raw_callee_save___native_vcpu_is_preempted", "31c0"),
}
# Before, the instructions were assembled between two labels, and in which functions' cases they are used follows from those.
_START, _END = "start_", "end_"
_MAX_INLINE = 16
_JUMPS = ("cpu.iret", "cpu.usergs_sysret64")
# What a function of one argument that does nothing becomes; the second and _paravirt_ident_32 are gone since 5.1.
_IDENTITIES = {"_paravirt_ident_64": "4889f8", "_paravirt_ident_32": "89f8"}

# What a function may change unless it saves registers itself: CLBR_ANY, the nine that callers must save.
_ANY_CLOBBERS = 0x1FF
_MAX_PATCH_CALL = 256

_SAMPLED = 64  # entries looked at to tell the generation; damaged ones may name no text


class _Operation(NamedTuple):
    """A pointer through which sites call.

    Attributes:
        name: `irq.save_fl` and the like.
        label: what the labels around its instruction end in; empty where there are none.
        variable: its name for people.
        place: where it lies, at run time; None where the kernel has no such variable.
    """

    name: str
    label: str
    variable: str
    place: int | None

    @property
    def shown(self) -> str:
        """The name that a site has: without its variable only where that is `pv_ops`."""
        return self.name if self.variable.startswith("pv_ops") else self.variable


class ParavirtPass:
    """`apply_paravirt()` as a replay pass.

    Args:
        linux: the kernel.
        built: text as built, to tell the two generations by the instruction at the sites.
        table: `.parainstructions`, addresses already at run time when `slide` is 0.
        slide: what the boot adds to the site addresses.
        nops: the kernel's NOPs.
        kernel: the kernel's own text as built, at link addresses, which the sites may be a module's beside.
    """

    mechanism = "paravirt"
    table = _SECTION

    def __init__(
        self,
        linux: Linux,
        built: AddressSpace,
        table: bytes,
        slide: int,
        nops: NopTable | None,
        kernel: AddressSpace,
    ) -> None:
        self._linux = linux
        self._kernel = kernel
        self._nops = nops
        check_entries(_SECTION, len(table) // STRIDE)
        # The last entry may lack its padding: ten bytes of it count.
        padded = table + bytes(-len(table) % STRIDE if len(table) % STRIDE >= 10 else 0)
        rows = np.frombuffer(padded[: len(padded) // STRIDE * STRIDE], dtype=_ENTRY)
        rows = rows[rows["size"] > 0]
        self._types = rows["type"]
        self._clobbers = rows["clobbers"]
        self._spans = make_spans(rows["site"] + np.uint64(slide), rows["size"])
        self.inlines = _uses_absolute_calls(built, self._spans.starts[:_SAMPLED].tolist())

    def spans(self) -> Spans:
        """Call sites in table order."""
        return self._spans

    @functools.cached_property
    def _operations(self) -> dict[int, _Operation]:
        """The pointers by the numbers that sites have of them."""
        linux, found = self._linux, {}
        whole = linux.find_address("pv_ops")
        for group, at in linux.types.members("paravirt_patch_template").items():
            is_variable = group.startswith("pv_")
            start = linux.find_address(group) if is_variable else None if whole is None else whole + at.offset
            for offset, member in _words(linux, group if is_variable else f"pv_{group}_ops"):
                place = None if start is None else start + offset
                names = f"{group.removeprefix('pv_').removesuffix('_ops')}.{member}", f"{group}_{member}"
                variable = f"{group if is_variable else f'pv_ops.{group}'}.{member}"
                found[(at.offset + offset) // 8] = _Operation(*names, variable, place)
        return found

    def _operation(self, number: int) -> _Operation:
        """The pointer of a number; one of no name where the kernel's types do not know it."""
        known = self._operations.get(number)
        if known is not None:
            return known
        whole = self._linux.find_address("pv_ops")
        name = f"pv_ops[{number}]"
        return _Operation(name, "", name, None if whole is None else whole + 8 * number)

    @functools.cached_property
    def _native(self) -> bool:
        """True when the hypervisor's own patch function, if there is one, does what native_patch does."""
        place = next((each.place for each in self._operations.values() if each.name == "init.patch"), None)
        return place is None or read_u64(self._linux.memory, place) == self._linux.find_address("native_patch")

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Replays site `index`."""
        site, size = int(self._spans.starts[index]), int(self._spans.sizes[index])
        operation = self._operation(int(self._types[index]))
        if operation.place is None:
            raise Undecidable(f"{operation.variable} is not among the kernel's variables")
        try:
            pointer = read_u64(self._linux.memory, operation.place)
            code, why = self._code(operation, pointer, site)
            if code[:1] == b"\xe8" and self._is_spared(index):
                return None
        except MemoryFault as error:
            raise Undecidable(f"{operation.variable} is not in the snapshot: {error}") from error
        if self._nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        if len(code) > size:
            return None  # it does not fit, and the call stays as built
        padding = self._nops.fill(size - len(code)) if self.inlines else b"\x90" * (size - len(code))
        if not code and not self.inlines:
            padding = self._nops.fill(size)
        text.write(site, code + padding)
        return Applied(operation.shown, why)

    def _code(self, operation: _Operation, pointer: int, site: int) -> tuple[bytes, str]:
        """The instruction for one pointer, and why in words."""
        target = self._linux.symbols.at(pointer - self._linux.slide) if pointer else None
        why = f"{operation.variable} = {target.symbol.name if target else hex(pointer)}"
        if self.inlines and self._native:
            inline = self._inline(operation, pointer)
            if inline is not None:
                return inline, why
        return self._call(operation.name, pointer, site), why

    def _inline(self, operation: _Operation, pointer: int) -> bytes | None:
        """The instruction that native_patch() puts in place of the call, None where it leaves it a call."""
        native, code = _INLINE_IF_NATIVE.get(operation.name, ("", ""))
        if native and pointer != self._linux.find_address(native):
            return None
        assembled = self._assembled(operation)
        if assembled is not None:
            return assembled
        code = code or _INLINE.get(operation.name, "")
        return bytes.fromhex(code) if code else None

    def _assembled(self, operation: _Operation) -> bytes | None:
        """The instruction between the labels that 5.2 and earlier have for it, None where the kernel has no such labels."""
        start = self._linux.find_address(_START + operation.label) if operation.label else None
        end = self._linux.find_address(_END + operation.label) if operation.label else None
        if start is None or end is None or not 0 < end - start <= _MAX_INLINE:
            return None
        return self._kernel.read(start - self._linux.slide, end - start)

    def _is_spared(self, index: int) -> bool:
        """Whether a site keeps its indirect call, since it says that some of the registers must live through that."""
        return self.inlines and bool(_ANY_CLOBBERS & ~int(self._clobbers[index])) and self._minds_clobbers

    @functools.cached_property
    def _minds_clobbers(self) -> bool:
        """Whether paravirt_patch_call() leaves a call alone for the registers it may change.

        It did before 4.19 (5800dc5c19f3, which stable kernels have too): `target & ~site` is all that its code has a NOT for.
        """
        function = self._linux.symbols.find("paravirt_patch_call")
        if function is None or not 0 < function.size <= _MAX_PATCH_CALL:
            return False
        code = self._kernel.read(function.address, function.size)
        return any(insn.mnemonic.startswith("not") for insn in decode(code, function.address))

    def _call(self, name: str, pointer: int, site: int) -> bytes:
        if pointer == self._linux.find_address("_paravirt_nop"):
            return b""
        if self.inlines and pointer == 0:
            return b"\x0f\x0b"
        if self.inlines:
            for function, code in _IDENTITIES.items():
                if pointer == self._linux.find_address(function):
                    return bytes.fromhex(code)
        target = pointer or self._linux.address("paravirt_BUG")
        opcode = b"\xe9" if name in _JUMPS else b"\xe8"
        return opcode + (target - site - 5 & 0xFFFF_FFFF).to_bytes(4, "little")


def _words(linux: Linux, struct: str) -> Iterator[tuple[int, str]]:
    """Offset and name of each pointer in a structure; `lazy_mode` holds three, and the later ones have no name here."""
    members = linux.types.members(struct)
    for name, member in members.items():
        yield member.offset, name
        for more in range(8, linux.types.size_of_member(struct, name), 8):
            yield member.offset + more, f"{name}+{more}"


def _uses_absolute_calls(built: AddressSpace, sites: list[int]) -> bool:
    """True for the generation that patches instructions in itself: its sites are `call *abs32`, later `call *rip-relative`.

    In it too the few sites of entry code, which may be the first ones, are relative to rip, as 5.4 shows.
    """
    return any(_read(built, site) in (_CALL_ABSOLUTE, _JUMP_ABSOLUTE) for site in sites)


def _read(built: AddressSpace, site: int) -> bytes:
    try:
        return built.read(site, 3)
    except MemoryFault:
        return b""


def _passes(build: Build, earlier: Sequence[PatchPass] = ()) -> list[ParavirtPass]:
    table = build.image.section_data(_SECTION)
    if not table:
        return []
    return [ParavirtPass(build.linux, build.built, table, build.unmoved, build.nops, build.kernel_image)]


def writes_instructions(build: Build) -> bool:
    """Whether this kernel's boot writes instructions at paravirt sites itself (to 5.11), rather than calls.

    Raises:
        UnsupportedFormat: the table cannot be read.
    """
    return any(each.inlines for each in _passes(build))


PARAVIRT = Mechanism(ParavirtPass.mechanism, _passes, (_SECTION,), moves_stack=True)
