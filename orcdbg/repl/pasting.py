"""What becomes of pasted text? It waits in the line that is edited, however many lines it has, until Enter is pressed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output


def insert_pastes(bindings: KeyBindings) -> None:
    """Has a paste go into the buffer as it is: cmd2 presses Enter at each end of a line, which runs what was pasted."""
    with contextlib.suppress(ValueError):
        bindings.remove(Keys.BracketedPaste)

    @bindings.add(Keys.BracketedPaste)
    def _insert(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(pasted(event.data))


def pasted(text: str) -> str:
    """Pasted text as it is put into the buffer: ends of lines are newlines, and there is none after the last."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


@contextlib.contextmanager
def marked_pastes(output: Output) -> Iterator[None]:
    """While a command runs the terminal goes on to mark what is pasted, so that the next prompt knows it for a paste.

    Args:
        output: the terminal. prompt_toolkit has it mark pastes at the prompt only.
    """
    output.enable_bracketed_paste()
    output.flush()
    try:
        yield
    finally:
        output.disable_bracketed_paste()
        output.flush()
