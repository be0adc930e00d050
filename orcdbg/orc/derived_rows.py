"""Which row holds at an address that no ORC table tells of?

A function is derived when its first row is asked for, and kept. What compilers make begins with a call's return address on top
of the stack; entry code, the switch of tasks and what begins stacks do not, and are known by name.
"""

from __future__ import annotations

from orcdbg.kernel.names import Location
from orcdbg.orc.derivation import (
    DerivedRow,
    FunctionRows,
    FunctionText,
    NeverReturning,
    Tracing,
    at_entry,
    derive_function,
    row_of_function,
)
from orcdbg.orc.entry_derivation import (
    END_ROW,
    ENTERED,
    REWOUND,
    START_UP,
    SWITCH,
    EntryText,
    after_call,
    called,
    first_functions,
    first_of_task,
    saved_row,
    settle,
    settle_rewound,
    settle_switched,
)
from orcdbg.patches.code import Code


class DerivedRows:
    """The rows of one kernel, by the instructions of its functions.

    Args:
        code: the kernel.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._never_returns = NeverReturning(code)
        self._functions: dict[int, FunctionRows | None] = {}
        self._entry = EntryText(code, self._never_returns)
        self._special = {
            **dict.fromkeys(SWITCH, self._switch),
            **dict.fromkeys(REWOUND, self._rewound),
            **dict.fromkeys(first_functions(code), self._first),
        }

    def at(self, address: int) -> DerivedRow | None:
        """The row at the instruction that covers an address; None where nothing tells.

        The CPU counts what it was interrupted before: at a return address ask for the byte before it.
        """
        place = self._code.locate(address)
        if place is None or not place.is_text or place.size <= 0 or self._code.generated_at(address) is not None:
            return None
        if place.module is None and (place.symbol.startswith(START_UP) or self._is_entered(place)):
            return DerivedRow(END_ROW, None, None)
        for start in self._starts(place):
            derivation = self._derivation(start, place)
            found = None if derivation is None else derivation.at(address)
            if found is not None:
                return found
        return None

    def _is_entered(self, place: Location) -> bool:
        """Whether a hypervisor, or a fault of the early boot, goes to the code of a symbol, which nobody calls."""
        return place.symbol.startswith(ENTERED) and not self._entry.holds(place)

    def _starts(self, place: Location) -> list[int]:
        """Where functions begin that may hold what is at `place`: a part split off is entered from its whole."""
        whole, cold, _ = place.symbol.partition(".cold")
        return self._code.starts_of(whole) if cold else [place.start]

    def _derivation(self, start: int, place: Location) -> FunctionRows | None:
        if start not in self._functions:
            whole = place if place.start == start else self._code.locate(start)
            self._functions[start] = None if whole is None else self._derive(whole)
        return self._functions[start]

    def _derive(self, place: Location) -> FunctionRows | None:
        special = self._special.get(place.symbol) if place.module is None else None
        if special is not None:
            return special(place)
        if place.module is None and self._entry.holds(place):
            return self._entry.derivation
        return derive_function(self._code, place, self._never_returns)

    def _switch(self, place: Location) -> FunctionRows | None:
        text = FunctionText(self._code, place)
        tracing = Tracing(text, self._never_returns, settle=settle_switched)
        tracing.follow({place.start: called()})
        return FunctionRows(tracing, text, row_of_function)

    def _rewound(self, place: Location) -> FunctionRows | None:
        text = FunctionText(self._code, place)
        tracing = Tracing(text, lambda target: False, settle=settle_rewound)
        tracing.follow({place.start: at_entry()})
        return FunctionRows(tracing, text, saved_row)

    def _first(self, place: Location) -> FunctionRows | None:
        if self._entry.holds(place):
            return self._entry.derivation
        text = FunctionText(self._code, place)
        tracing = Tracing(text, self._never_returns, lambda target, words: after_call(words), settle)
        tracing.follow({place.start: first_of_task()})
        return FunctionRows(tracing, text, saved_row)
