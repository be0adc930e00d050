"""Which names do the kernel and its modules have, in order, so that a prefix is found by bisection?"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence

from orcdbg.base.errors import OrcdbgError
from orcdbg.kernel.modules import ModuleSymbols
from orcdbg.repl.completion import Offer, matches
from orcdbg.target.session import Session

# A name of a hostile file may hold anything; one with other characters cannot be typed without quotes. One that begins
# with a dot is a label that the compiler made up.
_TYPEABLE = re.compile(r"[A-Za-z_$@][\w.$@]*", re.ASCII)


def typeable(names: Iterable[str]) -> list[str]:
    """The names that can be typed as they are, sorted, each once."""
    return sorted({name for name in names if _TYPEABLE.fullmatch(name)})


class SymbolNames:
    """The symbol names of a session. Making the list takes some tenths of a second, so it is made aside, and once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._sorted: Sequence[str] | None = None
        self._of_module: dict[str, Sequence[str]] = {}

    def start(self) -> None:
        """Begins to make the list in the background."""
        threading.Thread(target=self.all, name="symbol names", daemon=True).start()

    def all(self) -> Sequence[str]:
        """All names, sorted; waits for the background when it is not done."""
        with self._lock:
            if self._sorted is None:
                self._of_module = {module.module.name: _names_of(module) for module in self._modules()}
                kernel = self._session.symbols.names()
                self._sorted = typeable([*kernel, *(name for names in self._of_module.values() for name in names)])
            return self._sorted

    def offers(self, prefix: str) -> list[Offer]:
        """The symbols that begin with `prefix`, which may be `module:` and the beginning of a name."""
        names = self.all()
        module, colon, beginning = prefix.partition(":")
        if not colon:
            return matches(names, prefix)
        found = matches(self._of_module.get(module, ()), beginning)
        return [Offer(f"{module}:{offer.text}", offer.note, offer.whole) for offer in found]

    def _modules(self) -> Iterable[ModuleSymbols]:
        try:
            return self._session.names.module_symbols.values()
        except OrcdbgError:
            # `mod` says what is wrong; the kernel's own names are there all the same.
            return ()


def _names_of(module: ModuleSymbols) -> Sequence[str]:
    """A module's names; none where the snapshot lacks its symbol table, which costs completion and nothing else."""
    try:
        return typeable(module.table.names())
    except OrcdbgError:
        return ()
