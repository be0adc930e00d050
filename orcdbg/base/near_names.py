"""Which of many names did somebody mean who typed another?

Names are compared all at once, as columns of bytes: of the 200,000 symbols of a kernel, most are out after a few letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST = 3
"""How many names a hint has at most."""

_SHORTEST, _LONGEST = 3, 64  # letters of a word that is looked for
_MOST_NAMES = 2_000_000  # a table with more was made to keep a search busy
_MOST_ROWS = 4096  # names of which the nearest are chosen, where more begin or end alike
_MOST_ERRORS = 2
_LETTERS_PER_ERROR = 4

# Between one error and two: a name that goes on behind the word, one that ends in it, and a file's name among them.
_BEGINS, _ENDS = 1.25, 1.5

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


class Near(NamedTuple):
    """A name and how far it is from the word; the nearest is the least."""

    distance: float
    letters_apart: int
    name: str


def near_names(word: str, names: Iterable[str], most: int = MOST) -> list[str]:
    """Those of some names that the word may have been meant for, the nearest first; none where none is near."""
    encoded = [name.encode("utf-8", "replace") for name in names]
    strings = b"\0".join(encoded) + b"\0"
    starts = np.array([0, *accumulate(len(name) + 1 for name in encoded)][:-1], dtype=np.int64)
    return nearest(find_near(word, strings, starts), most)


def nearest(found: Iterable[Near], most: int = MOST) -> list[str]:
    """The names that are nearest, each once; those that have an error more than the nearest of all are not meant."""
    by_distance = sorted(found)
    kept = (each.name for each in by_distance if each.distance < by_distance[0].distance + 1)
    return list(dict.fromkeys(kept))[:most]


def did_you_mean(names: Sequence[str]) -> str | None:
    """A hint with names; None without any."""
    if not names:
        return None
    *others, last = names
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def find_near(word: str, strings: bytes, starts: Rows) -> list[Near]:
    """Names in a table that differ from a word by few letters, go on behind it, or have a prefix before it.

    Args:
        word: what was typed.
        strings: the names, a NUL behind each; the last byte is one.
        starts: where each begins in them.
    """
    typed = word.encode("utf-8", "replace")
    if not _SHORTEST <= len(typed) <= _LONGEST or word[0].isdigit() or len(starts) > _MOST_NAMES or not len(starts):
        return []

    # Small letters stand for capital ones. Names at the end are compared with the zeros behind it.
    table = np.frombuffer(strings.lower() + bytes(_LONGEST + _MOST_ERRORS), dtype=np.uint8)
    lower = typed.lower()
    found = _mistyped(lower, table, starts, strings)
    found += [Near(_BEGINS, len(name) - len(typed), name) for name in _beginning(lower, table, starts, strings)]
    found += [Near(_ENDS, len(name) - len(typed), name) for name in _ending(typed, starts, strings)]
    return found


def _name_at(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode("utf-8", "replace")


def _column(table: Bytes, starts: Rows, place: int) -> Bytes:
    """The letter of each name at a place, or whatever is there of the next one."""
    column: Bytes = table[starts + place]
    return column


def _mistyped(typed: bytes, table: Bytes, starts: Rows, strings: bytes) -> list[Near]:
    """Names that differ by letters that are left out, too many, other ones, or changed places with the next."""
    errors = max(1, min(_MOST_ERRORS, len(typed) // _LETTERS_PER_ERROR))
    lengths = np.full(len(starts), -1, dtype=np.int64)
    for length in range(len(typed) + errors, len(typed) - errors - 1, -1):
        np.putmask(lengths, _column(table, starts, length) == 0, length)
    rows = np.flatnonzero(lengths >= 0)
    kept, distances = _distances(typed, table, starts[rows], lengths[rows], errors)

    found = []
    for row in np.argsort(distances, kind="stable")[:_MOST_ROWS].tolist():
        name = _name_at(strings, int(starts[rows[kept[row]]]))
        # A name that is shorter than its row was compared with the next one behind it.
        if len(name.encode("utf-8", "replace")) == int(lengths[rows[kept[row]]]):
            found.append(Near(float(distances[row]), abs(len(name) - len(typed)), name))
    return found


def _distances(
    typed: bytes, table: Bytes, starts: Rows, lengths: Rows, errors: int
) -> tuple[Rows, npt.NDArray[np.int8]]:
    """The rows with no more than some errors, and the errors of each: the optimal string alignment distance.

    `known[j]` has the distance of what was typed so far from the first `j` letters of each name. Names with more errors than
    are allowed are dropped on the way.
    """
    kept = np.arange(len(starts))
    columns: dict[int, Bytes] = {}
    before: dict[int, npt.NDArray[np.int8]] = {}
    known = {place: np.full(len(starts), place, dtype=np.int8) for place in range(errors + 1)}

    for count, letter in enumerate(typed, 1):
        following: dict[int, npt.NDArray[np.int8]] = {}
        for place in range(max(0, count - errors), count + errors + 1):
            if place == 0:
                following[0] = np.full(len(kept), count, dtype=np.int8)
                continue
            if place - 1 not in columns:
                columns[place - 1] = _column(table, starts[kept], place - 1)
            best = known[place - 1] + (columns[place - 1] != letter)
            if place in known:
                best = np.minimum(best, known[place] + 1)
            if place - 1 in following:
                best = np.minimum(best, following[place - 1] + 1)
            if place - 2 in before and place - 2 in columns:
                swapped = (columns[place - 1] == typed[count - 2]) & (columns[place - 2] == letter)
                best = np.where(swapped, np.minimum(best, before[place - 2] + 1), best)
            following[place] = best.astype(np.int8)

        alive = np.min(np.stack(list(following.values())), axis=0) <= errors
        if np.count_nonzero(alive) < 3 * len(kept) // 4:
            kept = kept[alive]
            columns = {place: column[alive] for place, column in columns.items()}
            known = {place: each[alive] for place, each in known.items()}
            following = {place: each[alive] for place, each in following.items()}
        before, known = known, following

    distances = np.full(len(kept), errors + 1, dtype=np.int8)
    for place, each in known.items():
        is_end = lengths[kept] == place
        distances[is_end] = each[is_end]
    near = distances <= errors
    return kept[near], distances[near]


def _beginning(typed: bytes, table: Bytes, starts: Rows, strings: bytes) -> list[str]:
    """Names that go on behind what was typed."""
    rows = starts
    for place, letter in enumerate(typed):
        rows = rows[_column(table, rows, place) == letter]
    names = [_name_at(strings, start) for start in rows[:_MOST_ROWS].tolist()]
    return [name for name in names if len(name) > len(typed)]


def _ending(typed: bytes, starts: Rows, strings: bytes) -> list[str]:
    """Names that have a prefix with `_` before what was typed, as `__x64_sys_clone` has."""
    ends = typed + b"\0"
    found: list[int] = []
    place = strings.find(ends)
    while place >= 0 and len(found) < _MOST_ROWS:
        if strings[place - 1 : place] == b"_":
            found.append(strings.rfind(b"\0", 0, place) + 1)
        place = strings.find(ends, place + 1)
    known = starts[np.isin(starts, np.array(found, dtype=np.int64))] if found else found
    return [_name_at(strings, int(start)) for start in known]
