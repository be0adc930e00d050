"""How do typed lines reach the commands, and answers and errors the user? cmd2 does the rest.

cmd2 brings line editing, pipes, redirection, aliases, macros, history and scripts. Of its own commands only those in
`shellwords` stay; every command of the registry becomes one of its commands.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import cmd2
from cmd2.exceptions import RedirectionError
from cmd2.plugin import CommandFinalizationData, PostparsingData
from cmd2.rich_utils import AllowStyle
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.shortcuts import CompleteStyle

from orcdbg.base.errors import OrcdbgError, UsageError, WordPlace
from orcdbg.base.inputs import remember
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.python_blocks import BlockReader
from orcdbg.commands.quit import Quit
from orcdbg.commands.registry import Registry
from orcdbg.commands.sys import facts_of
from orcdbg.commands.sys import sys as sys_command
from orcdbg.commands.writing import refuse_inputs
from orcdbg.repl import expression_lines, pager, redirection
from orcdbg.repl.answers import Answerer, Answers
from orcdbg.repl.banner import KEYS, banner_lines, find_fact
from orcdbg.repl.candidates import make_sources
from orcdbg.repl.cmd2_words import complain, describe
from orcdbg.repl.completion import Completer, Offer
from orcdbg.repl.names import SymbolNames
from orcdbg.repl.pasting import insert_pastes, marked_pastes
from orcdbg.repl.shellwords import ShellWord, as_cmd2_has_it
from orcdbg.repl.toolbar import prompt_text, read_status, toolbar_text
from orcdbg.views.page import safe
from orcdbg.views.waiting import Waiting

SHORTCUTS = {"!": "shell", "?": "help"}
BLOCK_PROMPT = "py> "
_ONE_COLUMN = 16
_A_MOMENT = 0.02  # seconds; destructors take much less


# What the library's sets and mappings of weak references do when an object in them is freed.
_WEAK_MODULES, _WEAK_REMOVERS = ("weakref", "_weakrefset"), ("remove", "_remove")


def _is_in_destructor(frame: FrameType | None) -> bool:
    """Whether code runs that Python calls when it frees an object: its destructor, or that of a set of weak references."""
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or (name in _WEAK_REMOVERS and frame.f_globals.get("__name__") in _WEAK_MODULES):
            return True
        frame = frame.f_back
    return False


class Shell(cmd2.Cmd):
    """The prompt.

    Args:
        registry: the commands, the shell's own words among them.
        debugger: what they work on.
        output: how answers look.
        history: path of the history file; empty for none.
    """

    def __init__(self, registry: Registry, debugger: Debugger, output: Answerer, history: str) -> None:
        super().__init__(
            allow_cli_args=False,
            allow_clipboard=False,
            enable_bottom_toolbar=True,
            persistent_history_file=history,
            shortcuts=SHORTCUTS,
            terminators=(),
        )
        self._registry = registry
        self._debugger = debugger
        self._terminal = self.stdout  # cmd2 puts a file or a pipe in its place while a line is redirected
        self._answers = Answers(output, self._terminal)
        self._names = SymbolNames(debugger.session)
        self._completer = Completer(registry, make_sources(debugger, registry, self._names))
        self._block = BlockReader()
        self.is_open = False  # until the first prompt
        self.quiet_start = False  # whether there is no banner
        self._warned = 0
        self._release: str | None = None
        self._status = read_status(debugger, None)
        self.interactive_pipe = True  # with output into `tee` there is a prompt all the same
        self.max_column_completion_results = _ONE_COLUMN
        self._use_color(output.color)
        self._let_ctrl_c_be_a_key()
        self._install_commands()
        expression_lines.install(self.statement_parser, registry)
        self.register_postparsing_hook(self._refuse_open_end)
        self.register_cmdfinalization_hook(self._after_line)

    def build_settables(self) -> None:
        """cmd2's settings are left out: `set` is orcdbg's."""

    def _use_color(self, color: bool) -> None:
        self.allow_style = AllowStyle.TERMINAL if color else AllowStyle.NEVER
        # cmd2 would send 24-bit colours to any terminal; without a depth prompt_toolkit finds out what this one has.
        self.main_session.color_depth = None if color else ColorDepth.MONOCHROME

    def _let_ctrl_c_be_a_key(self) -> None:
        """Keeps prompt_toolkit from handling SIGINT: it breaks when one comes while it puts the terminal back."""
        setattr(self.main_session, "prompt", partial(self.main_session.prompt, handle_sigint=False))  # noqa: B010

    def _install_commands(self) -> None:
        words = [word for word in self._registry.words if self.statement_parser.is_valid_command(word)[0]]
        kept = {word for word in words if isinstance(self._registry.find(word), ShellWord)}
        for name in self.get_all_commands():
            if name not in kept:
                setattr(self, f"do_{name}", None)
        setattr(self, "do__eof", self._leave)  # noqa: B010  the class has it as a method of another type
        for word in words:
            if word not in kept:
                setattr(self, f"do_{word}", self._run)
                setattr(self, f"complete_{word}", self._complete_later_word)

    # Lines

    def _run(self, statement: cmd2.Statement) -> bool:
        """Runs a line; True when it is the last one."""
        line = statement.command_and_args
        try:
            with Waiting(line, sys.stderr), marked_pastes(self.main_session.output):
                result = self._registry.run(self._debugger, line)
            self._begin_file()
            self._answers.write(line, result, self.stdout, self._pager())
        except Quit:
            return True
        except OrcdbgError as error:
            self._show_traceback()
            self._fail(line, error)
        except KeyboardInterrupt:
            if self.stdout is not self._terminal:
                print(file=sys.stderr)  # cmd2 ended the line of the ^C where the answer was going to
            complain("interrupted")
            raise
        return False

    def _fail(self, line: str, error: OrcdbgError) -> None:
        """Prints an error; as JSON it goes where the answer would have gone, unless that is what must not be written."""
        out = self.stdout
        try:
            if self._answers.output.is_json:
                self._begin_file()
        except UsageError as refusal:
            error, out = refusal, self._terminal
        self._answers.output.failure(line, error, out)

    def _begin_file(self) -> None:
        """Empties the file that is redirected to; UsageError where the command has read it meanwhile."""
        if isinstance(self.stdout, redirection.Target):
            self.stdout.begin(self._debugger.session.files)

    def default(self, statement: cmd2.Statement) -> bool | None:
        """Lines whose first word is not known to cmd2 go to the registry too: it has the words for the refusal."""
        return self._run(statement)

    def _leave(self, statement: cmd2.Statement) -> bool:
        """Leaves, at Ctrl-D."""
        self.poutput()
        return True

    def sigint_handler(self, signum: int, frame: FrameType | None) -> None:
        """Stops the command that runs, or orcdbg itself before the first prompt; nothing at any other moment."""
        if _is_in_destructor(frame):
            # An exception there is printed and lost, and the interrupt with it. The loop of each prompt has a destructor.
            threading.Timer(_A_MOMENT, signal.pthread_kill, (threading.get_ident(), signum)).start()
            return

        # cmd2 does not stop protected code either, but passes the signal on to the program that it waits for.
        if self.current_command is not None or self.sigint_protection or not self.is_open:
            super().sigint_handler(signum, frame)

    def _refuse_open_end(self, data: PostparsingData) -> PostparsingData:
        """Refuses a pipe or redirection to nowhere, which for cmd2 means the clipboard, or to what is none."""
        statement = data.statement
        if isinstance(statement, expression_lines.RefusedStatement) and statement.refusal is not None:
            self._answers.output.failure(statement.command, statement.refusal, self.stdout)
            raise cmd2.SkipPostcommandHooks
        if statement.redirector and not statement.redirect_to:
            place = WordPlace(
                statement.raw, max(statement.raw.rfind(statement.redirector), 0), len(statement.redirector)
            )
            error = UsageError(f"nothing after {statement.redirector}: {statement.raw}", place=place)
            self._answers.output.failure(statement.command, error, self.stdout)
            raise cmd2.SkipPostcommandHooks
        return data

    def _redirect_output(self, statement: cmd2.Statement) -> cmd2.utils.RedirectionSavedState:
        """Opens the file of a redirection in cmd2's place, which would empty any."""
        if statement.redirector not in redirection.WORDS or not statement.redirect_to:
            return super()._redirect_output(statement)
        path = cmd2.string_utils.strip_quotes(statement.redirect_to)
        inputs = self._debugger.session.files
        try:
            target = redirection.Target(path, inputs, append=statement.redirector == ">>")
        except UsageError as error:
            self._answers.output.failure(statement.command, error, self.stdout)
            raise cmd2.SkipPostcommandHooks from error
        except OSError as error:
            raise RedirectionError("cannot redirect") from error
        if isinstance(self._registry.find(statement.command), ShellWord) and statement.command != "run_script":
            # cmd2 writes by itself, or has a program do it; a script may be the file that is redirected to.
            target.begin(inputs)
        saved = super()._redirect_output(cmd2.Statement(""))
        self.stdout = target
        saved.redirecting = self._redirecting = True
        return saved

    @cmd2.with_argparser(cmd2.Cmd._build_history_parser)
    def do_history(self, args: argparse.Namespace) -> bool | None:
        """View, run, edit, save, or clear previously entered commands."""
        if args.output_file:
            try:
                refuse_inputs(os.path.expanduser(args.output_file), self._debugger.session.files)  # noqa: PTH111
            except UsageError as error:
                self._answers.output.failure("history", error, self.stdout)
                return None
        return super().do_history.__wrapped__(self, args)  # type: ignore[attr-defined, no-any-return]

    @cmd2.with_argparser(cmd2.Cmd._build_run_script_parser)
    def do_run_script(self, args: argparse.Namespace) -> bool | None:
        """Run text script."""
        remember(os.path.expanduser(args.script_path))  # noqa: PTH111
        try:
            self._begin_file()
        except UsageError as error:
            self._answers.output.failure("run_script", error, self._terminal)
            return None
        return super().do_run_script.__wrapped__(self, args)  # type: ignore[attr-defined, no-any-return]

    def _create_key_bindings(self, completekey: str) -> KeyBindings:
        bindings = super()._create_key_bindings(completekey)
        insert_pastes(bindings)
        return bindings

    def onecmd_plus_hooks(self, line: str, **kwargs: Any) -> bool:
        """Runs a line; of several, as they come from a paste, one after the other until one is interrupted."""
        lines = [one for one in line.split("\n") if one.strip()]
        if len(lines) < 2:
            return self._run_unless_block(line, **kwargs)
        return self.runcmds_plus_hooks(lines, stop_on_keyboard_interrupt=True)

    def _read_command_line(self, prompt: str) -> str:
        """Reads a line; Ctrl-C leaves a block of Python."""
        try:
            return super()._read_command_line(prompt)
        except KeyboardInterrupt:
            self._leave_block()
            raise

    def _leave_block(self) -> None:
        if self._block.is_open:
            self._block.cancel()
            self._refresh_status()

    def _run_unless_block(self, line: str, **kwargs: Any) -> bool:
        """Runs a line, or keeps it while it is one of a block of Python; Ctrl-D leaves the block, as Ctrl-C does."""
        if self._block.is_open and line == "_eof":
            self.poutput()
            self._leave_block()
            return False
        whole = self._block.take(line)
        if whole is None:
            self.prompt = BLOCK_PROMPT
            return False
        return super().onecmd_plus_hooks(as_cmd2_has_it(whole), **kwargs)

    def _after_line(self, data: CommandFinalizationData) -> CommandFinalizationData:
        self._show_warnings()
        self._refresh_status()
        return data

    # Before the first line

    def preloop(self) -> None:
        """Shows the banner, and begins to sort the symbols' names while the user reads it."""
        try:
            self._show_banner()
        except OrcdbgError as error:
            # What the banner asks for may be broken, and yet there is memory to look at.
            self._answers.output.failure("sys", error, self.stdout)
        self._show_warnings()
        self._refresh_status()
        self._names.start()
        self.is_open = True

    def _show_banner(self) -> None:
        if self._registry.find("sys") is not sys_command:
            return  # a plug-in's
        system = facts_of(self._debugger, KEYS)  # the others would keep the prompt waiting
        self._release = find_fact(system, "release")
        if not self.quiet_start and sys.stderr.isatty():
            for text in banner_lines(system, self._answers.screen().columns):
                print(text, file=sys.stderr)

    # What the user sees besides answers

    def _refresh_status(self) -> None:
        # The toolbar is drawn at every key, so what it says is looked up after each line only.
        self._status = read_status(self._debugger, self._release)
        self.prompt = prompt_text(self._status.frame)

    def get_bottom_toolbar(self) -> str:
        """The toolbar's text, for prompt_toolkit."""
        return toolbar_text(self._status, self._answers.screen().columns)

    def _pager(self) -> Callable[[str], None] | None:
        """What shows a long answer: None in scripts, and when the user or the system has no pager."""
        words = pager.find_pager()
        if words is None or self._debugger.settings["scroll"] != "on" or self.in_script() or not self.stdin.isatty():
            return None

        def show(text: str) -> None:
            # Ctrl-C inside the pager is the pager's.
            with self.sigint_protection:
                pager.page(words, text)

        return show

    def _show_warnings(self) -> None:
        """Prints the session's warnings that were not printed yet."""
        warnings = self._debugger.session.warnings
        for message in warnings[self._warned :]:
            complain(f"warning: {message}")
        self._warned = len(warnings)

    def perror(self, *objects: Any, **kwargs: Any) -> None:
        """Prints one of cmd2's own errors in orcdbg's form."""
        for error in objects:
            if not isinstance(error, KeyboardInterrupt):  # `_run` has said so
                complain(describe(error))

    def pexcept(self, exception: BaseException, **kwargs: Any) -> None:
        """Prints an error that nobody foresaw; a traceback only where it was asked for."""
        self._show_traceback()
        complain(f"{type(exception).__name__}: {exception}", None if self.debug else "orcdbg --debug shows where")

    def _show_traceback(self) -> None:
        if self.debug:
            traceback.print_exc()

    # Completion

    def complete(
        self,
        text: str,
        line: str,
        begidx: int,
        endidx: int,
        custom_settings: cmd2.CustomCompletionSettings | None = None,
    ) -> cmd2.Completions:
        """Completes the word under the cursor; cmd2 finds out which word it is and completes its own commands."""
        is_first = custom_settings is None and not line[:begidx].strip() and not text.startswith(tuple(SHORTCUTS))
        if not is_first:
            return super().complete(text, line, begidx, endidx, custom_settings)
        offers = self._completer.first_word(text, self._user_words())
        few = len(offers) <= self.max_column_completion_results
        self.active_session.complete_style = CompleteStyle.COLUMN if few else CompleteStyle.MULTI_COLUMN
        return _completions(offers)

    def _user_words(self) -> dict[str, str]:
        aliases = {name: f"alias for {value}" for name, value in self.aliases.items()}
        return aliases | {name: f"macro for {macro.value}" for name, macro in self.macros.items()}

    def _complete_later_word(self, text: str, line: str, begidx: int, endidx: int) -> cmd2.Completions:
        words, _ = self.tokens_for_completion(line, begidx, endidx)
        try:
            return _completions(self._completer.later_word(words[:-1], text))
        except OrcdbgError:
            # Half a line is no place for an error; the command will say it.
            return cmd2.Completions()


def _completions(offers: Sequence[Offer]) -> cmd2.Completions:
    return cmd2.Completions(
        items=[cmd2.CompletionItem(o.text, display=safe(o.text), display_meta=safe(o.note)) for o in offers],
        is_sorted=True,
        allow_finalization=all(offer.whole for offer in offers),
    )
