"""ORC rows: every layout's bits, look-up, and telling the layouts apart."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.orc.cfa import CfaRule, bp_rule, cfa_rule
from orcdbg.orc.layout import EntryShape, choose_layout
from orcdbg.orc.rows import (
    FUNCTION_ENTRY,
    HASHES,
    LAYOUT_4_14,
    LAYOUT_6_4,
    LAYOUT_7_1,
    LAYOUTS,
    OrcLayout,
    OrcRegister,
    OrcRow,
    RowType,
)
from orcdbg.orc.table import OrcTable
from orcdbg.target.session import Session

OFFSETS = st.integers(-0x8000, 0x7FFF)


@st.composite
def rows(draw: st.DrawFn, layout: OrcLayout) -> OrcRow:
    """A row that a layout can express."""
    kind = draw(st.sampled_from(RowType))
    registers = [name for name in layout.registers if name is not OrcRegister.UNDEFINED]
    has_rule = kind not in (RowType.UNDEFINED, RowType.END_OF_STACK)
    sp_reg = draw(st.sampled_from(registers)) if has_rule else OrcRegister.UNDEFINED
    signal = kind in (RowType.REGS, RowType.REGS_PARTIAL) if layout.signal_bit is None else draw(st.booleans())
    return OrcRow(sp_reg, draw(OFFSETS), draw(st.sampled_from(layout.registers)), draw(OFFSETS), kind, signal)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(data=st.data())
def test_decoding_what_was_encoded_gives_the_row_back(layout: OrcLayout, data: st.DataObject) -> None:
    """decode(encode(row)) == row, in every layout."""
    row = data.draw(rows(layout))
    assert layout.decode(layout.encode(row)) == row


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(raw=st.binary(min_size=6, max_size=6))
def test_any_six_bytes_decode_to_some_row(layout: OrcLayout, raw: bytes) -> None:
    """Numbers without a meaning become undefined, never an exception."""
    assert layout.decode(raw).sp_reg in (*layout.registers, OrcRegister.UNDEFINED)


def test_the_renumbering_of_7_1_is_seen() -> None:
    """The same bytes mean another register once the header's hash is that of 7.1."""
    raw = LAYOUT_7_1.encode(FUNCTION_ENTRY)
    assert LAYOUT_7_1.decode(raw).sp_reg == OrcRegister.SP
    assert LAYOUT_6_4.decode(raw).sp_reg == OrcRegister.DI


def _table(ips: list[int], layout: OrcLayout = LAYOUT_6_4, sp_regs: list[OrcRegister] | None = None) -> OrcTable:
    base = 0xFFFFFFFF82000000
    relative = b"".join((ip - base - 4 * i & 0xFFFFFFFF).to_bytes(4, "little") for i, ip in enumerate(ips))
    registers = sp_regs or [OrcRegister.SP] * len(ips)
    kinds = [RowType.UNDEFINED if register is OrcRegister.UNDEFINED else RowType.CALL for register in registers]
    data = [
        OrcRow(register, i, OrcRegister.UNDEFINED, 0, kind, False)
        for i, (register, kind) in enumerate(zip(registers, kinds, strict=True))
    ]
    return OrcTable("test", relative, base, b"".join(layout.encode(row) for row in data), base, layout)


TEXT = 0xFFFFFFFF81000000


@given(st.lists(st.integers(0, 400), max_size=40), st.integers(-5, 450))
def test_table_look_up_is_a_linear_scan(offsets: list[int], wanted: int) -> None:
    """The last entry whose ip is not above the address; of equal ips the last."""
    ips = sorted(TEXT + offset for offset in offsets)
    found = _table(ips).find(TEXT + wanted)
    below = [i for i, ip in enumerate(ips) if ip <= TEXT + wanted]
    assert (found.number if found else None) == (below[-1] if below else None)


@given(st.permutations(list(range(12))))
def test_an_unsorted_table_is_read_like_a_sorted_one(order: list[int]) -> None:
    """Tables of kernels before 5.6 and of module files are sorted by nobody before us."""
    table = _table([TEXT + 16 * place for place in order])
    for place in range(12):
        found = table.find(TEXT + 16 * place + 3)
        assert found is not None
        assert (found.entry_ip, found.row.sp_offset) == (TEXT + 16 * place, order.index(place))
        assert (found.address is None) == (order != sorted(order)), "where the kernel puts a row is not known"


def test_a_terminator_gives_way_to_the_entry_at_its_address() -> None:
    """Of equal addresses the terminator of the section before is sorted first, as the kernel's orc_sort_cmp does."""
    table = _table([TEXT + 16, TEXT, TEXT + 16], sp_regs=[OrcRegister.SP, OrcRegister.SP, OrcRegister.UNDEFINED])
    found = table.find(TEXT + 16)
    assert found is not None
    assert found.row.sp_reg == OrcRegister.SP


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_terminator_gives_way_to_an_end_of_stack_too(layout: OrcLayout) -> None:
    """Entry code begins with such a row where the section before ends."""
    end = OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.END_OF_STACK, False)
    ips = struct.pack("<iii", 0x1000 - 0x100, 0x900 - 0x104, 0x900 - 0x108)
    rows = layout.encode(FUNCTION_ENTRY) + layout.encode(end) + layout.encode(end._replace(type=RowType.UNDEFINED))
    found = OrcTable("test", ips, 0x100, rows, 0, layout).find(0x900)
    assert found is not None
    assert found.row.type is RowType.END_OF_STACK


