"""A detector stands alone: what one raises, or lacks, costs no other anything."""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.analysis import analyze
from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.detector import Detector, run
from orcdbg.analysis.detectors.registry import DETECTORS
from orcdbg.analysis.findings import CAUSES, Exhibit, Finding, FindingKind, Untold, fact
from orcdbg.base.errors import Corrupt
from orcdbg.target.session import Session
from orcdbg.views.finding_words import _WORDS

FOUND = fact(FindingKind.BUG, Exhibit("seen", "log"), place="here", said="")


def _breaks(case: Case) -> Iterator[Finding]:
    yield FOUND
    raise Corrupt("a list goes round in circles")


def _always(case: Case) -> bool:
    return True


BROKEN = Detector("a broken one", (), _always, _breaks)


def test_a_detector_that_raises_is_unknown_and_the_others_are_asked(sample: Session) -> None:
    """Whatever it had found by then stays; the answer is else as without it."""
    plain = analyze(sample)
    found = analyze(sample, (BROKEN, *DETECTORS))
    assert Untold("a broken one", "a list goes round in circles") in found.unknown
    assert list(found.findings) == [FOUND, *plain.findings]
    assert found.head == plain.head


def test_a_question_whether_it_applies_may_break_as_well(sample: Session) -> None:
    """It is the same as finding nothing, and why."""

    def breaks(case: Case) -> bool:
        raise Corrupt("no answer")

    findings, unknown = run([Detector("asked in vain", (), breaks, _breaks), BROKEN], Case(sample))
    assert (findings, [one.what for one in unknown]) == ([FOUND], ["asked in vain", "a broken one"])


def test_a_missing_input_is_named_and_the_detector_not_asked(sample: Session) -> None:
    """The sample has no memory of the slab allocator's."""
    findings, unknown = run([Detector("one of slabs", (Input.SLABS,), _always, _breaks)], Case(sample))
    assert (findings, [one.what for one in unknown]) == ([], ["one of slabs"])
    assert unknown[0].why != "a list goes round in circles"


def test_detectors_have_names_of_their_own() -> None:
    """`unknown` names them."""
    names = [detector.name for detector in DETECTORS]
    assert len(set(names)) == len(names)


def test_every_kind_of_finding_has_words() -> None:
    """A finding without words would be a traceback; a cause is one of the kinds, once."""
    assert set(_WORDS) == set(FindingKind)
    assert len(set(CAUSES)) == len(CAUSES)
