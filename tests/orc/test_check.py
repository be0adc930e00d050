"""Rows against instructions: the hazards in patched text, and the union of all alternatives' rows."""

from __future__ import annotations

import json

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.orc.cfa import CfaRule, cfa_rule
from orcdbg.orc.check import CheckReport, check_kernel, compare
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.table import OrcEntry
from orcdbg.orc.union import UnionTable, Variant, add_site
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from orcdbg.target.session import Session
from orcdbg.target.vmlinux_alone import UnbootedKernel
from orcdbg.views.vmlinux_alone import objtool_row
from tests.build.emulate import pushed_at
from tests.build.memory import SparseMemory
from tests.conftest import RunProgram

SITE = 0xFFFFFFFF81000000
PUSH_POP = bytes.fromhex("9c586690")


def stated_by(*rows: tuple[int, OrcRow]) -> object:
    """Rows from given offsets on."""

    def stated(address: int) -> tuple[OrcEntry | None, CfaRule | None]:
        offset, row = max((one for one in rows if SITE + one[0] <= address), key=lambda one: one[0])
        return OrcEntry("test", 0, SITE + offset, None, bytes(6), row), cfa_rule(row, True)

    return stated


def call_row(offset: int, base: OrcRegister = OrcRegister.SP) -> OrcRow:
    """A row of ordinary code."""
    return OrcRow(base, offset, OrcRegister.UNDEFINED, 0, RowType.CALL, False)


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([(0, call_row(16))], {1: ("sp+16", "sp+24")}),  # one row for the whole site: 5.10
        ([(0, call_row(16)), (1, call_row(24)), (2, call_row(16))], {}),  # a row a boundary: 6.1 and later
        ([(0, call_row(16, OrcRegister.BP))], {}),  # on rbp nothing is wrong whatever is pushed
        (
            [(0, call_row(16)), (1, OrcRow(OrcRegister.SP, 24, OrcRegister.UNDEFINED, 0, RowType.REGS, True))],
            {},
        ),  # another type begins
    ],
)
def test_a_boundary_is_a_hazard_where_row_and_instructions_disagree(
    rows: list[tuple[int, OrcRow]], wrong: dict[int, tuple[str, str]]
) -> None:
    """pushfq; pop %rax: one boundary between the two."""
    found = compare(PUSH_POP, SITE, stated_by(*rows))  # type: ignore[arg-type]
    assert {b.address - SITE: (str(b.stated), str(b.true)) for b in found if not b.agrees} == wrong


def test_two_alternatives_that_need_different_rows_at_one_address_conflict() -> None:
    """push; pop against nop; push; pop: at +1 one has a word pushed and the other none."""
    table = UnionTable()
    variants = [
        Variant("alternative", "A", bytes.fromhex("505890")),
        Variant("alternative", "B", bytes.fromhex("905058")),
    ]
    add_site(table, SITE, variants, stated_by((0, call_row(8))))  # type: ignore[arg-type]
    assert [
        (row.address - SITE, {str(rule): names for rule, names in row.rules.items()}) for row in table.conflicts
    ] == [
        (1, {"sp+16": ["A"], "sp+8": ["B"]}),
        (2, {"sp+8": ["A"], "sp+16": ["B"]}),
    ]


def test_sites_without_text_are_counted() -> None:
    """A report says how much it could not look at, and goes on with the next site."""
    memory = SparseMemory()
    memory.put(SITE + 0x2000, PUSH_POP)
    site = PatchSite("alternative", SITE + 0x2000, 4, "A", b"", None, "", 0)
    clusters = [Cluster(SITE, bytes(4), None, ()), Cluster(site.address, bytes(4), None, (site,))]
    report = CheckReport([])
    report.look_at(clusters, memory, stated_by((0, call_row(8))))  # type: ignore[arg-type]
    assert (report.sites, report.unread, report.boundaries) == (2, 1, 2)
    assert [(h.boundary.address - site.address, str(h.boundary.true)) for h in report.hazards] == [(1, "sp+16")]