@pytest.mark.parametrize("base", [0, 0x1000, (1 << 63) - 4, (1 << 64) - 8])
def test_a_table_may_claim_to_lie_anywhere(base: int) -> None:
    """As a damaged section header or module says it; addresses wrap as the kernel's do."""
    table = OrcTable("test", struct.pack("<ii", 8, 4), base, LAYOUT_6_4.encode(FUNCTION_ENTRY) * 2, 0, LAYOUT_6_4)
    assert table.ips.tolist() == [base + 8 & (1 << 64) - 1] * 2


@pytest.mark.parametrize("address", [-1, 1 << 64, 1 << 70])
def test_what_is_no_address_has_no_row(address: int) -> None:
    """As a damaged stack makes them, one less than 0 or a slide above the last."""
    assert _table([TEXT]).find(address) is None


def test_arrays_of_different_length_are_refused() -> None:
    """An ip without a row, or a row without an ip, is damage."""
    with pytest.raises(UnsupportedFormat):
        OrcTable("test", bytes(8), 0, bytes(6), 0, LAYOUT_6_4)


ENTRIES = {layout.name: [layout.encode(FUNCTION_ENTRY)] * 50 for layout in LAYOUTS}
SHAPES = {
    "4.14": EntryShape(2, False, False),
    "4.18": EntryShape(2, True, False),
    "6.3": EntryShape(2, True, True),
    "6.4": EntryShape(3, False, True),
}


@pytest.mark.parametrize(("header", "layout"), HASHES.items(), ids=lambda value: getattr(value, "name", None))
def test_a_known_hash_decides(header: bytes, layout: OrcLayout) -> None:
    """Without a look at anything else."""
    assert choose_layout(header, None, []).layout is layout


@pytest.mark.parametrize(("release", "name"), [("4.14", "4.14"), ("4.18", "4.14"), ("6.3", "6.3"), ("6.4", "6.4")])
def test_without_a_header_the_bit_fields_decide(release: str, name: str) -> None:
    """BTF tells the three layouts apart; RHEL 9.6 has the 6.4 one on a 5.14 kernel, and no header."""
    choice = choose_layout(b"", SHAPES[release], ENTRIES[name])
    assert (choice.layout.name, choice.warning) == (name, None)
    assert choice.decided_by.startswith("BTF")


def test_an_unknown_hash_is_put_to_the_vote_with_a_warning() -> None:
    """The bit-fields of 6.4 and 7.1 are the same; only function entries tell the register numbers."""
    choice = choose_layout(b"\x01" * 20, SHAPES["6.4"], ENTRIES["7.1"])
    assert choice.layout is LAYOUT_7_1
    assert choice.warning is not None
    assert "unknown .orc_header 0101" in choice.warning


def test_rows_that_fit_no_layout_are_an_error() -> None:
    """Better no stack than one read with the wrong table."""
    with pytest.raises(OrcdbgError, match="no known ORC layout"):
        choose_layout(b"\x01" * 20, SHAPES["6.4"], [b"\xff" * 6] * 50)


@pytest.mark.parametrize(
    ("sp_reg", "adds_last", "text"),
    [
        (OrcRegister.SP, True, "sp+16"),
        (OrcRegister.BP, True, "bp+16"),
        (OrcRegister.SP_INDIRECT, True, "(sp)+16"),
        (OrcRegister.SP_INDIRECT, False, "(sp+16)"),
        (OrcRegister.BP_INDIRECT, True, "(bp+16)"),
    ],
)
def test_rules_are_written_as_the_contract_says(sp_reg: OrcRegister, adds_last: bool, text: str) -> None:
    """base[+off], or (base+off) for indirect ones; SP_INDIRECT adds its offset last since 5.12."""
    assert str(cfa_rule(OrcRow(sp_reg, 16, OrcRegister.PREV_SP, -16, RowType.CALL, False), adds_last)) == text


def test_only_a_rule_on_the_stack_pointer_moves_with_it() -> None:
    """A push does not change where rbp points."""
    assert CfaRule(OrcRegister.SP, 16).moved(8) == CfaRule(OrcRegister.SP, 24)
    assert CfaRule(OrcRegister.BP, 16).moved(8) == CfaRule(OrcRegister.BP, 16)


def test_the_callers_rbp_is_said_in_words() -> None:
    """As `orc` and `frame` show it."""
    assert bp_rule(OrcRow(OrcRegister.BP, 16, OrcRegister.PREV_SP, -16, RowType.CALL, False)) == "(cfa-16)"
    assert bp_rule(FUNCTION_ENTRY) == "same"


def test_the_samples_layout_is_told_without_a_header(sample: Session) -> None:
    """5.10 has none: BTF and its function entries agree on the oldest layout."""
    assert sample.image.section_data(".orc_header") == b""
    assert sample.orc_layout.layout is LAYOUT_4_14
