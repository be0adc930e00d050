"""Which functions, or other symbols, do the addresses in an answer stand for?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orcdbg.commands.debugger import Debugger


def names_of(debugger: Debugger, addresses: Iterable[int]) -> Mapping[int, str]:
    """The name of each kernel address that has one: `function+0xoffset [module]`, the offset only where there is one."""
    found = {}
    for address in {address for address in addresses if address >> 63}:
        location = debugger.session.names.at(address)
        if location is None:
            continue
        offset = address - location.start
        name = location.symbol + (f"+{offset:#x}" if offset else "")
        found[address] = name + (f" [{location.module}]" if location.module else "")
    return found
