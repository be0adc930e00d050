"""Which static calls does a symbol table define, and which key decides each?

Mirrors DEFINE_STATIC_CALL() in include/linux/static_call.h, which makes the two symbols.
"""

from __future__ import annotations

from orcdbg.base.sizes import U64
from orcdbg.symbols.table import SymbolTable

_TRAMPOLINE = "__SCT__"
KEY_PREFIX = "__SCK__"


def trampolines_and_keys(symbols: SymbolTable, slide: int) -> list[tuple[int, int]]:
    """Run-time addresses of the trampoline and the key of each static call that a symbol table defines."""
    keys, trampolines = symbols.starting(KEY_PREFIX), symbols.starting(_TRAMPOLINE)
    return [(at + slide & U64, keys[name] + slide & U64) for name, at in trampolines.items() if name in keys]
