"""Records: what is written of a dump is what is read again, and anything else is refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Corrupt
from orcdbg.triage.records import DumpRecord, from_json, from_line, to_json, to_line
from tests.triage.made_records import FAILED, WHOLE

_WHOLE = to_json(WHOLE)


@pytest.mark.parametrize("record", [WHOLE, FAILED])
def test_a_line_is_read_as_the_record_that_it_was(record: DumpRecord) -> None:
    """`from_line(to_line(record)) == record`, and the line is ASCII that no terminal acts on."""
    line = to_line(record)
    assert from_line(line) == record
    assert line.isascii() and line[:-1].isprintable() and line.endswith("}\n")


def test_fields_of_a_later_version_are_passed_over() -> None:
    """New ones may come at any time."""
    assert from_json({**_WHOLE, "colour": "red"}) == WHOLE


@pytest.mark.parametrize("name", sorted(_WHOLE))
@pytest.mark.parametrize("value", [[1], {"a": 1}, True, "no such word"])
def test_a_field_of_another_kind_is_refused(name: str, value: Any) -> None:
    """Whatever stands in a field: a record with that value, or `Corrupt`; a number is no truth value."""
    try:
        record = from_json({**_WHOLE, name: value})
    except Corrupt:
        return
    assert to_json(record)[name] == value


@pytest.mark.parametrize("name", sorted(_WHOLE))
def test_a_field_that_is_missing_is_refused(name: str) -> None:
    """No field has a default in a file."""
    with pytest.raises(Corrupt):
        from_json({key: value for key, value in _WHOLE.items() if key != name})


def test_another_schema_is_refused() -> None:
    """With its number."""
    with pytest.raises(Corrupt, match="schema 2, not 1"):
        from_json({**_WHOLE, "schema": 2})


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5
    )
)
def test_any_json_is_a_record_or_refused(value: Any) -> None:
    """Nothing but `Corrupt` comes out."""
    with pytest.raises(Corrupt):
        from_line(json.dumps(value))


@pytest.mark.parametrize("line", ["", "{", "[" * 100_000, "\xff"])
def test_what_is_no_json_is_refused(line: str) -> None:
    """Half lines, and lines that are deeper than any."""
    with pytest.raises(Corrupt):
        from_line(line)
