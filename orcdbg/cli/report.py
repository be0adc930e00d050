"""orcdbg report: into which file does the account of a dead kernel go?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orcdbg.cli.main import named_files
from orcdbg.cli.options import (
    OptionParser,
    add_answer_format,
    add_debug_folders,
    add_module_folders,
    add_type_options,
    type_options,
)
from orcdbg.cli.output import answer_alone
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.report import WrittenReport, document_form, make_report
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.writing import refuse_outputs, replacing
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
    add_module_folders(made)
    add_debug_folders(made)
    add_type_options(made)
    add_answer_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Runs `orcdbg report`; the exit status."""
    options = _parser().parse_args(arguments)
    form = document_form(options.output)
    files = named_files(options.files)
    session = open_session(*files, debug_folders=options.debug_dir, type_options=type_options(options))
    for folder in options.modules:
        session.add_module_folder(folder)
    # What can be refused is refused before the work, which takes its time.
    refuse_outputs(options.output, (*files, *session.files))

    with Waiting("report", sys.stderr):
        report = make_report(Debugger(session), standard_commands(), files, ["orcdbg", "report", *arguments])
        data = document(report, form).encode("utf-8", "backslashreplace")
    with replacing(options.output, session.files) as file:
        file.write(data)

    answer_alone(options.format, "report", WrittenReport(options.output, len(data), report.missing))
    return 0
