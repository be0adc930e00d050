"""How does a result look to a program? The shapes are those of docs/contract.md."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from orcdbg.base.errors import NotInSnapshot, OrcdbgError
from orcdbg.checkup.account import Checkup
from orcdbg.commands import results
from orcdbg.commands.journal import Exported
from orcdbg.commands.lines import lookup
from orcdbg.commands.live import Stopped
from orcdbg.commands.log import Log
from orcdbg.commands.log_check import LogChecks
from orcdbg.commands.mapping import AddressMapping
from orcdbg.commands.register_search import SavedSets
from orcdbg.commands.stack_choice import CrashStacks, StackGroups
from orcdbg.commands.structures import Structure
from orcdbg.commands.trim import Trimmed, TrimmedImage
from orcdbg.image.source_position import Position
from orcdbg.orc.effective import PatchEffect
from orcdbg.patches.site import PatchSite
from orcdbg.unwind.frame import Frame, Registers, StackTrace
from orcdbg.views import (
    audit_json,
    checkup,
    live,
    log,
    log_check,
    mapping,
    saved,
    structures,
    trim,
)
from orcdbg.views.audit_json import hexadecimal
from orcdbg.views.lines import position_json
from orcdbg.views.reasons import message_of, words, words_or_none
from orcdbg.views.steps import Context, Steps, Stops, stepping_json

SCHEMA = 1
Json = dict[str, Any]


def envelope(command: str, result: results.Result) -> Json:
    """One executed command's line."""
    return {"schema": SCHEMA, "command": command, "ok": True, "result": encode(result)}


def error_envelope(command: str, error: OrcdbgError) -> Json:
    """One failed command's line."""
    state = error.state.value if isinstance(error, NotInSnapshot) else None
    about = {"kind": error.kind, "message": message_of(error), "hint": error.hint, "state": state}
    return {"schema": SCHEMA, "command": command, "ok": False, "error": about}


@functools.singledispatch
def encode(result: results.Result) -> Any:
    """The JSON value of a result; one of a plug-in encodes itself."""
    return result.to_json()  # type: ignore[attr-defined]


@encode.register
def _(result: results.Nothing) -> Json:
    return {}


@encode.register
def _(result: results.Text) -> Json:
    return {"lines": list(result.lines)}


def _patch(patch: PatchEffect | None) -> Json | None:
    if patch is None:
        return None
    return {
        "mechanism": patch.site.mechanism,
        "site": hexadecimal(patch.site.address),
        "name": patch.site.name,
        "adjust": patch.adjust,
        "instructions": list(patch.instructions),
        "stated_rule": patch.stated_rule,
        "decided_by": patch.site.decided_by,
        "text_from": patch.text_from.value,
    }


def registers(values: Registers) -> Json:
    """Register values by name, each with its source."""
    return {name: {"value": hexadecimal(found.value), "source": found.source} for name, found in values.items()}


def frame(found: Frame, position: Position | None = None) -> Json:
    """A FRAME of the contract."""
    place = found.location
    recovered = found.recovered
    return {
        "index": found.index,
        "kind": found.kind.value,
        "stack": found.stack.value,
        "ip": hexadecimal(found.ip),
        "symbol": place.symbol if place else None,
        "offset": found.ip - place.start if place else None,
        "size": place.size if place else None,
        "module": place.module if place else None,
        "sp": hexadecimal(found.sp),
        "bp": hexadecimal(found.bp),
        "cfa": hexadecimal(found.cfa),
        "rule": found.rule,
        "source": found.source.value,
        "orc": audit_json.orc_json(found.entry),
        "patch": _patch(found.patch),
        "return_slot": hexadecimal(found.return_slot),
        "recovered": {"by": recovered.by.value, "trampoline": hexadecimal(recovered.trampoline)} if recovered else None,
        "reliable": found.is_trusted,
        "doubt": words_or_none(found.doubt),
        "notes": [words(note) for note in found.notes],
        **position_json(position),
    }


def stack(
    trace: StackTrace, syscall: str | None, positions: Mapping[int, Position], frames: Sequence[Any] | None = None
) -> Json:
    """A stack of the contract, with other values for its frames where they are given."""
    if frames is None:
        frames = [frame(found, positions.get(lookup(found))) for found in trace.frames]
    return {
        "task": hexadecimal(trace.task),
        "pid": trace.pid,
        "comm": trace.comm,
        "cpu": trace.cpu,
        "running": trace.running,
        "registers_from": trace.registers_from,
        "syscall": syscall,
        "frames": frames,
        "end": trace.end.value,
        "end_reason": words_or_none(trace.end_reason),
    }


@encode.register
def _(result: results.Stacks) -> Json:
    stacks = [stack(trace, result.syscalls.get(trace.task), result.positions) for trace in result.stacks]
    return {"stacks": stacks, "problems": list(result.problems)}


@encode.register
def _(result: CrashStacks) -> Any:
    return encode(result.stacks)


@encode.register
def _(result: StackGroups) -> Json:
    shared = result.stacks
    groups = [
        {
            "count": len(group.pids),
            "pids": list(group.pids),
            "stack": stack(group.trace, shared.syscalls.get(group.trace.task), shared.positions),
        }
        for group in result.groups
    ]
    return {"groups": groups, "problems": list(shared.problems)}


@encode.register
def _(result: results.FrameDetail) -> Json:
    base = result.frame.registers.get(result.base_register or "")
    return {
        "frame": frame(result.frame, result.position),
        "base_register": {"name": result.base_register, "value": hexadecimal(base.value), "source": base.source}
        if base
        else None,
        "bp_rule": result.bp_rule,
        "sites": [_site(site, None) for site in result.sites],
        "memory": result.memory.hex() if result.memory is not None else None,
        "instructions": [_instruction(line) for line in result.instructions],
    }


