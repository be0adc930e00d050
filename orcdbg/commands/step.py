"""step: instructions from the selected frame on, on a copy of the snapshot or on the live guest."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import begin, checked_count, current, run
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import Steps, add_count, add_run_options, moves_guest

if TYPE_CHECKING:
    from orcdbg.commands.what_if import Comparison


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_count(parser, default=None)
    add_run_options(parser)
    parser.add_argument("--at", metavar="ADDR|SYMBOL", help="start over, as if the selected frame had called this")
    parser.add_argument(
        "--args",
        nargs="+",
        metavar="REG=VALUE",
        default=[],
        help="start over with these registers set; += and -= work too",
    )
    parser.add_argument("--restart", action="store_true", help="start over at the selected frame")
    parser.add_argument("--frame", type=int, metavar="N", help="start over at frame N, and select it")
    parser.add_argument("--zero", action="store_true", help="treat registers with unknown values as 0")
    parser.add_argument(
        "--text", metavar="image|patched|alternative=N", help="run a patch site as if this were its text"
    )
    parser.add_argument(
        "--site", metavar="ADDR|SYMBOL", help="the site that --text means (default: the next one in the function)"
    )


@command(
    "step",
    summary="run instructions from the selected frame on, on a copy of the snapshot",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("si", "stepi"),
    operands=("symbol",),
    examples=(
        ("step 3 --trace", "three instructions, each with its rule, CFA and caller"),
        ("step --at schedule --zero", "at the entry of a function, as if the selected frame had called it"),
        ("step 9 --trace --text image", "the next patch site as it was built, and what that does to the stack"),
    ),
)
def step(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Answers with what was run and where the CPU stands."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.step(debugger, arguments)

    is_new = bool(arguments.at or arguments.args or arguments.restart or arguments.frame is not None)
    if arguments.frame is not None:
        debugger.frame_index = debugger.frame(arguments.frame).index
    if is_new or debugger.selected_emulation is None:
        _begin_anew(debugger, arguments)

    comparison = _with_other_text(debugger, arguments)

    # Beginning anew, or with another text, shows where the CPU stands before anything is run.
    count = arguments.count if arguments.count is not None else 0 if is_new or arguments.text else 1
    steps = run(debugger, current(debugger), arguments, lambda _, motions: motions.run(checked_count(count)))
    return replace(steps, comparison=comparison)


def _begin_anew(debugger: Debugger, arguments: argparse.Namespace) -> None:
    """Begins a new emulation, which stops where the old one would have."""
    debugger.emulation = begin(debugger, arguments.at, arguments.args, arguments.zero)


def _with_other_text(debugger: Debugger, arguments: argparse.Namespace) -> Comparison | None:
    """Goes on with the text that `--text` names, and compares it with what ran; None where it is not given."""
    if arguments.text:
        from orcdbg.commands.what_if import compare

        debugger.emulation, comparison = compare(current(debugger), debugger, arguments.text, arguments.site)
        return comparison
    if arguments.site:
        raise UsageError("--site names the patch site that --text is about", "give --text too")
    return None
