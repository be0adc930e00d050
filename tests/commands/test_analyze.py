"""What did the sample's kernel die of, and is every statement shown with what it stands on?"""

from __future__ import annotations

import pytest

from orcdbg.analysis.findings import FindingKind
from orcdbg.analysis.head import HeadPoint
from orcdbg.base.certainty import Certainty
from orcdbg.base.exit_status import ExitStatus
from orcdbg.commands.analyze import Analyzed
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


@pytest.fixture
def analyzed(debugger: Debugger, registry: Registry) -> Analyzed:
    """The sample's analysis."""
    result = registry.run(debugger, "analyze -v")
    assert isinstance(result, Analyzed)
    return result


def test_the_cause_is_what_made_the_sample_panic(analyzed: Analyzed) -> None:
    """An NMI that nobody knew: a fact by the functions on the stack, and the log's own words beside it."""
    cause = analyzed.analysis.cause
    assert cause is not None
    assert (cause.kind, cause.certainty) == (FindingKind.NMI_PANIC, Certainty.FACT)
    assert [evidence.command for evidence in cause.evidence] == ["bt -p", "log"]
    assert analyzed.analysis.signature is not None
    assert analyzed.analysis.signature.startswith("nmi-panic lock_is_held_type < ")
    assert analyzed.exit_status is ExitStatus.DONE


def test_the_head_has_its_ten_points_in_their_order(analyzed: Analyzed) -> None:
    """All are there, also those with nothing to say."""
    assert list(analyzed.analysis.head) == list(HeadPoint)
    assert len(HeadPoint) == 10


def test_what_the_sample_lacks_is_unknown_and_costs_nothing_else(analyzed: Analyzed) -> None:
    """The command line's memory was cut away; uptime and load, of the same point, are told."""
    assert {unknown.what for unknown in analyzed.analysis.unknown} == {"message", "memory"}
    kinds = {finding.kind for finding in analyzed.analysis.head[HeadPoint.MESSAGE]}
    assert {FindingKind.UPTIME, FindingKind.LOAD, FindingKind.MESSAGE} <= kinds
    assert FindingKind.COMMAND_LINE not in kinds


def test_the_commands_of_the_evidence_work(analyzed: Analyzed, debugger: Debugger, registry: Registry) -> None:
    """Each command that is named shows something."""
    stated = [*analyzed.analysis.findings, *(found for point in analyzed.analysis.head.values() for found in point)]
    commands = {evidence.command for finding in stated for evidence in finding.evidence} - {"kmem -i"}
    assert len(commands) > 4
    for command in commands - {"patch audit"}:
        assert plain(lines_of(registry.run(debugger, command), None)), command


def test_every_statement_has_evidence_and_words(analyzed: Analyzed) -> None:
    """In JSON too, which has the title of the text's first line."""
    answer = encode(analyzed)
    stated = [*answer["findings"], *(found for point in answer["head"].values() for found in point)]
    assert len(stated) > 12
    assert all(finding["evidence"] and finding["text"] for finding in stated)
    assert plain(lines_of(analyzed, None)).splitlines()[0] == answer["title"]


def test_nothing_is_wider_than_the_terminal(analyzed: Analyzed) -> None:
    """But for words that are."""
    lines = plain(lines_of(analyzed, 80)).splitlines()
    assert [line for line in lines if len(line) > 80 and len(line.split()[-1]) < 60] == []
