"""Which passes did this kernel run over its own text, and in which order?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import AddressSpace, clamped
from orcdbg.patches.alternative_replacements import PatchedReplacements
from orcdbg.patches.alternative_table import AlternativeTable
from orcdbg.patches.build import Build
from orcdbg.patches.mechanisms.alternative import AlternativesPass
from orcdbg.patches.mechanisms.call_thunk import CountedCalls, counting_passes
from orcdbg.patches.mechanisms.ftrace import FtracePass, FtraceTrampolineCalls
from orcdbg.patches.mechanisms.ibt_seal import IbtSealPass
from orcdbg.patches.mechanisms.jump_label import JumpLabelsPass
from orcdbg.patches.mechanisms.kprobe import KprobesPass
from orcdbg.patches.mechanisms.optprobe import OptprobesPass
from orcdbg.patches.mechanisms.paravirt import ParavirtPass
from orcdbg.patches.mechanisms.retpoline import RetpolinePass, RetpolineStyle
from orcdbg.patches.mechanisms.return_thunk import ReturnsPass
from orcdbg.patches.mechanisms.runtime_const import constant_passes
from orcdbg.patches.mechanisms.smp_lock import SmpLocksPass
from orcdbg.patches.mechanisms.static_call import StaticCalls, StaticCallSites, StaticCallTrampolines
from orcdbg.patches.moved_instructions import optimise_old_nops
from orcdbg.patches.site import PatchPass, Spans, U64Array, Undecidable
from orcdbg.patches.state.boot_progress import as_far_as_they_came
from orcdbg.patches.state.padding import counts_alternatives
from orcdbg.patches.sweep import Sweep
from orcdbg.patches.tables import section_sites

T = TypeVar("T")
MAX_PROBLEMS = 100


def _alternatives(build: Build, replacements: AddressSpace) -> list[AlternativesPass]:
    table = build.image.section_data(".altinstructions")
    section = build.image.find_section(".altinstructions")
    if section is None or not table:
        return []
    entries = AlternativeTable(table, section.address + build.linux.slide)
    return [AlternativesPass(build.linux, replacements, entries, build.features, build.nops)]


def _paravirt(build: Build) -> list[ParavirtPass]:
    sites = build.image.section_data(".parainstructions")
    return [ParavirtPass(build.linux, build.built, sites, build.unmoved, build.nops)] if sites else []


def _around(paravirt: Sequence[ParavirtPass], others: Sequence[PatchPass]) -> list[PatchPass]:
    """Paravirt and the other passes of the boot in their order.

    Paravirt came last while it wrote instructions itself (to 5.11); since 5.13 (4e6292114c74) it comes first, and the
    alternatives on the same sites follow. Which it is shows in the instruction at the sites.
    """
    if any(one.inlines for one in paravirt):
        return [*others, *paravirt]
    return [*paravirt, *others]


def stack_passes(build: Build) -> list[PatchPass]:
    """The passes whose instructions may move the stack pointer otherwise than the text as built: what a walk asks about."""
    return _around(_paravirt(build), _alternatives(build, build.built))


def _readable(build: Build, make: Callable[[], Sequence[T]]) -> Sequence[T]:
    """The passes over a table; none, and a problem, where the table cannot be read, so that the rest is still replayed."""
    try:
        return make()
    except UnsupportedFormat as error:
        build.problems.append(str(error))
        return []


def boot_passes(build: Build) -> list[PatchPass]:
    """The passes of alternative_instructions(), in this kernel's order."""
    image, linux, slide = build.image, build.linux, build.linux.slide
    branches = _readable(build, lambda: _branch_passes(build))
    counted = _readable(build, lambda: _counted_before(build))
    replacements = PatchedReplacements(image, build.built, slide, [*branches, *counted])
    passes: list[PatchPass] = [*branches]
    alternatives = _readable(build, lambda: _alternatives(build, replacements))
    passes += _readable(build, lambda: _with_counted_calls(build, alternatives)) or alternatives
    passes += _readable(build, lambda: _sealing(build))
    passes += _readable(build, lambda: [SmpLocksPass(build.lock_sites(), linux)])
    return as_far_as_they_came(_around(_readable(build, lambda: _paravirt(build)), passes), linux)


def _sealing(build: Build) -> list[IbtSealPass]:
    sealed = section_sites(build.image, ".ibt_endbr_seal", build.linux.slide)
    return [IbtSealPass(sealed, build.kernel_image, build.linux)] if len(sealed) else []


def _branch_passes(build: Build) -> list[Sweep]:
    """Indirect branches, then returns."""
    image, linux, slide = build.image, build.linux, build.linux.slide
    retpolines = section_sites(image, ".retpoline_sites", slide)
    returns = section_sites(image, ".return_sites", slide)
    passes: list[Sweep] = []
    if len(retpolines):
        passes.append(RetpolinePass(retpolines, image, linux, build.mitigations, _retpoline_style(build)))
    if len(returns):
        passes.append(ReturnsPass(returns, linux, build.mitigations))
    return passes


