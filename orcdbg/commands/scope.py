"""What do names in an expression mean of the selection: registers and locals of the frame, earlier values, the task's CPU?"""

from __future__ import annotations

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.regs import ALIASES
from orcdbg.expressions.evaluation import Evaluated, evaluate
from orcdbg.typed.objects import Absent, Object
from orcdbg.typed.types import VOID, ArrayType, CompoundType, FunctionType, IncompleteType, pointer_to

_POINTERS = ("rsp", "rbp")


class SelectedScope:
    """The names of what is selected in a debugger."""

    def __init__(self, debugger: Debugger) -> None:
        self._debugger = debugger

    def find_local(self, name: str) -> Object | None:
        """The variable or argument of the selected frame; of a frame in doubt no value, but the reason why there is none."""
        return self._debugger.find_local(name)

    def register(self, name: str) -> Object:
        """A register of the selected frame; one that the walk does not know says why."""
        debugger = self._debugger
        program = debugger.session.program
        frame = debugger.frame()
        wanted = ALIASES.get(name, name)
        if wanted == "rip":
            return program.value(pointer_to(FunctionType(lambda: VOID, lambda: (), False)), frame.ip)

        known = debugger.session.register_finder.all(debugger.trace(), frame.index)[-1]
        type_ = pointer_to(VOID) if wanted in _POINTERS else program.type("unsigned long")
        if wanted in known.values:
            return program.value(type_, known.values[wanted].value)
        if wanted in known.unknown:
            unknown = known.unknown[wanted]
            why = f"{wanted} of frame #{frame.index} is not known: {unknown}"
            return Object(program, type_, Absent(why, unknown.code))
        names = ", ".join(f"${each}" for each in ("rip", *sorted({*known.values, *known.unknown} - {"rip"})))
        raise NotFound("register or value", f"${name}", f"this frame has {names}")

    def recalled(self, word: str) -> Object:
        """An earlier value."""
        return self._debugger.values.recalled(word)

    def this_cpu(self) -> int:
        """The CPU of the selected task."""
        cpu = self._debugger.task.cpu
        if cpu is None:
            raise UsageError(
                "the CPU of the selected task is not known", "name it: VARIABLE:0, or per_cpu(VARIABLE, 0)"
            )
        return cpu


def address_of(found: Object) -> int:
    """The address that a value means: where it is in memory, of a number or a pointer what it says."""
    if isinstance(found.plain_type_, ArrayType | CompoundType | FunctionType | IncompleteType):
        if found.address_ is None:
            raise UsageError("it is not in memory")
        return found.address_
    return int(found) & U64


def evaluated(debugger: Debugger, written: str, types_only: bool = False) -> Evaluated:
    """What an expression means of the selection; errors as of `evaluate`."""
    return evaluate(debugger.session.program, written, SelectedScope(debugger), types_only)


def one_value(debugger: Debugger, written: str) -> Object:
    """The value of an expression that means one."""
    found = evaluated(debugger, written)
    if found.is_type:
        raise UsageError(f"a type, not a value: {written}", f"ptype {written}")
    if len(found.values) != 1:
        raise UsageError(f"one value is needed, not one for each of {len(found.values)} CPUs: {written}")
    return found.values[0][1]
