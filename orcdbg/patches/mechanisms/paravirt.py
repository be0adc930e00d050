"""What did the boot write at each paravirt call site: .parainstructions and the pointers in pv_ops?

Mirrors apply_paravirt() in arch/x86/kernel/alternative.c and native_patch() in paravirt_patch.c of 5.10, and
paravirt_patch() of 6.1. Later kernels have no such table: their paravirt calls are alternatives.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.nops import NopTable
from orcdbg.patches.tables import check_entries

_SECTION = ".parainstructions"
STRIDE = 16  # bytes of an entry
_ENTRY = np.dtype(
    {"names": ["site", "type", "size"], "formats": ["<u8", "u1", "u1"], "offsets": [0, 8, 9], "itemsize": 16}
)
_CALL_ABSOLUTE = b"\xff\x14\x25"
_JUMP_ABSOLUTE = b"\xff\x24\x25"

# Instructions that 5.10 puts in place of a call when pv_ops.init.patch is native_patch.
_INLINE = {
    "irq.save_fl": "9c58",
    "irq.restore_fl": "579d",
    "irq.irq_enable": "fb",
    "irq.irq_disable": "fa",
    "mmu.read_cr2": "0f20d0",
    "mmu.read_cr3": "0f20d8",
    "mmu.write_cr3": "0f22df",
    "cpu.wbinvd": "0f09",
}
_INLINE_IF_NATIVE = {
    "lock.queued_spin_unlock": ("__raw_callee_save___native_queued_spin_unlock", "c60700"),
    "lock.vcpu_is_preempted": ("__raw_callee_save___native_vcpu_is_preempted", "31c0"),
}

_SAMPLED = 64  # entries looked at to tell the generation; damaged ones may name no text


class ParavirtPass:
    """`apply_paravirt()` as a replay pass.

    Args:
        linux: the kernel.
        built: text as built, to tell the two generations by the instruction at the sites.
        table: `.parainstructions`, addresses already at run time when `slide` is 0.
        slide: what the boot adds to the site addresses.
        nops: the kernel's NOPs.
    """

    mechanism = "paravirt"
    table = _SECTION

    def __init__(self, linux: Linux, built: AddressSpace, table: bytes, slide: int, nops: NopTable | None) -> None:
        self._linux = linux
        self._nops = nops
        check_entries(_SECTION, len(table) // STRIDE)
        # The last entry may lack its padding: ten bytes of it count.
        padded = table + bytes(-len(table) % STRIDE if len(table) % STRIDE >= 10 else 0)
        rows = np.frombuffer(padded[: len(padded) // STRIDE * STRIDE], dtype=_ENTRY)
        rows = rows[rows["size"] > 0]
        self._types = rows["type"]
        self._spans = make_spans(rows["site"] + np.uint64(slide), rows["size"])
        self.inlines = _uses_absolute_calls(built, self._spans.starts[:_SAMPLED].tolist())

    def spans(self) -> Spans:
        """Call sites in table order."""
        return self._spans

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        """`irq.save_fl` and the like, by index of the pointer inside pv_ops."""
        types, names = self._linux.types, {}
        for group, at in types.members("paravirt_patch_template").items():
            for member, inner in types.members(f"pv_{group}_ops").items():
                names[(at.offset + inner.offset) // 8] = f"{group}.{member}"
        return names

    @functools.cached_property
    def _native(self) -> bool:
        """True when the hypervisor's own patch function, if there is one, does what native_patch does."""
        try:
            offset = self._linux.types.offset("paravirt_patch_template", "init.patch")
            pointer = read_u64(self._linux.memory, self._linux.address("pv_ops") + offset)
        except NotFound:
            return True
        return pointer == self._linux.find_address("native_patch")

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Replays site `index`."""
        site, size = int(self._spans.starts[index]), int(self._spans.sizes[index])
        number = int(self._types[index])
        name = self._names.get(number, f"pv_ops[{number}]")
        try:
            pointer = read_u64(self._linux.memory, self._linux.address("pv_ops") + 8 * number)
            code, why = self._code(name, pointer, site)
        except MemoryFault as error:
            raise Undecidable(f"pv_ops.{name} is not in the snapshot: {error}") from error
        if self._nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        padding = self._nops.fill(size - len(code)) if self.inlines else b"\x90" * (size - len(code))
        if not code and not self.inlines:
            padding = self._nops.fill(size)
        text.write(site, (code + padding)[:size])
        return Applied(name, why)

    def _code(self, name: str, pointer: int, site: int) -> tuple[bytes, str]:
        """The instruction for one pointer, and why in words."""
        target = self._linux.symbols.at(pointer - self._linux.slide) if pointer else None
        why = f"pv_ops.{name} = {target.symbol.name if target else hex(pointer)}"
        if self.inlines and self._native:
            inline = self._inline(name, pointer)
            if inline is not None:
                return inline, why
        return self._call(name, pointer, site), why

    def _inline(self, name: str, pointer: int) -> bytes | None:
        if name in _INLINE:
            return bytes.fromhex(_INLINE[name])
        native, code = _INLINE_IF_NATIVE.get(name, ("", ""))
        return bytes.fromhex(code) if native and pointer == self._linux.find_address(native) else None

    def _call(self, name: str, pointer: int, site: int) -> bytes:
        if pointer == self._linux.find_address("_paravirt_nop"):
            return b""
        if self.inlines and pointer == 0:
            return b"\x0f\x0b"
        if self.inlines and pointer == self._linux.find_address("_paravirt_ident_64"):
            return b"\x48\x89\xf8"
        target = pointer or self._linux.address("paravirt_BUG")
        opcode = b"\xe9" if name == "cpu.iret" else b"\xe8"
        return opcode + (target - site - 5 & 0xFFFF_FFFF).to_bytes(4, "little")


def _uses_absolute_calls(built: AddressSpace, sites: list[int]) -> bool:
    """True for the generation that patches instructions in itself: its sites are `call *abs32`, later `call *rip-relative`."""
    for site in sites:
        try:
            return built.read(site, 3) in (_CALL_ABSOLUTE, _JUMP_ABSOLUTE)
        except MemoryFault:
            continue
    return False


def _passes(build: Build, earlier: Sequence[PatchPass] = ()) -> list[ParavirtPass]:
    table = build.image.section_data(_SECTION)
    return [ParavirtPass(build.linux, build.built, table, build.unmoved, build.nops)] if table else []


def writes_instructions(build: Build) -> bool:
    """Whether this kernel's boot writes instructions at paravirt sites itself (to 5.11), rather than calls.

    Raises:
        UnsupportedFormat: the table cannot be read.
    """
    return any(each.inlines for each in _passes(build))


PARAVIRT = Mechanism(ParavirtPass.mechanism, _passes, (_SECTION,), moves_stack=True)
