"""What feature numbers mean, which moved once."""

from __future__ import annotations

import pytest

from orcdbg.kernel.features import Features
from tests.build.kernel import made_linux
from tests.build.memory import SparseMemory


@pytest.mark.parametrize(
    ("symbols", "names", "retpoline"),
    [
        (["__x86_return_thunk", "__x86_indirect_thunk_rax"], ["KERNEL_IBRS", "RETPOLINE"], 364),
        (["retbleed_strings", "__x86_indirect_thunk_rax"], ["KERNEL_IBRS", "RETPOLINE"], 364),
        (["__x86_indirect_thunk_rax"], ["RETPOLINE", None], 236),
        ([], [None, None], 236),
    ],
)
def test_retpolines_have_other_numbers_since_retbleed(
    symbols: list[str], names: list[str | None], retpoline: int
) -> None:
    """A site of a kernel of before must not be said to be patched for what its number meant later."""
    linux = made_linux(SparseMemory(), {}, dict.fromkeys(symbols, (18446744071578845184, 16)))
    features = Features(linux)
    shown = [f"X86_FEATURE_{name}" if name else None for name in names]
    found = [features.name(number) for number in (236, 364)]
    assert [name if name.startswith("X86") else None for name in found] == shown
    assert features.retpoline(364) == retpoline
