"""Structures of real kernels: sizes, offsets, bit-fields and values are those that drgn gives from DWARF."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf
from orcdbg.symbols.c_types import Compound, CTypes, Elements, ScalarKind, Value
from tests.lab.conftest import KERNELS, OpenScene

pytestmark = pytest.mark.lab

STRUCTURES = 250
Shape = tuple[str, int, int]


def drgn_shape(found: Any, base: int = 0) -> Iterator[Shape]:
    """Members of a drgn type, those of anonymous ones in place."""
    for member in found.members:
        if member.name is None:
            yield from drgn_shape(member.type, base + member.bit_offset)
        else:
            yield member.name, base + member.bit_offset, member.bit_field_size or 0


def our_shape(types: CTypes, type_id: int, base: int = 0) -> Iterator[Shape]:
    """The same by BTF."""
    for field in types.fields(type_id):
        if not field.name and types.is_compound(field.type_id):
            yield from our_shape(types, field.type_id, base + field.bit_offset)
        elif field.name:
            yield field.name, base + field.bit_offset, field.bit_size


def differing(value: Value, theirs: Any, path: str) -> Iterator[str]:
    """Where a value and drgn's object are not the same; counts nothing that neither reads."""
    if isinstance(value, Compound):
        for name, inner in value.members:
            yield from differing(inner, getattr(theirs, name), f"{path}.{name}")
    elif isinstance(value, Elements):
        for index, inner in enumerate(value.elements):
            yield from differing(inner, theirs[index], f"{path}[{index}]")
    elif value.kind == ScalarKind.TEXT:
        if theirs.string_().decode() != value.value:
            yield f"{path}: {value.value!r}"
    elif value.kind == ScalarKind.ENUM and isinstance(value.value, str):
        if value.value not in theirs.format_(type_name=False, symbolize=False):
            yield f"{path}: {value.value}, not {theirs.format_()}"
    elif value.value is not None and int(theirs.value_()) != value.value:
        yield f"{path}: {value.value}, not {theirs.value_()}"


def unambiguous(source: Btf) -> list[str]:
    """Names that one structure or union alone has: of several, drgn may give another than BTF."""
    found: Counter[str] = Counter()
    for type_id in itertools.count(1):
        try:
            raw = source.raw(type_id)
        except UnsupportedFormat:
            return sorted(name for name, count in found.items() if count == 1)
        if raw.name and raw.kind in (kinds.STRUCT, kinds.UNION):
            found[raw.name] += 1
    raise AssertionError("types without end")


@pytest.mark.parametrize("kernel", KERNELS)
def test_structures_are_those_of_drgn(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """Structures chosen at random, and every member of init_task."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    program.load_debug_info([str(scene.vmlinux)])
    source = session.types.btf
    types = CTypes(source)
    names = unambiguous(source)
    compared = members = 0
    for name in Random(seed).sample(names, len(names)):
        if compared == STRUCTURES:
            break
        kind, word = (kinds.STRUCT, "struct") if source.find(kinds.STRUCT, name) else (kinds.UNION, "union")
        type_id = source.find(kind, name)
        assert type_id is not None
        try:
            theirs = program.type(f"{word} {name}")
        except LookupError:
            continue  # BTF has types of assembler files that DWARF leaves out
        if not theirs.is_complete():
            continue
        mine, expected = list(our_shape(types, type_id)), list(drgn_shape(theirs))
        assert (types.size(type_id), mine) == (theirs.size, expected), name
        compared, members = compared + 1, members + len(mine)
    task = types.find("task_struct")
    data = session.memory.read(session.linux.address("init_task"), types.size(task))
    theirs = program["init_task"]
    value = types.read(types.fields(task)[0]._replace(type_id=task, bit_offset=0, bit_size=0), data)
    assert list(differing(value, theirs, "init_task")) == []
    print(f"{kernel}: {compared} structures with {members} members, and init_task")
    assert compared == STRUCTURES
