"""Which words can the stopped machine offer for each kind of operand?"""

from __future__ import annotations

from collections.abc import Mapping

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.repl.completion import Offer, Source, matches
from orcdbg.repl.names import SymbolNames
from orcdbg.views.stacks import name_of


def make_sources(debugger: Debugger, registry: Registry, names: SymbolNames) -> Mapping[str, Source]:
    """A source for every kind of operand."""
    return {
        "symbol": names.offers,
        "task": lambda prefix: task_offers(debugger, prefix),
        "frame": lambda prefix: frame_offers(debugger, prefix),
        "cpu": lambda prefix: cpu_offers(debugger, prefix),
        "setting": lambda prefix: matches(sorted(debugger.settings), prefix, debugger.settings),
        "structure": lambda prefix: matches(structure_names(debugger), prefix),
        "command": lambda prefix: command_offers(registry, prefix),
        "mechanism": lambda prefix: mechanism_offers(debugger, prefix),
    }


def _numbers(notes: Mapping[int, str], prefix: str) -> list[Offer]:
    by_text = {str(number): note for number, note in notes.items()}
    return sorted(matches(sorted(by_text), prefix, by_text), key=lambda offer: int(offer.text))


def task_offers(debugger: Debugger, prefix: str) -> list[Offer]:
    """Pids, with the commands' names. Pid 0 is every CPU's idle task, and stands for the first."""
    return _numbers({task.pid: task.comm for task in reversed(debugger.session.tasks)}, prefix)


def frame_offers(debugger: Debugger, prefix: str) -> list[Offer]:
    """Frames of the selected task, with the functions they are in."""
    return _numbers({frame.index: name_of(frame) for frame in debugger.trace().frames}, prefix)


def cpu_offers(debugger: Debugger, prefix: str) -> list[Offer]:
    """CPUs that run a task, with that task."""
    running = debugger.session.unwinder.running
    return _numbers({running[t.address][0]: t.comm for t in debugger.session.tasks if t.address in running}, prefix)


def command_offers(registry: Registry, prefix: str) -> list[Offer]:
    """Command words, with what the commands do."""
    notes = {word: command.summary for word in registry.words if (command := registry.find(word))}
    return matches(sorted(notes), prefix, notes)


def structure_names(debugger: Debugger) -> list[str]:
    """Structures and unions by name, sorted."""
    return debugger.session.types.btf.structure_names


def mechanism_offers(debugger: Debugger, prefix: str) -> list[Offer]:
    """The patch mechanisms that this kernel's image records."""
    return matches(debugger.session.ledger.mechanisms, prefix)
