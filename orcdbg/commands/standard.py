"""Which commands does orcdbg bring itself?"""

from __future__ import annotations

from orcdbg.commands import backtrace, code, control, data, frames, live, log, machine, mapping, structures
from orcdbg.commands.live_stepping import for_live_guests
from orcdbg.commands.registry import Registry
from orcdbg.commands.stepping import COMMANDS as STEPPING


def standard_commands() -> Registry:
    """A new registry with orcdbg's own commands."""
    registry = Registry()
    for module in (backtrace, frames, code, data, structures, mapping, machine, log, live):
        for command in module.COMMANDS:
            registry.add(command)
    for command in (*map(for_live_guests, STEPPING), *control.control_commands(registry)):
        registry.add(command)
    return registry
