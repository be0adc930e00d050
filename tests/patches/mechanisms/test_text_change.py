"""Text in the middle of a change: what is on its way is explained, and nothing else is."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from orcdbg.patches.mechanisms.jump_label import JumpLabelsPass
from orcdbg.patches.mechanisms.optprobe import detour
from orcdbg.patches.mechanisms.text_change import TextChangePass
from orcdbg.patches.site import WorkingText
from orcdbg.patches.state import nops
from orcdbg.patches.state.probes import Detour
from orcdbg.patches.state.text_changes import MAX_CHANGES, Change, TextChanges
from tests.patches.world import DATA, TEXT, MiniLinux, branch, image_of, text_of

NOP, JUMP = b"\x0f\x1f\x44\x00\x00", branch(b"\xe9", TEXT, TEXT + 0x100)
CALL_BEFORE, CALL = branch(b"\xe8", TEXT, TEXT + 0x80), branch(b"\xe8", TEXT, TEXT + 0xC0)
ORIGINAL = b"\x41\x54\x55\x53\x90"
SLOT = TEXT + 0x1000
DETOUR = detour(TEXT, SLOT)
AREA = TEXT, TEXT + 0x200
TABLE = DATA + 0x100


class Changes:
    """What is being changed, as a test chooses."""

    def __init__(self, *changes: Change, is_locked: bool = True) -> None:
        self.under_way = {change.address: change for change in changes}
        self.problems: list[str] = []
        self.is_locked = is_locked


def words_of(text: dict[int, bytes]) -> dict[int, int]:
    """Text as eight-byte variables; what a test leaves out is breakpoints."""
    data = bytearray(b"\xcc" * 0x20)
    for offset, code in text.items():
        data[offset : offset + len(code)] = code
    return {TEXT + at: int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)}


def static_branches(memory: dict[int, bytes], enabled: int, sites: tuple[int, ...]) -> tuple[Any, JumpLabelsPass]:
    """A kernel whose text holds sites of one key, each of which jumps over 256 bytes or not."""
    linux = cast("Any", MiniLinux({}, words_of(memory) | {DATA: enabled}))
    table = np.zeros(len(sites), dtype=[("code", "<i4"), ("target", "<i4"), ("key", "<i8")])
    for row, site in enumerate(sites):
        at = TABLE + 16 * row
        table[row] = (site - at, site + 0x100 - at - 4, DATA - at - 8)
    built = text_of({site - TEXT: NOP for site in sites})
    return linux, JumpLabelsPass(table.tobytes(), TABLE, image_of(built), linux, nops.P6)


def result(
    linux: Any, changes: Changes, earlier: list[Any], left: bytes, detours: tuple[Detour, ...] = ()
) -> bytes | None:
    """What the pass puts in place of what earlier ones left at the first of its places; None where it leaves it alone."""
    targets = {TEXT + 0x80, TEXT + 0xC0}
    the_pass = TextChangePass(
        linux, cast("Any", changes), AREA, earlier, [], detours, [nops.P6.atomic], targets.__contains__
    )
    text = WorkingText(TEXT, left + b"\xcc" * 0x20)
    applied = the_pass.apply(0, text)
    return None if applied is None else text.read(TEXT, len(left))


@pytest.mark.parametrize(
    "now", [NOP, b"\xcc" + NOP[1:], b"\xcc" + JUMP[1:], JUMP], ids=["before", "breakpoint", "tail", "after"]
)
@pytest.mark.parametrize("enabled", [0, 1])
def test_a_static_branch_may_stand_at_each_step_of_its_change(now: bytes, enabled: int) -> None:
    """Whether its key is set already or will be."""
    linux, jumps = static_branches({0: now}, enabled, (TEXT,))
    assert result(linux, Changes(Change(TEXT, JUMP, NOP[0])), [jumps], JUMP if enabled else NOP) == now


@pytest.mark.parametrize("now", [b"\x90" * 5, b"\xcc" + JUMP[1:4] + b"\x7f", b"\xcc\x90\x90\x90\x90", CALL])
def test_what_is_no_step_of_a_change_is_not_explained(now: bytes) -> None:
    """Neither the old bytes nor the new ones, nor a breakpoint with either."""
    linux, jumps = static_branches({0: now}, 1, (TEXT,))
    assert result(linux, Changes(Change(TEXT, JUMP, NOP[0])), [jumps], JUMP) is None


@pytest.mark.parametrize("is_changing", [True, False])
def test_another_site_of_a_key_may_wait_for_its_turn(is_changing: bool) -> None:
    """But only where a site of that key is being changed."""
    first, other = TEXT, TEXT + 8
    linux, jumps = static_branches({0: NOP, 8: JUMP}, 1, (first, other))
    changed = [Change(other, JUMP, NOP[0])] if is_changing else []
    the_pass = TextChangePass(
        linux, cast("Any", Changes(*changed)), AREA, [jumps], [], (), [nops.P6.atomic], lambda address: False
    )
    assert the_pass.spans().starts.tolist() == ([first, other] if is_changing else [])
    if is_changing:
        assert result(linux, Changes(*changed), [jumps], JUMP) == NOP


@pytest.mark.parametrize(("now", "is_known"), [(CALL_BEFORE, True), (branch(b"\xe8", TEXT, TEXT + 0x81), False)])
def test_the_old_call_of_a_function_is_believed_where_it_leads_to_one(now: bytes, is_known: bool) -> None:
    """Nobody keeps what a static call or a traced function called before."""
    linux = cast("Any", MiniLinux({}, words_of({0: b"\xcc" + now[1:]})))
    found = result(linux, Changes(Change(TEXT, CALL, 0xE8)), [], CALL)
    assert found == (b"\xcc" + now[1:] if is_known else None)


@pytest.mark.parametrize("now", [ORIGINAL, b"\xcc" + ORIGINAL[1:], b"\xcc" + DETOUR[1:]])
def test_a_probe_that_loses_its_jump_may_stand_at_each_step(now: bytes) -> None:
    """Its breakpoint first, then what the jump had overwritten; no list names it, but somebody holds text_mutex."""
    linux = cast("Any", MiniLinux({}, words_of({0: now})))
    prepared = (Detour(TEXT, SLOT, ORIGINAL),)
    assert result(linux, Changes(), [], DETOUR, prepared) == now
    quiet = TextChangePass(
        linux, cast("Any", Changes(is_locked=False)), AREA, [], [], prepared, [], lambda address: False
    )
    assert not len(quiet.spans().starts)


MEMBERS = {
    "smp_text_poke_array": {"vec": (0, 0), "nr_entries": (0x1000, 4)},
    "smp_text_poke_loc": {"rel_addr": (0, 4), "len": (8, 1), "text": (10, 5), "old": (15, 1)},
}


class MiniTypes:
    """The members of a list of changes, by their offsets and sizes."""

    def has(self, struct: str, path: str) -> bool:
        return path in MEMBERS.get(struct, {})

    def offset(self, struct: str, path: str) -> int:
        return MEMBERS[struct][path][0]

    def size(self, struct: str) -> int:
        return 16


class ListedLinux(MiniLinux):
    """A kernel with a list of changes."""

    types = MiniTypes()

    def __init__(self, entries: bytes, count: int) -> None:
        super().__init__({"text_poke_array": DATA, "_stext": TEXT}, {})
        self._data = entries.ljust(0x1000, b"\0") + count.to_bytes(8, "little")
        self.memory = cast("Any", self)

    def read(self, address: int, size: int) -> bytes:
        return self._data[address - DATA : address - DATA + size]

    def member(self, struct: str, path: str, address: int) -> int:
        offset, size = MEMBERS[struct][path]
        return int.from_bytes(self.read(address + offset, size), "little")


def entry(offset: int, size: int, code: bytes, old: int) -> bytes:
    """A list's entry, as text_poke_loc_init() fills it."""
    return (
        offset.to_bytes(4, "little", signed=True) + bytes(4) + bytes((size, 0)) + code.ljust(5, b"\0") + bytes((old,))
    )


def test_the_list_names_the_instructions_that_are_being_changed() -> None:
    """Of a conditional jump's six bytes it keeps five: the first never changes."""
    listed = entry(0x40, 5, CALL, 0x0F) + entry(-0x20, 6, b"\x84\x01\x02\x03\x04", 0x0F)
    found = TextChanges(cast("Any", ListedLinux(listed, 2))).under_way
    assert found == {
        TEXT + 0x40: Change(TEXT + 0x40, CALL, 0x0F),
        TEXT - 0x20: Change(TEXT - 0x20, b"\x0f\x84\x01\x02\x03\x04", 0x0F),
    }


def test_a_list_that_is_longer_than_any_is_a_problem() -> None:
    """Its count is the snapshot's."""
    changes = TextChanges(cast("Any", ListedLinux(b"", MAX_CHANGES + 1)))
    assert changes.under_way == {}
    assert any("changes of text under way" in line for line in changes.problems)