@pytest.fixture(scope="module")
def unbooted() -> UnbootedKernel:
    """The sample's vmlinux alone."""
    return UnbootedKernel(Image(open_source(sample_files()[0])))


def test_the_static_check_finds_what_the_snapshot_shows(unbooted: UnbootedKernel, sample: Session) -> None:
    """Every hazard of the running kernel is among those of its image: the boot chose one alternative of each site."""
    static = {(h.boundary.address, str(h.boundary.true)) for h in unbooted.union.hazards}
    seen = {(h.boundary.address, str(h.boundary.true)) for h in check_kernel(sample.code, sample.overlay).hazards}
    assert seen
    assert seen <= static


def test_every_hazards_rule_is_confirmed_by_running_the_instructions(unbooted: UnbootedKernel) -> None:
    """An emulator counts the bytes pushed; each distinct text and boundary once."""
    checked = set()
    for hazard in unbooted.union.hazards:
        offset = hazard.boundary.address - hazard.site
        if (hazard.variant.text, offset) in checked:
            continue
        checked.add((hazard.variant.text, offset))
        start = unbooted.stated(hazard.site)[1]
        assert start is not None
        assert pushed_at(hazard.variant.text, offset) == hazard.boundary.true.offset - start.offset
    assert len(checked) > 2


def test_check_exits_with_5_when_it_finds_something(orcdbg_run: RunProgram) -> None:
    """For a kernel build's CI: statically and on a snapshot."""
    status, out, _ = orcdbg_run("patch", "check", sample_files()[0], "--format", "json")
    result = json.loads(out)["result"]
    assert (status, result["hazards"] != [], result["conflicts"] != []) == (5, True, True)
    status, out, _ = orcdbg_run("demo", "--format", "json", "-e", "patch check")
    found = [h for h in json.loads(out)["result"]["hazards"] if h["symbol"] == "lock_is_held_type+0x52"]
    assert (status, [(h["orc_rule"], h["true_rule"], h["adjust"]) for h in found]) == (5, [("sp+64", "sp+72", 8)])


def test_the_union_has_a_rule_for_every_boundary(orcdbg_run: RunProgram) -> None:
    """`orc union` prints it; the boundary of the sample's NMI needs two words more than the image states."""
    _, out, _ = orcdbg_run("orc", "union", sample_files()[0], "--format", "json")
    row = next(r for r in json.loads(out)["result"]["rows"] if r["symbol"] == "lock_is_held_type+0x52")
    assert (row["orc_rule"], [r["rule"] for r in row["rules"]]) == ("sp+64", ["sp+72"])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (call_row(8), "type:call sp:sp+8 bp:(und) signal:0"),
        (
            OrcRow(OrcRegister.BP, 16, OrcRegister.PREV_SP, -16, RowType.CALL, False),
            "type:call sp:bp+16 bp:prevsp-16 signal:0",
        ),
        (
            OrcRow(OrcRegister.BP_INDIRECT, -8, OrcRegister.BP, 0, RowType.CALL, False),
            "type:call sp:(bp-8) bp:bp+0 signal:0",
        ),
        (
            OrcRow(OrcRegister.UNDEFINED, 0, OrcRegister.UNDEFINED, 0, RowType.END_OF_STACK, False),
            "type:end sp:(und) bp:(und) signal:0",
        ),
    ],
)
def test_a_row_is_dumped_as_objtool_writes_it(row: OrcRow, text: str) -> None:
    """The text form of `objtool --dump=orc`."""
    assert objtool_row(row) == text


@pytest.mark.parametrize("words", [["patch", "check"], ["orc", "nonsense", "x"], ["patch", "check", sample_files()[1]]])
def test_other_words_are_refused(orcdbg_run: RunProgram, words: list[str]) -> None:
    """Exit status 2 and a hint."""
    status, out, err = orcdbg_run(*words)
    assert (status, out) == (2, "")
    assert "hint:" in err
