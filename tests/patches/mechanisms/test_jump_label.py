"""Static branches: a jump or a nop, as the key says."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import BytesSpace
from orcdbg.patches.mechanisms.jump_label import JumpLabelsPass
from orcdbg.patches.state import nops
from orcdbg.x86.instructions import decode
from tests.patches.world import DATA, TEXT, MiniLinux, image_of, rows, text_of


@pytest.mark.parametrize("inverted", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 0xFFFF_FFFF])
@pytest.mark.parametrize("built", [b"\xeb\x10", b"\x66\x90", b"\x0f\x1f\x44\x00\x00", b"\xe9\x00\x01\x00\x00"])
def test_a_static_branch_is_taken_when_enabled_differs_from_inverted(built: bytes, count: int, inverted: int) -> None:
    """A key counts from -1, which means "being switched on"; the site keeps the length it was built with."""
    linux = cast("Any", MiniLinux({}, {DATA: count}))
    table = np.zeros(1, dtype=[("code", "<i4"), ("target", "<i4"), ("key", "<i8")])
    at = DATA + 0x100
    table["code"], table["target"], table["key"] = TEXT - at, TEXT + 0x40 - at - 4, DATA + inverted - at - 8
    text = text_of({0: built})
    JumpLabelsPass(table.tobytes(), at, image_of(text), linux, nops.P6).sweep(text, rows(1))
    code = next(iter(decode(bytes(text.data[:8]), TEXT)))
    assert code.size == len(built)
    assert (code.target == TEXT + 0x40) == bool((count != 0) ^ inverted)


@pytest.mark.parametrize("slide", [0, 0x1E00_0000])
@pytest.mark.parametrize("count", [0, 1])
def test_entries_of_whole_addresses_say_the_same(count: int, slide: int) -> None:
    """To 4.19 an entry is code, target and key, as linked: the boot adds the slide to each."""
    linux = cast("Any", MiniLinux({}, {DATA: count}))
    linux.slide = slide
    table = np.array([TEXT - slide, TEXT + 0x40 - slide, DATA + 1 - slide], dtype="<u8").tobytes()
    text = text_of({0: b"\x0f\x1f\x44\x00\x00"})
    image = BytesSpace(TEXT - slide, bytes(text.data), lambda address, size: NotInSnapshot("image", address, size))
    JumpLabelsPass(table, DATA, cast("Any", image), linux, nops.P6, absolute=slide).sweep(text, rows(1))
    code = next(iter(decode(bytes(text.data[:8]), TEXT)))
    assert code.target == (None if count else TEXT + 0x40)
