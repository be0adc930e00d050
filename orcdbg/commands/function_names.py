"""Which functions, or other symbols, do the addresses in an answer stand for?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orcdbg.commands.debugger import Debugger
from orcdbg.target.session import Session


def is_in_symbol(session: Session, address: int) -> bool:
    """Whether an address is in what a symbol names, and may be called by it.

    String literals lie between data with symbols: 1.5 MB behind `kallsyms_seqs_of_names` in 7.2. Assembler's labels have no
    size, so code goes by the symbol before it.
    """
    return bool(address >> 63) and (session.names.holds(address) or session.is_text(address))


def names_of(debugger: Debugger, addresses: Iterable[int]) -> Mapping[int, str]:
    """The name of each kernel address that has one: `function+0xoffset [module]`, the offset only where there is one."""
    session = debugger.session
    found = {}
    # Most pointers of long lists lead to other data, far below all names: 12 us each to look for one.
    lowest = session.names.lowest
    for address in {address for address in addresses if address >= lowest and is_in_symbol(session, address)}:
        location = session.names.at(address)
        if location is None:
            continue
        offset = address - location.start
        name = location.symbol + (f"+{offset:#x}" if offset else "")
        found[address] = name + (f" [{location.module}]" if location.module else "")
    return found
