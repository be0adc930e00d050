"""Stacks in the form in which crash prints them."""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.commands.result import Result
from orcdbg.commands.stacks import Stacks


@dataclass(frozen=True, slots=True)
class CrashStacks(Result):
    """Stacks to be printed as crash prints them; `has_offsets` as by its `bt -s`, in hexadecimal where `is_hex`."""

    stacks: Stacks
    has_offsets: bool = False
    is_hex: bool = False
