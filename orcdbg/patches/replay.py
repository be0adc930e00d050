"""Which mechanisms patched this kernel's text, and in which order?

The tuples below are all of them. A mechanism's own file in `mechanisms/` says what it does; here is only why it stands
where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import clamped
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.mechanisms.alternative import ALTERNATIVE, AlternativesPass
from orcdbg.patches.mechanisms.call_thunk import CALL_THUNK
from orcdbg.patches.mechanisms.ftrace import FTRACE_SITES, FTRACE_TRAMPOLINES
from orcdbg.patches.mechanisms.ibt_seal import IBT_SEAL
from orcdbg.patches.mechanisms.jump_label import JUMP_LABEL
from orcdbg.patches.mechanisms.kprobe import KPROBE
from orcdbg.patches.mechanisms.optprobe import OPTPROBE
from orcdbg.patches.mechanisms.paravirt import PARAVIRT
from orcdbg.patches.mechanisms.retpoline import RETPOLINE
from orcdbg.patches.mechanisms.return_thunk import RETURN_THUNK
from orcdbg.patches.mechanisms.runtime_const import RUNTIME_CONST
from orcdbg.patches.mechanisms.smp_lock import SMP_LOCK
from orcdbg.patches.mechanisms.static_call import STATIC_CALL_SITES, STATIC_CALL_TRAMPOLINES
from orcdbg.patches.mechanisms.text_change import TEXT_CHANGE
from orcdbg.patches.mechanisms.xen import XEN
from orcdbg.patches.site import PatchPass, Spans, Undecidable, known_spans
from orcdbg.patches.stack_mechanisms import with_paravirt_placed
from orcdbg.patches.state.boot_progress import as_far_as_they_came
from orcdbg.patches.state.padding import counts_alternatives
from orcdbg.patches.sweep import FromMemory, FromTable

MAX_PROBLEMS = 100

# What is there before the kernel's own boot begins, which no state of that boot tells of.
EARLY: tuple[Mechanism, ...] = (XEN,)

# What the boot, and the loader of a module, does once: alternative_instructions() in arch/x86/kernel/alternative.c and
# module_finalize() in arch/x86/kernel/module.c, in the order of 7.2. Two of them stood elsewhere before: see `boot_order`.
BOOT: tuple[Mechanism, ...] = (
    # Before alternatives, some of which lie on the calls that it writes and replace them (since 5.13; 6.12 has no such table).
    PARAVIRT,
    # Before alternatives, which may overwrite the thunks' calls, and whose replacements hold such branches too: they are
    # copied into the text as these two left them.
    RETPOLINE,
    # After retpolines, as in the kernel. An indirect branch and a return never share a site.
    RETURN_THUNK,
    # Moves every call of the table into padding, those in the replacements of a module too, before these are copied.
    CALL_THUNK,
    ALTERNATIVE,
    # Behind all that change calls and branches, as in the kernel.
    IBT_SEAL,
    # The kernel's last: it takes a prefix away only where one is left, and an alternative may have replaced the instruction.
    SMP_LOCK,
    # Written earlier, where the variable gets its value (runtime_const_init(), since 6.11). Nothing else writes to these
    # operands, so that nothing hangs on the place; a boot that was stopped may not have come there.
    RUNTIME_CONST,
)

# What follows variables at any time. By now each site holds what its variable says, whatever the boot found there or left.
STATE: tuple[Mechanism, ...] = (
    JUMP_LABEL,
    # After return thunks: a tail call, or a trampoline, without a function is a return, and one that was built so is a
    # return site too.
    STATIC_CALL_SITES,
    STATIC_CALL_TRAMPOLINES,
    # After counted calls: `ftrace_call` and `ftrace_regs_call` are calls of the table until something traces.
    FTRACE_SITES,
    FTRACE_TRAMPOLINES,
    # A breakpoint goes over whatever instruction stands there by then.
    KPROBE,
    # The jump of an optimised probe goes over the breakpoint that it had first.
    OPTPROBE,
    # All of these change text in steps; what they are in the middle of is not what they will have written.
    TEXT_CHANGE,
)


def boot_order(build: Build) -> tuple[Mechanism, ...]:
    """What the boot does once, in this kernel's order."""
    return with_paravirt_placed(_with_counted_calls_placed(BOOT, build), build)


def _with_counted_calls_placed(order: tuple[Mechanism, ...], build: Build) -> tuple[Mechanism, ...]:
    """To 6.15 counted calls came after alternatives, because those that alternatives put there were counted too."""
    try:
        is_after = counts_alternatives(build.linux)
    except OrcdbgError:
        is_after = False  # nobody can tell; where calls are counted at all, the passes say what is damaged
    if not is_after:
        return order
    others = [mechanism for mechanism in order if mechanism is not CALL_THUNK]
    others.insert(others.index(ALTERNATIVE) + 1, CALL_THUNK)
    return tuple(others)


def passes_of(mechanisms: Sequence[Mechanism], build: Build) -> list[PatchPass]:
    """The passes of some mechanisms over one text, in their order.

    A mechanism whose table cannot be read has none, and `build.problems` says why: the rest is replayed all the same.
    """
    passes: list[PatchPass] = []
    for mechanism in mechanisms:
        try:
            passes += mechanism.make(build, passes)
        except (OrcdbgError, Undecidable) as error:
            build.note(f"{mechanism.name}: its sites are not known: {error}")
    return passes


def all_passes(build: Build) -> list[PatchPass]:
    """Every pass, in the order in which this kernel runs them."""
    boot = as_far_as_they_came(passes_of(boot_order(build), build), build.linux)
    return [*passes_of(EARLY, build), *boot, *passes_of(STATE, build)]


def boot_tables() -> tuple[str, ...]:
    """The sections that record what the boot patches; it gives their memory back, so that only a file has them."""
    return tuple(table for mechanism in BOOT for table in mechanism.tables)


def table_problems(build: Build, passes: Sequence[PatchPass]) -> list[str]:
    """A line for each table that cannot be read, or has entries that are impossible or name nothing in the image."""
    problems = list(build.problems)
    for the_pass in passes:
        if isinstance(the_pass, AlternativesPass):
            problems += the_pass.entries.problems[:MAX_PROBLEMS]
        if isinstance(the_pass, FromTable) and not isinstance(the_pass, FromMemory):
            problems += _outside(build, known_spans(the_pass), the_pass.table)
    return problems


def _outside(build: Build, spans: Spans, table: str) -> list[str]:
    """A line when places begin in no section of the image, or end after the text that they begin in."""
    low, high = build.text
    starts, ends = spans.starts, spans.starts + spans.sizes
    odd = np.flatnonzero((starts < clamped(low)) | (ends > clamped(high)))
    slide = build.linux.slide
    sections = [(clamped(s.address + slide), clamped(s.end + slide)) for s in build.image.sections if s.address]
    bounds = np.array(sorted(sections), dtype=np.uint64).reshape(-1, 2)
    before = np.searchsorted(bounds[:, 0], starts[odd], side="right") - 1
    good = (
        (before >= 0) & (ends[odd] <= bounds[np.maximum(before, 0), 1]) if len(bounds) else np.zeros(len(odd), np.bool_)
    )
    wrong = odd[~good]
    if not len(wrong):
        return []
    first = f"entry {int(wrong[0])} names {int(starts[wrong[0]]):#x}"
    return [f"{table}: {len(wrong)} entries outside the image's sections; {first}"]
