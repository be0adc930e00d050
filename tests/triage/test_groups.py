"""Groups: who died of the same is together, in any order; what is not known is never taken for the same death."""

from __future__ import annotations

import itertools

from orcdbg.triage.groups import GroupKey, GroupKind, groups_of, key_of
from orcdbg.triage.records import Cause, Death, Failure, Outcome
from tests.triage.made_records import made

A = made("/a", date=300, release="6.1", image="/i", cause=Cause("bug", "fact"))
B = made("/b", date=100, release="6.1", unknown=["log"], cause=Cause("bug", "derived"))
C = made("/c", date=None, release="5.10", image="/i", unknown=["log", "memory"], cause=Cause("bug", "fact"))
D = made("/d", signature="bug g")
SAME_AS_A = made("/e", outcome=Outcome.DUPLICATE, duplicate_of="/a", signature=None, death=Death.UNKNOWN)
HEALTHY = made("/h", signature=None, death=Death.NONE)
UNKNOWN = made("/u", signature=None, death=Death.UNKNOWN)
KILLED = made("/k", outcome=Outcome.FAILED, failure=Failure("time-limit", "ended"), signature=None)
LOST = made("/l", outcome=Outcome.FAILED, failure=Failure("worker-ended", "died"), signature=None)
ALL = (A, B, C, D, SAME_AS_A, HEALTHY, UNKNOWN, KILLED, LOST)


def test_a_group_counts_its_dumps_and_says_since_when() -> None:
    """Dates are the dumps' own; a dump without one counts all the same. Duplicates are counted apart."""
    group = groups_of(ALL)[0]
    assert group.key == GroupKey(GroupKind.SIGNATURE, "bug f")
    assert [record.dump for record in group.records] == ["/b", "/a", "/c"]
    assert (group.duplicates, group.first, group.last) == (1, 100, 300)
    assert group.releases == {"5.10": 1, "6.1": 2}
    assert group.certainties == {"derived": 1, "fact": 2}


def test_the_exemplar_is_the_dump_of_which_most_is_known() -> None:
    """With its image rather than without, then with the least that is unknown, then the newest."""
    assert groups_of([A, B, C])[0].exemplar is A
    assert groups_of([B, C])[0].exemplar is C
    newer = made("/n", date=400, image="/i")
    assert groups_of([A, newer])[0].exemplar is newer


def test_the_largest_group_comes_first_and_what_has_no_signature_last() -> None:
    """Not known, healthy and failed dumps are groups of their own; failures by their kind."""
    assert [(group.key.kind, group.key.word) for group in groups_of(ALL)] == [
        (GroupKind.SIGNATURE, "bug f"),
        (GroupKind.SIGNATURE, "bug g"),
        (GroupKind.NOT_KNOWN, ""),
        (GroupKind.NO_DEATH, ""),
        (GroupKind.FAILED, "time-limit"),
        (GroupKind.FAILED, "worker-ended"),
    ]


def test_the_order_of_the_records_does_not_matter() -> None:
    """They come as their workers end."""
    wanted = groups_of(ALL)
    for order in itertools.islice(itertools.permutations(ALL), 0, 40_000, 997):
        assert groups_of(order) == wanted


def test_a_cause_without_a_signature_is_not_known_to_be_the_same() -> None:
    """Two such deaths have nothing in common but that."""
    assert key_of(made("/a", signature=None)).kind is GroupKind.NOT_KNOWN


def test_a_duplicate_whose_first_file_is_not_among_them_is_in_no_group() -> None:
    """It was looked at in a run over other dumps."""
    assert groups_of([SAME_AS_A]) == []
