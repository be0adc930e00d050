"""What a report makes of answers that no sample has: hostile modules, planted records, and stacks of many tasks."""

from __future__ import annotations

import html

import pytest

from orcdbg.base.errors import Corrupt
from orcdbg.commands.folded import FoldedFrame
from orcdbg.commands.log import Log
from orcdbg.commands.mod import Modules
from orcdbg.commands.report import DocumentForm, PartAnswer, Report, ReportPart
from orcdbg.kernel.log import LogRecord
from orcdbg.kernel.modules import Module
from orcdbg.views.flame_graph import flame_graph
from orcdbg.views.report import document

TAG = "<script src=//x>`````\u202e\x1b"
MADE = Report(
    [
        (
            ReportPart.LOG,
            [PartAnswer("log", Log([LogRecord(1, 0, 6, 1, None, TAG), LogRecord(2, 0, 6, 0, None, "mine")], []))],
        ),
        (ReportPart.MODULES, [PartAnswer("mod", Modules([Module(0x1000, TAG, (), (0, 0), None)], []))]),
        (ReportPart.MACHINE, [PartAnswer("sys", None, Corrupt(TAG))]),
    ],
    [TAG],
    ["orcdbg", "report", TAG],
    [TAG],
)


@pytest.mark.parametrize("form", DocumentForm)
def test_nothing_becomes_a_tag_or_reaches_a_terminal(form: DocumentForm) -> None:
    """Wherever it stands: in the log, among the modules, in an error, in the command line."""
    text = document(MADE, form)
    shown = "<script src=//x>`````\\u202e\\x1b"
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.count(html.escape(shown) if form is DocumentForm.HTML else shown) == 6
    assert form is not DocumentForm.HTML or "<script" not in text
    assert form is not DocumentForm.MARKDOWN or "\n``````text\n" in text


@pytest.mark.parametrize("form", DocumentForm)
def test_records_that_a_program_wrote_are_marked(form: DocumentForm) -> None:
    """They are no words of the kernel."""
    text = document(MADE, form)
    assert text.count("[user] ") == 1


def frame(name: str, is_sure: bool = True) -> FoldedFrame:
    """A frame of the image."""
    return FoldedFrame(name, None, 0, is_sure)


def test_widths_are_shares() -> None:
    """Of four tasks three are in `a`; the one that is in doubt is drawn as such. The outermost function is at the bottom."""
    drawn = flame_graph(
        [((frame("main"), frame("a")), 2), ((frame("main"), frame("a"), frame("b")), 1), ((frame("<c>", False),), 1)]
    )
    assert 'height="54"' in drawn
    assert '<svg x="0.000%" y="36" width="75.000%" height="17"><title>main: 3 tasks</title>' in drawn
    assert '<svg x="0.000%" y="18" width="75.000%" height="17"><title>a: 3 tasks</title>' in drawn
    assert '<svg x="0.000%" y="0" width="25.000%" height="17"><title>b: 1 task</title>' in drawn
    assert '<title>? &lt;c&gt;: 1 task</title><rect class="doubt"' in drawn


def test_a_picture_is_bounded() -> None:
    """However deep a stack is and however many there are; of nothing there is no picture."""
    assert flame_graph([]) == ""
    deep = flame_graph([([frame(f"f{number}") for number in range(5000)], 1)])
    assert deep.count("<rect") == 128
    wide = flame_graph([([frame(f"f{number}")], 1) for number in range(5000)] + [([frame("most")], 10_000)])
    assert wide.count("<rect") == 1