@encode.register
def _(result: results.FrameRegisters) -> Json:
    return {
        "frame": result.frame.index,
        "registers": registers(result.registers),
        "unknown": dict(result.unknown),
    }


@encode.register
def _(result: results.OrcAnswer) -> Json:
    effective = result.effective
    return {
        "address": hexadecimal(result.address),
        "symbol": result.symbol,
        "orc": audit_json.orc_json(result.entry),
        "effective": {
            "rule": str(effective.rule) if effective.rule else None,
            "bp_rule": result.bp_rule,
            "source": effective.source.value,
            "doubt": words_or_none(effective.doubt),
        },
        "patch": _patch(effective.patch),
    }


def _site(site: PatchSite, memory: bytes | None) -> Json:
    return {
        "mechanism": site.mechanism,
        "site": hexadecimal(site.address),
        "size": site.size,
        "name": site.name,
        "image": site.image.hex(),
        "expected": site.expected.hex() if site.expected is not None else None,
        "memory": memory.hex() if memory is not None else None,
        "decided_by": site.decided_by,
        "order": site.order,
    }


@encode.register
def _(result: results.Sites) -> Json:
    return {"sites": [_site(s.site, s.memory) | {"symbol": s.symbol} for s in result.sites], "total": result.total}


def _instruction(line: results.Instruction, position: Position | None = None) -> Json:
    patch = None
    if line.site is not None and line.image is not None:
        patch = {
            "mechanism": line.site.mechanism,
            "site": hexadecimal(line.site.address),
            "name": line.site.name,
            "adjust": line.adjust,
            "stated_rule": line.stated_rule,
        }
    return {
        "address": hexadecimal(line.address),
        "bytes": line.raw.hex(),
        "mnemonic": line.mnemonic,
        "operands": line.operands,
        "symbol": line.symbol,
        "offset": line.offset,
        "image_bytes": line.image.hex() if line.image is not None else None,
        "patch": patch,
        "rule": line.rule,
        **position_json(position),
    }


@encode.register
def _(result: results.Disassembly) -> Json:
    instructions = [_instruction(line, result.positions.get(line.address)) for line in result.instructions]
    return {"instructions": instructions, "source": result.source.value, "problems": list(result.problems)}


@encode.register
def _(result: results.Symbols) -> Json:
    def one(line: results.SymbolLine) -> Json:
        return {
            "address": hexadecimal(line.address),
            "type": line.letter,
            "name": line.name,
            "offset": line.offset,
            "size": line.size,
            "module": line.module,
        }

    return {"symbols": [one(line) for line in result.symbols]}


@encode.register
def _(result: results.Words) -> Json:
    step, names = result.width, result.names
    words = []
    for i in range(0, len(result.data), step):
        value = int.from_bytes(result.data[i : i + step], "little")
        symbol = names[i // step] if names is not None else None
        words.append({"address": hexadecimal(result.address + i), "value": hexadecimal(value), "symbol": symbol})
    return {"width": step, "words": words}


@encode.register
def _(result: results.Tasks) -> Json:
    def one(task: Any) -> Json:
        return {
            "task": hexadecimal(task.address),
            "pid": task.pid,
            "tgid": task.tgid,
            "cpu": task.cpu,
            "state": task.state,
            "running": task.address in result.running,
            "kernel_thread": task.is_kernel_thread,
            "parent": hexadecimal(task.parent),
            "comm": task.comm,
        }

    problems: Sequence[str] = list(result.problems)
    return {"tasks": [one(task) for task in result.tasks], "absent": list(result.absent), "problems": problems}


@encode.register
def _(result: results.Modules) -> Json:
    modules = [
        {
            "module": hexadecimal(module.address),
            "name": module.name,
            "size": module.size,
            "text": hexadecimal(module.text[0]),
            "text_size": module.text[1],
            "ranges": [{"address": hexadecimal(start), "size": size} for start, size in module.ranges],
        }
        for module in result.modules
    ]
    return {"modules": modules, "problems": list(result.problems)}


@encode.register
def _(result: results.System) -> Json:
    facts = {fact.key: fact.value for fact in result.facts}
    return {"system": facts, "absent": {fact.key: fact.why for fact in result.facts if fact.why}}


@encode.register
def _(result: results.Settings) -> Json:
    task = result.task
    return {
        "settings": dict(result.values),
        "task": hexadecimal(task.address) if task else None,
        "pid": task.pid if task else None,
        "cpu": result.cpu,
        "frame": result.frame,
    }


# Results whose two forms stand together in a file of their own.
encode.register(Stopped, live.stopped_json)
encode.register(SavedSets, saved.saved_json)
encode.register(LogChecks, log_check.checks_json)
encode.register(Structure, structures.structure_json)
encode.register(AddressMapping, mapping.mapping_json)
encode.register(Log, log.log_json)
encode.register(Exported, audit_json.exported_json)
encode.register(Checkup, checkup.checkup_json)
encode.register(Trimmed, trim.trimmed_json)
encode.register(TrimmedImage, trim.image_json)
encode.register(results.Check, audit_json.check_json)
encode.register(results.StaticCheck, audit_json.static_check_json)
encode.register(results.Union, audit_json.union_json)
encode.register(results.OrcDump, audit_json.dump_json)
encode.register(results.Audit, audit_json.audit_json)
encode.register(results.Replay, audit_json.replay_json)


@encode.register
def _(result: Steps | Context | Stops) -> Json:
    return stepping_json(result, frame, _instruction)
