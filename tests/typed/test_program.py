"""Which type a variable has, where several sources know its name."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.target.session import Session
from orcdbg.typed.declarations import type_name
from orcdbg.typed.program import Program
from orcdbg.typed.types import Type, VoidType


def test_btf_is_believed_by_name_where_one_thing_has_it(sample: Session) -> None:
    """At another address the name means another variable, which debugging information tells of, if anything does."""
    name = "runqueues"
    assert sample.program.kernel_types.variable(name) is not None
    asked = []

    def find_variable(wanted: str, address: int) -> Type:
        asked.append((wanted, address))
        return VoidType()

    program = Program(sample.linux, sample.names, find_variable)
    own = sample.symbols.get(name).address
    assert type_name(program.variable_type(name, own)) == "struct rq"
    assert not asked
    assert isinstance(program.variable_type(name, own + 8), VoidType)
    assert asked == [(name, own + 8)]
    with pytest.raises(UsageError, match="is not known"):
        Program(sample.linux, sample.names).variable_type("cpu_number", own)
