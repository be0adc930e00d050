"""orcdbg report: into which file does the account of a dead kernel go?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orcdbg.cli.main import sample_files
from orcdbg.cli.options import OptionParser, add_type_options, type_options
from orcdbg.cli.output import Output, terminal_width, wants_color
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.report import WrittenReport, document_form, make_report
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.writing import refuse_inputs, replacing
from orcdbg.target.opening import open_session
from orcdbg.views.report import document
from orcdbg.views.waiting import Waiting


def _parser() -> OptionParser:
    made = OptionParser(
        prog="orcdbg report",
        description="Write one file that says what a kernel died of, with its stacks, log and modules; never user memory.",
        allow_abbrev=False,
    )
    made.add_argument("files", nargs="+", metavar="VMLINUX SNAPSHOT", help="the two files, in any order, or one")
    made.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the file to write: .html, .md or .txt, by its suffix"
    )
    made.add_argument(
        "--modules",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of modules' files with DWARF; repeatable",
    )
    made.add_argument(
        "--debug-dir", action="append", default=[], metavar="DIR", help="a folder of split-off debug files; repeatable"
    )
    add_type_options(made)
    made.add_argument("--format", choices=("text", "json"), default="text", help="format of the answer (default: text)")
    return made


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg report`; the exit status."""
    options = _parser().parse_args(arguments)
    form = document_form(options.output)
    files = sample_files() if options.files == ["demo"] else options.files
    session = open_session(*files, debug_folders=options.debug_dir, type_options=type_options(options))
    for folder in options.modules:
        session.add_module_folder(folder)
    # What can be refused is refused before the work, which takes its time.
    refuse_inputs(options.output, (*files, *session.files))

    with Waiting("report", sys.stderr):
        report = make_report(Debugger(session), standard_commands(), files, ["orcdbg", "report", *arguments])
        data = document(report, form).encode("utf-8", "backslashreplace")
    with replacing(options.output, session.files) as file:
        file.write(data)

    output = Output(options.format, wants_color("auto", sys.stdout), terminal_width(sys.stdout))
    output.answer("report", WrittenReport(options.output, len(data), report.missing), sys.stdout)
    return 0
