"""Structures of real kernels: sizes, offsets, bit-fields and values are those that drgn gives from DWARF."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from orcdbg.base.errors import MemoryFault, OrcdbgError, UnsupportedFormat
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf
from orcdbg.typed.objects import Object
from orcdbg.typed.types import ArrayType, CompoundType, FunctionType, IncompleteType, PointerType, resolved
from orcdbg.typed.values import Compound, Elements, ScalarKind, Value
from tests.lab.conftest import KERNELS, OpenScene

pytestmark = pytest.mark.lab

STRUCTURES = 250
MEMBERS = 25_000
Shape = tuple[str, int, int]


def drgn_shape(found: Any, base: int = 0) -> Iterator[Shape]:
    """Members of a drgn type, those of anonymous ones in place."""
    for member in found.members:
        if member.name is None:
            yield from drgn_shape(member.type, base + member.bit_offset)
        else:
            yield member.name, base + member.bit_offset, member.bit_field_size or 0


def our_shape(compound: CompoundType, base: int = 0) -> Iterator[Shape]:
    """The same by BTF."""
    for member in compound.members:
        inner = resolved(member.type)
        if not member.name and isinstance(inner, CompoundType):
            yield from our_shape(inner, base + member.bit_offset)
        elif member.name:
            yield member.name, base + member.bit_offset, member.bit_size


def differing(value: Value, theirs: Any, path: str) -> Iterator[str]:
    """Where a value and drgn's object are not the same; counts nothing that neither reads."""
    if isinstance(value, Compound):
        for name, inner in value.members:
            yield from differing(inner, getattr(theirs, name), f"{path}.{name}")
    elif isinstance(value, Elements):
        for index, (inner, other) in enumerate(zip(value.elements, elements_of(value, theirs), strict=False)):
            yield from differing(inner, other, f"{path}[{index}]")
    elif value.kind == ScalarKind.TEXT:
        if theirs.string_().decode() != value.value:
            yield f"{path}: {value.value!r}"
    elif value.kind == ScalarKind.ENUM and isinstance(value.value, str):
        if value.value not in theirs.format_(type_name=False, symbolize=False):
            yield f"{path}: {value.value}, not {theirs.format_()}"
    elif value.value is not None and int(theirs.value_()) != value.value:
        yield f"{path}: {value.value}, not {theirs.value_()}"


def elements_of(value: Elements, theirs: Any) -> Iterator[Any]:
    """Elements of a drgn array; those of its rows where pahole, before 1.22, wrote an array of arrays as one row of all."""
    if len(value.elements) > len(theirs) > 0:
        for row in theirs:
            yield from row
    else:
        yield from theirs


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
    types = session.program.kernel_types
    names = unambiguous(types.btf)
    compared = members = 0
    for name in Random(seed).sample(names, len(names)):
        if compared == STRUCTURES:
            break
        found = types.find("struct", name) or types.find("union", name)
        assert isinstance(found, CompoundType)
        try:
            theirs = program.type(f"{found.keyword} {name}")
        except LookupError:
            continue  # BTF has types of assembler files that DWARF leaves out
        if not theirs.is_complete():
            continue
        mine, expected = list(our_shape(found)), list(drgn_shape(theirs))
        assert (found.size, mine) == (theirs.size, expected), name
        compared, members = compared + 1, members + len(mine)
    task = session.variable("init_task")
    assert list(differing(task.value_(), program["init_task"], "init_task")) == []
    print(f"{kernel}: {compared} structures with {members} members, and init_task")
    assert compared == STRUCTURES


@pytest.mark.parametrize("kernel", KERNELS)
def test_values_are_those_of_drgn(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """Objects reached from every task by pointers chosen at random, member by member; what one cannot read the other cannot."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    program.load_debug_info([str(scene.vmlinux)])
    random = Random(seed)
    pending = [(session.object("task_struct", task.address), "struct task_struct") for task in session.tasks]
    seen: set[tuple[str, int]] = set()
    members = values = refused = 0
    while pending and members < MEMBERS:
        mine, name = pending.pop(random.randrange(len(pending)))
        address = mine.address_
        assert address is not None
        if (name, address) in seen:
            continue
        seen.add((name, address))
        theirs = drgn.Object(program, name, address=address)
        compound = mine.plain_type_
        assert isinstance(compound, CompoundType)
        for member in compound.member_names:
            count, follows = compare(mine.member_(member), getattr(theirs, member), f"({name}){address:#x}.{member}")
            members, values, refused = members + bool(count), values + count, refused + (not count)
            # A crowd of one type would leave no room for others.
            pending += [(target, kind) for target, kind in follows if random.random() < 200 / (200 + len(pending))]
    print(f"{kernel}: {members} members with {values} values of {len(seen)} objects, {refused} that neither reads")
    assert members >= MEMBERS


def compare(mine: Object, theirs: Any, path: str) -> tuple[int, list[tuple[Object, str]]]:
    """How many values of a member were compared, 0 where neither can read it; and the structures that it points to."""
    plain = mine.plain_type_
    if isinstance(plain, CompoundType | ArrayType):
        try:
            value = mine.value_()
        except MemoryFault:
            with pytest.raises(LookupError):
                theirs.value_()
            return 0, []
        assert list(differing(value, theirs, path)) == []
        return 1 + count_of(value), []
    if isinstance(plain, FunctionType | IncompleteType):
        return 0, []
    try:
        number = mine.number_()
    except MemoryFault:
        with pytest.raises(LookupError):
            theirs.value_()
        return 0, []
    assert number == theirs.value_(), path
    if not isinstance(plain, PointerType) or (int(number) >> 47 != 0x1FFFF and int(number) >> 56 != 0xFF):
        return 1, []
    target = resolved(plain.target)
    if not isinstance(target, CompoundType) or not target.name or not target.size:
        return 1, []
    try:
        session_object = mine.deref_()
        session_object.bytes_()
    except OrcdbgError:
        return 1, []
    return 1, [(session_object, target.description)]


def count_of(value: Value) -> int:
    """The scalars of a value."""
    if isinstance(value, Compound):
        return sum(count_of(inner) for _, inner in value.members)
    if isinstance(value, Elements):
        return sum(map(count_of, value.elements))
    return 1
