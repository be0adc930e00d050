"""Each source of rules has its place in the overlay's order, and the first that answers decides."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import orcdbg.orc.rules
from orcdbg.kernel.names import Location
from orcdbg.orc import overlay as overlay_module
from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.effective import AsBuilt, Corrected, Derived, Source, Unknown
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.reasons import InsideThunk, NoRuleInThunk, PatchedTextMissing
from orcdbg.orc.rows import FUNCTION_ENTRY
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from tests.build.code import MadeKernelCode, MadeRows
from tests.build.memory import SparseMemory

SITE = 0xFFFF_FFFF_8100_0010
IMAGE, PUSHES = b"\x90" * 4, b"\x50\x90\x90\x90"  # nop; and push %rax, nop
ENTRY = OrcEntry("table", 0, SITE - 0x10, None, bytes(6), FUNCTION_ENTRY)


def sources() -> list[type]:
    """The classes in `orc/rules/` that answer a lookup."""
    found = []
    for info in pkgutil.iter_modules(orcdbg.orc.rules.__path__, "orcdbg.orc.rules."):
        module = importlib.import_module(info.name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            at = inspect.getattr_static(kind, "at", None)
            is_own = kind.__module__ == info.name and kind.__name__ != "RuleSource"
            if is_own and at is not None and list(inspect.signature(at).parameters) == ["self", "lookup"]:
                found.append(kind)
    return found


def overlay(
    text: bytes | None, entry: OrcEntry | None = ENTRY, expected: bytes | None = None, symbol: str = "function"
) -> OrcOverlay:
    """One over a patched site in a function."""
    memory = SparseMemory()
    if text is not None:
        memory.put(SITE, text)
    site = PatchSite("test", SITE, len(IMAGE), "x", IMAGE, expected, "a test", 0)
    cluster = Cluster(SITE, IMAGE, expected, (site,))
    place = Location(symbol, SITE, len(IMAGE), None, True)
    code = MadeKernelCode(
        memory,
        lambda address: place,
        find_cluster=lambda address: cluster if SITE <= address < cluster.end else None,
    )
    return OrcOverlay(code, MadeRows(lambda address: entry))


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.__name__)
def test_every_source_has_its_place(source: type) -> None:
    """A file in `orc/rules/` that the order does not name is never asked."""
    assert vars(overlay_module).get(source.__name__) is source


def test_there_are_sources() -> None:
    """The search above finds them."""
    assert {"PatchedSites", "RowsAsBuilt", "InsideThunks"} <= {source.__name__ for source in sources()}


def test_a_row_is_corrected_behind_what_was_patched_in() -> None:
    """And at the site's first byte, before any of it has run, it is as built."""
    patched = overlay(PUSHES)
    assert patched.at(SITE, True) == AsBuilt(ENTRY, sp_rule(8))
    corrected = patched.at(SITE + 1, True)
    assert isinstance(corrected, Corrected)
    assert (corrected.rule, corrected.patch.adjust, corrected.source) == (sp_rule(16), 8, Source.PATCH)


def test_an_unchanged_site_is_as_built() -> None:
    """Bytes as in the image push what the row says."""
    assert overlay(IMAGE).at(SITE + 1, True) == AsBuilt(ENTRY, sp_rule(8))


def test_missing_text_is_replayed_or_in_doubt() -> None:
    """Never taken for unchanged."""
    assert overlay(None).at(SITE + 1, True) == AsBuilt(ENTRY, sp_rule(8), doubt=PatchedTextMissing())
    assert overlay(None, expected=PUSHES).at(SITE + 1, True).rule == sp_rule(16)


def test_a_thunk_goes_before_its_patches() -> None:
    """The whole of it is patched, and no row tells of it: its instructions do, or nothing."""
    thunk = overlay(PUSHES, symbol="__x86_return_thunk").at(SITE + 1, True)
    assert isinstance(thunk, Derived)
    assert (thunk.rule, thunk.reason) == (sp_rule(16), InsideThunk())
    lost = overlay(None, symbol="__x86_return_thunk").at(SITE + 1, True)
    assert lost == Unknown(ENTRY, Source.TRAMPOLINE, NoRuleInThunk("__x86_return_thunk"))


def test_without_a_row_no_rule_is_known() -> None:
    """Whatever was patched there."""
    assert overlay(PUSHES, entry=None).at(SITE + 1, True) == Unknown()
