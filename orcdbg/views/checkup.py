"""How does the account of what files have, and what they lack, look?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from orcdbg.checkup.account import Checkup
from orcdbg.checkup.facts import Facts, ImageFacts, KernelFacts, SnapshotFacts
from orcdbg.checkup.missing import Lack, Missing
from orcdbg.commands.checkup import CheckedFiles
from orcdbg.views.page import Line, line
from orcdbg.views.view import view

Shown = dict[str, str | int | None]


class _Words(NamedTuple):
    """What is missing, and what cannot be done without; `{count}` and `{total}` are put in."""

    what: str
    cost: str


_WORDS = {
    Lack.SNAPSHOT: _Words(
        "snapshot", "only `patch check`, `orc union` and `orc dump` can be asked, of the vmlinux alone"
    ),
    Lack.RIGHT_IMAGE: _Words("the image of this kernel", "nothing can be asked: the image given is of another build"),
    Lack.SYMBOLS: _Words("symbols", "nothing has a name, so nothing can be found"),
    Lack.BTF: _Words("BTF", "no type has members, so tasks, stacks and modules cannot be read"),
    Lack.ORC: _Words(
        "ORC",
        "built without CONFIG_UNWINDER_ORC: rows are derived from the instructions of functions, and such frames say so",
    ),
    Lack.BOOT_TABLES: _Words("init tables", "which places the boot patched is not known; corrections cannot be told"),
    Lack.LINES: _Words("DWARF lines", "frames have no source lines (`bt -l`), no inlined functions"),
    Lack.CPU_REGISTERS: _Words(
        "CPU registers", "stacks of running tasks begin at what the kernel itself saved, or not at all"
    ),
    Lack.SOME_CPU_REGISTERS: _Words(
        "registers of {count} of {total} CPUs",
        "the stacks that run there begin at what the kernel itself saved, or not at all",
    ),
    Lack.VMCOREINFO: _Words(
        "VMCOREINFO", "the kernel's place is taken from CPU registers, or searched for in all memory"
    ),
    Lack.TEXT_PAGES: _Words(
        "{count} of {total} pages of kernel text",
        "there `dis` shows a replay of the image, and `patch audit` compares nothing",
    ),
    Lack.TASKS: _Words("task list", "`ps`, `foreach` and `bt` miss tasks: memory that names them is not there"),
    Lack.MODULE_FILES: _Words(
        ".ko files of {count} modules", "`patch audit` does not account for their text, and they have no source lines"
    ),
}


def _words(missing: Missing, facts: Facts) -> _Words:
    if missing.lack is Lack.IMAGE:
        return _Words("image", _cost_of_image(facts))
    words = _WORDS[missing.lack]
    return words._replace(what=words.what.format(count=missing.count, total=missing.total))


def _cost_of_image(facts: Facts) -> str:
    has_journal = facts.kernel is not None and facts.kernel.journal is not None
    patches = "patches those of the journal" if has_journal else "`patch` has nothing to compare with"
    lines = "" if facts.debug_file is not None else ", and there are no lines"
    return f"names, types and ORC rows are those in memory; {patches}{lines}"


def _shown(facts: Facts) -> Shown:
    """The facts as the contract names them, in its order; those absent that the files given cannot have."""
    shown: Shown = {"release": facts.release, "build_id": facts.build_id}
    if facts.snapshot is not None:
        shown |= _of_snapshot(facts.snapshot)
    if facts.image is not None:
        shown |= _of_image(facts.image)
    if facts.has_any_image:
        shown["debug_information"] = facts.debug_file
        shown["types"] = facts.types
    if facts.kernel is not None:
        shown |= _of_kernel(facts.kernel)
    return shown


def _of_snapshot(snapshot: SnapshotFacts) -> Shown:
    left_out = {f"{re.sub('[ -]', '_', state)}_bytes": size for state, size in sorted(snapshot.left_out.items())}
    return {
        "format": snapshot.format,
        "cpu_registers": snapshot.cpu_registers,
        "vmcoreinfo": snapshot.vmcoreinfo.value,
        "memory_ranges": snapshot.memory_ranges,
        "memory_bytes": snapshot.memory_bytes,
        **left_out,
    }


def _of_image(image: ImageFacts) -> Shown:
    return {
        "image": image.path,
        "symbols": None if image.symbols is None else image.symbols.value,
        "relocation_list": "present" if image.has_relocation_list else "absent",
    }


def _of_kernel(kernel: KernelFacts) -> Shown:
    journal: Shown = {} if kernel.journal is None else {"journal": kernel.journal}
    return {
        "kaslr": f"{kernel.slide:#x}",
        "placement": str(kernel.placement),
        **journal,
        "cpus": kernel.cpus,
        "tasks": kernel.tasks,
        "modules": kernel.modules,
        "orc": kernel.orc,
        "text_pages": kernel.text_pages,
        "text_pages_missing": kernel.text_pages_missing,
    }


def checkup_lines(result: Checkup) -> Iterator[Line]:
    """The files, what was found in them, what is missing, and whether they can be worked with."""
    for file in result.files:
        yield line((file.path, "symbol"), f": {file.kind or 'not readable'}")
        if file.problem:
            yield line("    ", (file.problem, "error"))

    for name, value in _shown(result.facts).items():
        yield line((f"{name.replace('_', ' '):>20}: ", "label"), "-" if value is None else str(value))

    for warning in result.warnings:
        yield line(("warning: ", "label"), warning)

    for missing in result.missing:
        words = _words(missing, result.facts)
        yield line(("missing: ", "label"), f"{words.what}: {words.cost}")
        if missing.command:
            yield line("    ", (missing.command, "symbol"))

    if result.error is None:
        yield line("usable")
        return

    yield line(("not usable: ", "error"), result.error.message)
    if result.error.hint:
        yield line(("hint: ", "label"), result.error.hint)


def checkup_json(result: Checkup) -> dict[str, Any]:
    """The same for programs."""
    error = result.error
    return {
        "usable": error is None,
        "files": [{"path": file.path, "kind": file.kind, "problem": file.problem} for file in result.files],
        "facts": _shown(result.facts),
        "missing": [_missing_json(missing, result.facts) for missing in result.missing],
        "warnings": list(result.warnings),
        "error": None if error is None else {"kind": error.kind, "message": error.message, "hint": error.hint},
    }


def _missing_json(missing: Missing, facts: Facts) -> dict[str, Any]:
    words = _words(missing, facts)
    return {"what": words.what, "cost": words.cost, "command": missing.command}


view(
    CheckedFiles,
    text=lambda result, width: checkup_lines(result.account),
    json=lambda result: checkup_json(result.account),
)
