"""Which rules hold where a kernel under Xen and the hypervisor hand over to each other?

**The page of hypercalls** (to 6.12). As built each stub is a return, with a row for its first byte only
(arch/x86/xen/xen-head.S). What Xen put there pushes registers, so a CPU that waits for the hypervisor is behind the `syscall`
with more on its stack than any row says.

**Entries and the way back** of a paravirtualised kernel. Xen pushes what the CPU pushes for an interrupt, then rcx and r11;
the kernel pops these and jumps to the code that other machines begin at (xen_pv_trap and xen_entry_SYSCALL_64,
arch/x86/xen/xen-asm.S). It ends by a hypercall that is given the same words (xen_iret). The rows say "end of stack" here.
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Location
from orcdbg.kernel.xen import (
    HYPERCALL_IRET,
    HYPERCALL_PAGE,
    HYPERCALL_STUB,
    HYPERCALLS,
    XenDomain,
    is_xen_pv,
    xen_domain,
)
from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.effective import Derived, Effective, Source
from orcdbg.orc.reasons import BesideXen, InsideHypercall
from orcdbg.orc.rows import FUNCTION_ENTRY, OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.source import Lookup, StatedRows
from orcdbg.patches.code import Code
from orcdbg.x86.stack_effects import Boundary, stack_boundaries

_RETURN_ADDRESS, _FLAGS = 8, 8
# The words of an interrupt, which an interrupted program or kernel function is continued with. The stub of `iret` is jumped to,
# and is given a word of flags below them (struct iret_context, xen/include/public/arch-x86/xen-x86_64.h).
_WORDS = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS_PARTIAL, True)
_ENTRIES, _SYSCALLS, _EXIT = ("xen_asm_", "xen_entry_"), "xen_entry_SYSCALL_", "xen_iret"
_POPPED = 16  # rcx and r11
_JUMP, _JUMP_SIZE = 0xE9, 5
_LONGEST = 64  # bytes that none of these functions is longer than


class InsideHypercallStubs:
    """The instructions of the stubs that Xen wrote.

    Args:
        linux: the kernel, over memory as it was.
    """

    def __init__(self, linux: Linux) -> None:
        self._memory = linux.memory
        page = linux.find_address(HYPERCALL_PAGE)
        self._page = None if page is None or xen_domain(linux) in (None, XenDomain.NATIVE) else page

    def at(self, lookup: Lookup) -> Effective | None:
        """The rule where a CPU is inside a stub; none returns into one, since they call nothing but the hypervisor."""
        if self._page is None or not lookup.exact:
            return None
        number, offset = divmod(lookup.ip - self._page, HYPERCALL_STUB)
        if not 0 <= number < HYPERCALLS:
            return None

        start = lookup.ip - offset
        try:
            boundary = stack_boundaries(self._memory.read(start, HYPERCALL_STUB), start).get(lookup.ip)
        except MemoryFault:
            return None
        if boundary is None or boundary.pushed is None:
            return None

        is_iret = number == HYPERCALL_IRET
        rule = sp_rule(boundary.pushed + (_FLAGS if is_iret else _RETURN_ADDRESS))
        return Derived(
            lookup.entry,
            rule,
            _WORDS if is_iret else FUNCTION_ENTRY,
            InsideHypercall(number),
            Source.TRAMPOLINE,
            tuple(insn.mnemonic for insn in boundary.path),
        )


class BesideHypervisor:
    """The first instructions that Xen begins, and the last ones before it takes over.

    Args:
        code: the kernel.
        stated: the rows as built.
    """

    def __init__(self, code: Code, stated: StatedRows) -> None:
        self._code = code
        self._stated = stated
        self._is_pv = is_xen_pv(code.linux)

    def at(self, lookup: Lookup) -> Effective | None:
        """Where the words of an interrupt are, for an address between Xen and the kernel's common code."""
        place = lookup.location if self._is_pv and lookup.exact else None
        if place is None or place.size > _LONGEST or not place.symbol.startswith((*_ENTRIES, _EXIT)):
            return None
        try:
            boundaries = stack_boundaries(self._code.memory.read(place.start, place.size), place.start)
            above = self._above(place, boundaries)
        except MemoryFault:
            return None
        here = boundaries.get(lookup.ip)
        if here is None or here.pushed is None or above is None:
            return None
        path = tuple(insn.mnemonic for insn in here.path)
        return Derived(lookup.entry, sp_rule(above + here.pushed), _WORDS, BesideXen(), Source.TRAMPOLINE, path)

    def _above(self, place: Location, boundaries: dict[int, Boundary]) -> int | None:
        """How far above the stack pointer these words are at the first instruction; None where it is not known.

        Raises:
            MemoryFault: the text is not in the snapshot.
        """
        if place.symbol == _EXIT:
            return 0
        # The last of it is a jump, by which alone the code goes on.
        ends = [one.address for one in boundaries.values() if one.pushed == -_POPPED]
        targets = [target for end in ends if (target := self._jump_target(end)) is not None]
        if len(targets) != 1:
            return None
        if place.symbol.startswith(_SYSCALLS):
            return _POPPED
        entry, rule = self._stated.at(targets[0])
        is_words = entry is not None and entry.row.type is RowType.REGS_PARTIAL
        return _POPPED + rule.offset if is_words and rule is not None and rule.counts_from_sp else None

    def _jump_target(self, address: int) -> int | None:
        """Where a near jump at an address goes; MemoryFault where that cannot be read."""
        code = self._code.memory.read(address, _JUMP_SIZE)
        if code[0] != _JUMP:
            return None
        return address + _JUMP_SIZE + int.from_bytes(code[1:], "little", signed=True) & U64
