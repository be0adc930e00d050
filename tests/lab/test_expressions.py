"""Expressions over real kernels: what `p` shows of random paths through live objects is what drgn has from DWARF."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.printing import Printed
from orcdbg.commands.standard import standard_commands
from orcdbg.expressions.evaluation import evaluate
from orcdbg.target.session import Session
from orcdbg.typed.objects import Object
from orcdbg.typed.types import ArrayType, CompoundType, EnumType, IntType, PointerType, resolved
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.lab.conftest import KERNELS, OpenScene

pytestmark = pytest.mark.lab

PATHS = 4000
LONGEST = 8  # steps of a path
REACHED = 3000


class Walk:
    """Random paths from the tasks of a session, as expressions and as drgn's objects."""

    def __init__(self, session: Session, program: Any, random: Random) -> None:
        self._session = session
        self._program = program
        self._random = random
        self._tasks = [task.address for task in session.tasks]

    def paths(self) -> Iterator[tuple[str, Any]]:
        """A path and where it leads by drgn; without end."""
        while True:
            address = self._random.choice(self._tasks)
            text = f"((struct task_struct *){address:#x})"
            mine = self._session.program.value(self._session.program.type("task_struct *"), address)
            theirs = _pointer(self._program, address)
            for _ in range(self._random.randrange(1, LONGEST)):
                step = self._step(mine)
                if step is None:
                    break
                text, mine, theirs = text + step[0], step[1], step[2](theirs)
            yield text, theirs

    def _step(self, mine: Object) -> tuple[str, Object, Any] | None:
        plain_type = mine.plain_type_
        try:
            if isinstance(plain_type, PointerType):
                target = mine.program_.completed(resolved(plain_type.target))
                # QEMU's dumps say that physical memory is at the low virtual addresses too, which drgn believes.
                is_kernel = int(mine) >> 47 == 0x1FFFF or int(mine) >> 56 == 0xFF
                if not isinstance(target, CompoundType) or not is_kernel or not target.member_names:
                    return None
                name = self._random.choice(target.member_names)
                return f"->{name}", mine.member_(name), lambda theirs: getattr(theirs, name)
            if isinstance(plain_type, CompoundType) and plain_type.member_names:
                name = self._random.choice(plain_type.member_names)
                return f".{name}", mine.member_(name), lambda theirs: getattr(theirs, name)
            if isinstance(plain_type, ArrayType) and plain_type.length:
                index = self._random.randrange(plain_type.length)
                # pahole before 1.22 wrote an array of arrays as one row of all.
                return f"[{index}]", mine[index], lambda theirs: theirs[index] if index < len(theirs) else None
        except OrcdbgError:
            return None
        return None


def _pointer(program: Any, address: int) -> Any:
    drgn = pytest.importorskip("drgn")
    return drgn.Object(program, "struct task_struct *", value=address)


@pytest.mark.parametrize("kernel", KERNELS)
def test_expressions_are_drgns_objects(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """Numbers, addresses and sizes of paths, and arithmetic with them; what one cannot read the other cannot."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    program.load_debug_info([str(scene.vmlinux)])

    numbers = addresses = refused = 0
    paths = Walk(session, program, Random(seed)).paths()
    for _ in range(PATHS):
        text, theirs = next(paths)
        if theirs is None:
            continue
        mine = evaluate(session.program, text).values[0][1]
        if theirs.address_ is not None and not theirs.bit_field_size_ and not theirs.absent_:
            assert int(evaluate(session.program, f"&{text}").values[0][1]) == theirs.address_, text
            addresses += 1
            if theirs.type_.is_complete() and mine.size_:
                assert int(evaluate(session.program, f"sizeof({text})").values[0][1]) == drgn.sizeof(theirs), text
        if not isinstance(mine.plain_type_, IntType | EnumType | PointerType):
            continue
        try:
            expected = int(theirs.value_())
        except drgn.FaultError:
            with pytest.raises(OrcdbgError):
                int(mine)
            refused += 1
            continue
        assert int(mine) == expected, text
        numbers += 1
        if isinstance(mine.plain_type_, IntType) and theirs.type_.kind == drgn.TypeKind.INT:
            five = drgn.Object(program, "unsigned int", 5)
            for operation, there in (
                ("+ 5u", theirs + five),
                ("* 5u", theirs * five),
                ("> 5u", theirs > five),
                ("& 5u", theirs & five),
            ):
                found = evaluate(session.program, f"{text} {operation}").values[0][1]
                assert int(found) == int(there), f"{text} {operation}"
    print(f"{kernel}: {numbers} numbers, {addresses} addresses and sizes, {refused} that neither reads")
    assert numbers + addresses >= REACHED


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_a_value_says_is_by_this_kernels_tables(kernel: str, open_scene: OpenScene) -> None:
    """Flags by the names that the kernel prints, jiffies by its own clock, a device by its numbers."""
    _, session = open_scene(kernel, "idle")
    debugger, registry = Debugger(session), standard_commands()

    def shown(line: str) -> str:
        return plain(lines_of(registry.run(debugger, line), None)).partition(" = ")[2].rstrip()

    assert shown("p (gfp_t)0xcc0") == "3264 (GFP_KERNEL)"
    assert shown("p/x (gfp_t)0x820") in ("0x820 (GFP_ATOMIC)", "0x820 (GFP_NOWAIT|__GFP_HIGH)")
    assert "s after the boot)" in shown("p jiffies")
    page = "(struct page *)*(unsigned long *)&vmemmap_base"
    flags = "flags.f" if session.program.type("page").find("flags.f") else "flags"  # type: ignore[attr-defined]
    assert "reserved|zone, node and section" in shown(f"p ({page})->{flags}")
    first = "container_of(super_blocks.next, struct super_block, s_list)"
    assert "(0:" in shown(f"p {first}->s_dev")
    assert shown(f"p {first}->s_type->name").endswith('"')
    assert shown("p init_task.comm") == '"swapper/0"'
    answer = registry.run(debugger, "p schedule")
    assert isinstance(answer, Printed)
    assert list(answer.values[0].symbols.values()) == ["schedule"]