def _retpoline_style(build: Build) -> RetpolineStyle:
    """How retpoline sites are filled up.

    INT3 after a jump came with straight-line-speculation mitigation in 5.17 (together with two-byte jump labels, static
    calls that return 0 and PREEMPT_DYNAMIC's `__SCT__cond_resched`); prefixes in 6.18, where insn_is_nop() became global.
    """
    nops = build.nops
    prefixes = build.linux.symbols.find("insn_is_nop") is not None
    stops = build.linux.symbols.find("ideal_nops") is None

    def optimise(data: bytes) -> bytes:
        if nops is None:
            raise Undecidable("ideal_nops is not in the snapshot")
        return optimise_old_nops(data, nops)

    return RetpolineStyle(optimise, stops, prefixes)


def _with_counted_calls(build: Build, alternatives: Sequence[AlternativesPass]) -> list[PatchPass]:
    """Alternatives and counted calls; calls came second while the kernel counted those in alternatives too (to 6.15)."""
    image, linux, pads, sites = build.image, build.linux, build.pads, _counted_sites(build)
    if not len(sites):
        return [*alternatives]
    targets = [*static_called(build).tolist(), *build.called_besides().tolist()]
    if not counts_alternatives(linux):
        return [*counting_passes(image, linux, pads, sites, targets), *alternatives]
    sites = np.sort(sites)
    low, high = pads.text
    calls = [call for one in alternatives for call in one.calls(sites) if low <= call[0] < high]
    covered = np.zeros(len(sites), dtype=np.bool_)
    for one in alternatives:
        covered |= _covered(sites, one.spans())
    targets += [target for _, target in calls]
    rewritten = np.array([site for site, _ in calls], dtype=np.uint64)
    return [*alternatives, *counting_passes(image, linux, pads, sites[~covered], targets, rewritten)]


def _counted_sites(build: Build) -> U64Array:
    """Where calls are counted; none on a machine that counts none, or that does not tell."""
    sites = section_sites(build.image, ".call_sites", build.linux.slide)
    try:
        used = len(sites) > 0 and build.pads.used
    except Undecidable:
        used = False
    return sites if used else sites[:0]


def _counted_before(build: Build) -> list[CountedCalls]:
    """The calls in replacements that are counted before those are used: a module's, whose replacements lie in its text."""
    sites = _counted_sites(build)
    if not len(sites) or counts_alternatives(build.linux):
        return []
    low, high = build.pads.text
    inside = (sites >= np.uint64(low)) & (sites < np.uint64(high))
    return [CountedCalls(np.sort(sites[inside]), build.pads)]


def _covered(addresses: U64Array, spans: Spans) -> npt.NDArray[np.bool_]:
    """For each address, whether one of the spans holds it; spans of one start have one size."""
    order = np.argsort(spans.starts, kind="stable")
    starts, sizes = spans.starts[order], spans.sizes[order]
    before = np.searchsorted(starts, addresses, side="right") - 1
    if not len(starts):
        return np.zeros(len(addresses), dtype=np.bool_)
    return (before >= 0) & (addresses < starts[before] + sizes[before])


def _static_calls(build: Build) -> StaticCalls:
    return StaticCalls(build.linux, build.mitigations, build.pads, build.nops, build.is_module)


def _static_call_sites(build: Build) -> list[StaticCallSites]:
    table, at = build.table("__start_static_call_sites", "__stop_static_call_sites")
    return [StaticCallSites(table, at, build.image, _static_calls(build))] if table else []


def static_called(build: Build) -> U64Array:
    """The functions that static call sites call."""
    found = [one.called() for one in _static_call_sites(build)]
    return found[0] if found else np.empty(0, dtype=np.uint64)


def state_passes(build: Build) -> list[PatchPass]:
    """Text that follows variables at any time: constants, static branches and calls, tracing, probes."""
    image, linux = build.image, build.linux
    passes = as_far_as_they_came(constant_passes(image, linux), linux)
    passes += [*lasting_passes(build), *_static_call_sites(build)]
    if build.linux.symbols.find("__start_static_call_sites") is not None:
        passes.append(StaticCallTrampolines(image, _static_calls(build), build.static_calls))
    passes += [
        FtracePass(image, linux, build.tracing, build.nops),
        FtraceTrampolineCalls(image, linux, build.mitigations, build.tracing),
    ]
    # An optimised probe overwrites what a plain one left.
    return [*passes, KprobesPass(build.probes), OptprobesPass(build.probes)]


def lasting_passes(build: Build) -> list[JumpLabelsPass]:
    """The passes whose tables the kernel keeps and whose places need no text as built: static branches."""
    labels, at = build.table("__start___jump_table", "__stop___jump_table")
    return [JumpLabelsPass(labels, at, build.image, build.linux, build.nops)] if labels else []


def all_passes(build: Build) -> list[PatchPass]:
    """Every pass, in the order in which this kernel runs them."""
    return boot_passes(build) + state_passes(build)


_TABLES = {"alternative": ".altinstructions", "paravirt": ".parainstructions"}


def table_problems(build: Build, passes: Sequence[PatchPass]) -> list[str]:
    """A line for each table with entries that are impossible or name nothing in the image."""
    problems = list(build.problems)
    for the_pass in passes:
        if isinstance(the_pass, AlternativesPass):
            problems += the_pass.table.problems[:MAX_PROBLEMS]
        table = the_pass.table if isinstance(the_pass, Sweep) else _TABLES.get(the_pass.mechanism)
        if table is not None and not isinstance(the_pass, FtracePass):
            problems += _outside(build, the_pass.spans(), table)
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
