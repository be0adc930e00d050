"""A printed report has the kind and the signature that an analysis of the dump has, as far as it says."""

from __future__ import annotations

import pytest

from orcdbg.analysis.findings import FindingKind
from orcdbg.analysis.printed_death import PrintedDeath, printed_death
from orcdbg.kernel.headlines import headlines
from orcdbg.kernel.oops import printed_traces
from orcdbg.kernel.oops_details import printed_registers
from orcdbg.kernel.pasted_log import read_pasted
from tests.build import oops_texts as texts


def death_of(text: str) -> PrintedDeath:
    """The death in a text."""
    records = read_pasted(text.encode()).records
    return printed_death(list(headlines(records)), printed_traces(records), printed_registers(records))


@pytest.mark.parametrize(
    ("text", "kind", "signature"),
    [
        (texts.NULL_612, FindingKind.NULL_POINTER, texts.NULL_SIGNATURE),
        (texts.PAGING_44, FindingKind.WILD_POINTER, "wild-pointer sieve_shake < sieve_write < vfs_write"),
        (
            texts.SOFT_LOCKUP_61,
            FindingKind.SOFT_LOCKUP,
            "soft-lockup hub_spin [hub] < hub_ioctl [hub] < __x64_sys_ioctl",
        ),
        (texts.HUNG_515, FindingKind.HUNG_TASK, "hung-task well_wait [well] < well_read [well] < vfs_read"),
        (
            texts.PANIC_419,
            FindingKind.PANIC_CALLED,
            "panic-called mill_check < mill_start < do_one_initcall < kernel_init",
        ),
        (texts.WARNING_66, FindingKind.REFCOUNT, "refcount pool_put < pool_drop"),
    ],
)
def test_kinds_and_signatures(text: str, kind: FindingKind, signature: str) -> None:
    """Lines after a `?` are in none of them, nor is what handled the fault."""
    found = death_of(text)
    assert found.kind is kind
    assert found.signature is not None
    assert found.signature.startswith(signature)


def test_the_panic_names_the_oops_before_it() -> None:
    """Of two oopses the one that the kernel panicked of; without a panic the first."""
    second = texts.NULL_612.replace("mill_turn", "mill_stop")
    first = texts.NULL_612.partition("[   12.345712]")[0]
    assert death_of(first + second).signature == texts.NULL_SIGNATURE.replace("mill_turn", "mill_stop")
    assert death_of(first + second.partition("[   12.345712]")[0]).signature == texts.NULL_SIGNATURE


@pytest.mark.parametrize("rip", ["0x0", "0xffffffffdeadbeef"])
def test_a_call_to_nowhere(rip: str) -> None:
    """The kernel has no name for where the CPU went, and could not read it."""
    text = texts.NULL_612.replace("RIP: 0010:mill_turn+0x1b/0x60 [mill]", f"RIP: 0010:{rip}")
    text = text.replace("Code: 90 90", "Code: Unable to access opcode bytes at 0xffffffffffffffd6. 90 90")
    found = death_of(text)
    assert found.kind is FindingKind.BAD_CALL
    assert found.signature == "call-through-bad-pointer mill_grind [mill] < vfs_write < ksys_write"


def test_a_panic_without_a_trace_has_no_kind() -> None:
    """Its words alone do not tell."""
    found = death_of("Kernel panic - not syncing: Fatal exception\n")
    assert (found.kind, found.signature) == (None, None)
    assert found.said is not None
