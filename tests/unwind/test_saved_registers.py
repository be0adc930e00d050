"""Can these be registers that an interrupt saved?"""

from __future__ import annotations

import pytest

from orcdbg.unwind.frame import RegisterValue
from orcdbg.unwind.reasons import Implausible, RegisterImplausible, UserCodeOnKernelStack
from orcdbg.unwind.saved_registers import implausible, is_user


def why(cs: int, ss: int = 0x2B, sp: int = 0x7FFD00000000) -> Implausible | None:
    """What speaks against registers with these selectors and this stack pointer."""
    values = {"cs": cs, "ss": ss, "rsp": sp, "rflags": 0x202}
    registers = {name: RegisterValue(value, "made") for name, value in values.items()}
    assert is_user(registers) == (cs & 3 == 3)
    return implausible(registers)


@pytest.mark.parametrize("cs", [0x7, 0xF, 0x17, 0xFFFF])
def test_a_program_may_run_in_a_code_segment_of_its_own(cs: int) -> None:
    """modify_ldt makes any entry of its table one; its stack segment may be of that table too."""
    assert why(cs) is None
    assert why(cs, ss=0xF) is None
    assert why(cs, ss=0x18) == UserCodeOnKernelStack(0x18)


@pytest.mark.parametrize("cs", [0, 0x4, 0xC, 0xD, 0xB, 0x1B, 0x63])
def test_other_selectors_are_nobodys(cs: int) -> None:
    """The table that all programs share has two code segments, and the kernel's is in no program's table."""
    assert why(cs) == RegisterImplausible("cs", cs)
