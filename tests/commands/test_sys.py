"""sys tells what is known of the machine."""

from __future__ import annotations

import pytest

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.sys import panic_message
from orcdbg.kernel.log import LogRecord
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import text_pieces


def test_sys_shows_what_panic_printed(registry: Registry, debugger: Debugger) -> None:
    """Of a panic in the log; a log without one has no message."""
    found = encode(registry.run(debugger, "sys"))["system"]
    assert (found["panic"], found["panic_message"]) == ("on CPU 0", "Kernel panic - not syncing: NMI: Not continuing")
    assert "MESSAGE: Kernel panic - not syncing: NMI: Not continuing\n" in "".join(
        text_pieces(registry.run(debugger, "sys"), None)
    )


@pytest.mark.parametrize("facility", [0, 1])
def test_a_program_does_not_say_what_panicked(facility: int) -> None:
    """Words of a panic that came through /dev/kmsg are no panic's."""
    record = LogRecord(7, 1, 0, facility, None, "one\nKernel panic - not syncing: of a test")
    assert panic_message([record]) == (None if facility else "Kernel panic - not syncing: of a test")
