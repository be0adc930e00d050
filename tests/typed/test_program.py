"""Which type a variable has, where several sources know its name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.expressions.evaluation import evaluate
from orcdbg.kernel.modules import Module, ModuleState
from orcdbg.kernel.names import Names
from orcdbg.subsystems.per_cpu_areas import PerCpuAreas
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


MODULE = 0xFFFF_FFFF_C000_0000


def names_with(session: Session, name: str, address: int, per_cpu: tuple[int, int]) -> Names:
    """Names of a kernel with one module, which has one symbol."""
    symbol = SimpleNamespace(name=name, address=address, size=8)
    table = SimpleNamespace(
        find=lambda wanted: symbol if wanted == name else None,
        at=lambda pointer: SimpleNamespace(symbol=symbol) if pointer >= address else None,
    )
    module = Module(MODULE, "m", ((MODULE, 4096),), (MODULE, 64), ModuleState.LIVE, per_cpu)
    names = Names(session.linux)
    names.__dict__["_module_list"] = [module], []
    names.__dict__["module_symbols"] = {MODULE: SimpleNamespace(table=table)}
    return names


def test_a_modules_per_cpu_variable_has_an_instance_for_each_cpu(sample: Session) -> None:
    """Its symbol is a pointer to which a CPU's offset is added, as of the image's."""
    pointer = sample.symbols.get("__per_cpu_end").address + 64
    names = names_with(sample, "ours", pointer, (pointer, 8))
    program = Program(sample.linux, names, lambda name, address: sample.program.type("unsigned long"))
    expected = pointer + sample.linux.per_cpu_offset(0)
    assert program.variable("ours", cpu=0).address_ == expected
    assert [found.address_ for _, found in evaluate(program, "ours:0").values] == [expected]
    for ask in (lambda: program.variable("ours"), lambda: evaluate(program, "ours")):
        with pytest.raises(UsageError, match="CPU"):
            ask()
    (address,) = [int(found) for _, found in evaluate(program, "&ours").values]
    assert address == pointer

    place = PerCpuAreas(sample.linux, names)._of_module(0, pointer + 4)
    assert (place.variable, place.offset, place.module) == ("ours", 4, "m")
    behind = PerCpuAreas(sample.linux, names_with(sample, "ours", pointer, (pointer, 64)))._of_module(0, pointer + 8)
    assert (behind.variable, behind.module) == (None, "m")


def test_a_module_that_claims_all_memory_as_per_cpu_keeps_its_variables(sample: Session) -> None:
    """What is in its own memory is there once."""
    names = names_with(sample, "ours", MODULE + 128, (0, (1 << 64) - 1))
    program = Program(sample.linux, names, lambda name, address: sample.program.type("unsigned long"))
    assert program.variable("ours").address_ == MODULE + 128
    assert [found.address_ for _, found in evaluate(program, "ours").values] == [MODULE + 128]


def test_a_modules_variable_may_have_the_name_of_a_structure(sample: Session) -> None:
    """As C has it: the name alone is the variable, `struct` and the name the type."""
    names = names_with(sample, "list_head", MODULE + 128, (0, 0))
    program = Program(sample.linux, names, lambda name, address: sample.program.type("unsigned long"))
    ((_, found),) = evaluate(program, "list_head").values
    assert (found.address_, type_name(found.type_)) == (MODULE + 128, "unsigned long")
    ((_, size),) = evaluate(program, "sizeof(struct list_head)").values
    assert int(size) == 16
