"""What does each finding say, in words?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orcdbg.analysis.findings import Finding, FindingKind
from orcdbg.base.certainty import Certainty
from orcdbg.views.columns import duration

_K = FindingKind
_Values = Mapping[str, str | int]


def _uptime(values: _Values) -> str:
    return f"up {duration(int(values['nanoseconds']))}"


def _taint(values: _Values) -> str:
    return f"the kernel is tainted: {values['letters']}" if values["letters"] else "the kernel is not tainted"


def _module_taint(values: _Values) -> str:
    letters = values["letters"]
    return (
        f"module {values['module']} is tainted: {letters}" if letters else f"module {values['module']} is not tainted"
    )


def _typed(values: _Values) -> str:
    what = f"{values['register']} was {values['path']} ({values['value']})"
    member = f", so {values['member']} was wanted" if values["member"] else ""
    return f"{what}, by the types of the parameters of {values['function']}(){member}"


def _bad_call(values: _Values) -> str:
    by = f", called by {values['caller']}" if values["caller"] else ""
    return f"call through a bad pointer: the CPU went to {values['target']}, where no code is{by}"


def _with_said(what: str) -> Callable[[_Values], str]:
    def words(values: _Values) -> str:
        said = f": {values['said']}" if values.get("said") else ""
        return what.format_map(values) + said

    return words


def _slab(state: str) -> Callable[[_Values], str]:
    def words(values: _Values) -> str:
        also = f" (merged with {values['also']})" if values["also"] else ""
        where = f"{values['offset']:+d} in the object at {values['object']} of slab cache {values['cache']}{also}"
        return f"{values['role']} = {values['value']}: {where}, which {state.format_map(values)}"

    return words


def _audited(values: _Values) -> str:
    which = f"{values['function']} [{values['module']}]" if values["module"] else str(values["function"])
    return f"the text of {which} was not audited"


def _stack(values: _Values) -> str:
    whose = "" if int(values["pid"]) < 0 else f" of PID {values['pid']}"
    return f"{values['role']} = {values['value']}: on the {values['stack']} stack{whose}"


_STATES = {
    "unmapped": ", where nothing is mapped",
    "read-only": ", which may not be written",
    "user": ", an address of user space",
    "mapped": ", which is mapped now",
    "": "",
}


def _wild(values: _Values) -> str:
    where = f"bad pointer in {values['place']}"
    if not values["address"]:
        return f"{where}: {values['instruction']}; which address it wanted is not known"
    state = _STATES[str(values["state"])]
    return f"{where}: {values['access']} of {values['size']} bytes at {values['address']}{state}"


def _sysrq(values: _Values) -> str:
    by = f" by PID {values['pid']} {values['comm']}" if values["is_written"] else ""
    return f"the kernel was told to crash by sysrq{by}"


def _canary(values: _Values) -> str:
    text = f", which is text: {values['text']}" if values["text"] else ""
    return f"the canary at {values['place']} is {values['found']} in place of {values['expected']}{text}"


def _ring(values: _Values) -> str:
    who = "a task waits for itself" if values["count"] == 1 else f"{values['count']} tasks wait for each other"
    return f"{who}: {values['ring']}"


_WORDS: Mapping[FindingKind, str | Callable[[_Values], str]] = {
    _K.NO_DEATH: "no panic or oops is recorded",
    _K.NULL_POINTER: "NULL pointer dereference in {place}: {access} of {size} bytes at {address}",
    _K.WILD_POINTER: _wild,
    _K.DOUBLE_FAULT: _with_said("double fault in {place}"),
    _K.NON_CANONICAL: "bad pointer in {place}: {access} of {size} bytes at {address}, which is no address",
    _K.GENERAL_PROTECTION: "general protection fault in {place}",
    _K.BAD_CALL: _bad_call,
    _K.BUG: _with_said("BUG() at {place}"),
    _K.WARNING: _with_said("a warning became a panic at {place}"),
    _K.STACK_OVERFLOW: _with_said("stack overflow"),
    _K.STACK_SMASHED: "a stack's canary was overwritten: {message}",
    _K.SOFT_LOCKUP: _with_said("soft lockup in {place}"),
    _K.HARD_LOCKUP: _with_said("hard lockup in {place}"),
    _K.HUNG_TASK: _with_said("hung task"),
    _K.DEADLOCK: lambda values: f"deadlock: {_ring(values)}",
    _K.WAIT_CYCLE: _ring,
    _K.WAITS_FOR: "PID {pid} {comm} waits for {what} of PID {holder} {holder_comm}, for {seconds} s",
    _K.RCU_STALL: _with_said("RCU stall in {place}"),
    _K.OUT_OF_MEMORY: _with_said("out of memory"),
    _K.MACHINE_CHECK: _with_said("a machine check"),
    _K.NMI_PANIC: "an NMI became a panic in {place}",
    _K.SYSRQ: _sysrq,
    _K.INIT_KILLED: "init ended: {message}",
    _K.PANIC_CALLED: "panic() was called from {place}: {message}",
    _K.DIVIDE_ERROR: "division error in {place}: {instruction}",
    _K.INVALID_OPCODE: "invalid instruction at {place}: {instruction}",
    _K.MESSAGE: "{message}",
    _K.ANNOUNCED: "{message}",
    _K.PANICKED: "CPU {cpu} panicked, by its stack because of {route}",
    _K.UPTIME: _uptime,
    _K.LOAD: "load average {averages}",
    _K.TAINT: _taint,
    _K.COMMAND_LINE: "command line: {line}",
    _K.CPUS_PRESENT: "{present} CPUs present, {online} online, registers of {stopped}",
    _K.CONTEXT: "PID {pid} {comm}, on the {stack} stack",
    _K.EXCEPTION: "{entry} in {mode} mode at {place}, interrupts {interrupts}",
    _K.INSTRUCTION: "{place}: {instruction}",
    _K.OPERAND: "{size} bytes at {address} are {access}",
    _K.LOADED_FROM: "{register} was loaded from {place}, which counts from {base}, and {now} is there now too",
    _K.LOADED_SINCE_CHANGED: (
        "{register} ({value}) was loaded from {place}, which counts from {base}; {now} is there now"
    ),
    _K.TYPED: _typed,
    _K.USE_AFTER_FREE: (
        "use after free in {place}: {role} is {offset} bytes into the object at {object} of slab cache {cache}, "
        "which is free: {proof}"
    ),
    _K.DOUBLE_FREE: (
        "double free in {place}: {role} has the object at {object} of slab cache {cache}, which is free already: {proof}"
    ),
    _K.OVERRUN: (
        "the object at {object} of slab cache {cache} may have been written over by its neighbour: bytes {byte} begin "
        "at {begin}, before it; who writes there would confirm it"
    ),
    _K.LIST_CORRUPTION: _with_said("list corruption in {place}"),
    _K.LIST_NODE: "the node at {node} has next {next} and prev {prev}",
    _K.REFCOUNT: _with_said("reference count out of order in {place}"),
    _K.RECURSION: "{function}() calls itself: {count} frames, {each} bytes each",
    _K.STACK_ROOM: "{used} of {size} bytes of the task's stack were used",
    _K.CANARY: _canary,
    _K.CHANGED_TEXT: "changed text was run at {place}: {found} in place of {expected}, so {instruction}",
    _K.OOPS_IN_LOG: "the log has an oops that the kernel went on after: {said}",
    _K.WAITS_AT: "PID {pid} {comm} ({state}) waits at {place}",
    _K.DIVISOR_REGISTER: "the divisor {register} was {value}",
    _K.ASCII_POINTER: "{register} = {value} is text: {characters}",
    _K.CALL_REGISTER: "{register} has the address that was called: {value}",
    _K.DIVISOR: "the operand at {address} ({name}) is {now} now",
    _K.POINTER_NULL: "{role} = {value}: NULL, or NULL and an offset",
    _K.POINTER_ERROR: "{role} = {value}: an error's number, {number}",
    _K.POINTER_POISON: "{role} = {value}: {name}, which stands where nothing is any more",
    _K.POINTER_CHARACTERS: "{role} = {value}: text, {characters}",
    _K.POINTER_NON_CANONICAL: "{role} = {value}: no address at all",
    _K.POINTER_USER: "{role} = {value}: an address of user space",
    _K.POINTER_UNMAPPED: "{role} = {value}: nothing is mapped there",
    _K.POINTER_SLAB_FREE: _slab("is free: {proof}"),
    _K.POINTER_SLAB_ALLOCATED: _slab("is allocated: {proof}"),
    _K.POINTER_SLAB_UNKNOWN: _slab("may be free or not: {proof}"),
    _K.POINTER_SYMBOL: "{role} = {value}: {symbol}",
    _K.POINTER_STACK: _stack,
    _K.POINTER_MAPPED: "{role} = {value}: mapped memory that nothing here has a name for",
    _K.TEXT_INTACT: "{count} functions on this stack are as the image and the recorded patches make them",
    _K.TEXT_CHANGED: "text at {place} is not what it must be: {found} in place of {expected}",
    _K.TEXT_NOT_AUDITED: _audited,
    _K.FRAME: "{place}",
    _K.MODULE_TAINT: _module_taint,
    _K.CPU: "CPU {cpu}: PID {pid} {comm}, at {place}",
    _K.BLOCKED: "{count} blocked at {place}: {pids}",
    _K.MEMORY: (
        "{total} MiB, {free} free, {available} available, {anonymous} anonymous, {slabs} in slabs; {swap} MiB of swap"
    ),
    _K.PLANTED: "{count} records are from programs (facilities {facilities}), not the kernel's words",
    _K.LOST: "{count} older records are lost",
    _K.LOG_PROBLEM: "{problem}",
}

CERTAINTIES: Mapping[Certainty, str] = {
    Certainty.FACT: "FACT",
    Certainty.DERIVED: "DERIVED",
    Certainty.HYPOTHESIS: "HYPOTHESIS",
}


def words_of(finding: Finding) -> str:
    """The statement as a sentence's part, without a full stop; what memory held in it is not safe for a terminal."""
    words = _WORDS[finding.kind]
    return words.format_map(finding.values) if isinstance(words, str) else words(finding.values)
