"""patch: what did the kernel write over its own text, and why?"""

from __future__ import annotations

import argparse

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.patch_audit import add_audit
from orcdbg.commands.patch_check import add_check
from orcdbg.commands.patch_export import add_export
from orcdbg.commands.patch_replay import add_replay
from orcdbg.commands.patch_sites import add_at, add_list
from orcdbg.commands.registry import DeclaredEffect, Effect, command
from orcdbg.commands.result import Result


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|at|audit|check|replay|export")
    for add in (add_list, add_at, add_check, add_audit, add_replay, add_export):
        add(actions)


def _effect(arguments: argparse.Namespace) -> Effect | None:
    """Each action says what it does, with `effect` among the defaults of its parser."""
    if arguments.action is None:
        return Effect.NONE
    effect: DeclaredEffect | None = getattr(arguments, "effect", None)
    return effect(arguments) if callable(effect) else effect


@command(
    "patch",
    summary="show what the kernel patched in its own text, and why",
    group="code",
    effect=_effect,
    arguments=_arguments,
    operands=("symbol", "mechanism"),
    examples=(
        ("patch at _raw_spin_lock_irqsave+7", "every pass that wrote there, in order"),
        ("patch list --mechanism paravirt --changed", "all paravirt sites that were patched"),
        ("patch audit --strict", "account for every byte of text; exit status 5 when one is wrong"),
        ("patch check", "boundaries in patched text where the kernel's own rows do not hold"),
        ("patch replay -o text.elf", "the text as the passes leave it, for objdump"),
    ),
)
def patch(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers as the action's own file says."""
    if arguments.action is None:
        raise UsageError("patch what?", "patch list, at ADDR, audit, check, replay -o FILE, or export -o FILE")
    result: Result = arguments.answer(debugger, arguments)
    return result
