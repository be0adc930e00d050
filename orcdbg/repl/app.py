"""How is a session at the prompt run, from the banner to the exit status?"""

from __future__ import annotations

import errno
import os
import signal

from orcdbg.base.errors import UsageError
from orcdbg.base.inputs import remember
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.writing import refuse_inputs
from orcdbg.repl.answers import Answerer
from orcdbg.repl.cmd2_words import adopt, complain
from orcdbg.repl.history import history_file, make_folder
from orcdbg.repl.shell import Shell
from orcdbg.repl.shellwords import add_shell_words


def run_repl(registry: Registry, debugger: Debugger, output: Answerer, debug: bool = False, quiet: bool = False) -> int:
    """Reads and runs lines until the user leaves; the exit status.

    Args:
        registry: the commands; the shell's own words are added to it.
        debugger: what they work on.
        output: how answers look.
        debug: show tracebacks of errors.
        quiet: show no banner.
    """
    add_shell_words(registry)
    history = history_file(os.environ)
    problem = make_folder(history)
    try:
        # At the end it is written anew, wherever a link in its place leads to.
        refuse_inputs(str(history), debugger.session.files)
    except UsageError as error:
        problem = f"{error.message}: this session's lines will not be kept"
    remember(str(history))
    adopt()
    shell = Shell(registry, debugger, output, "" if problem else str(history))
    shell.debug = debug
    shell.quiet_start = quiet
    if problem:
        complain(problem)
    try:
        return shell.cmdloop()
    except OSError as error:
        # The terminal went away, and prompt_toolkit found out while it wrote to it.
        if error.errno != errno.EIO:
            raise
        return 128 + signal.SIGHUP
