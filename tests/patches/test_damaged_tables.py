"""Damaged tables of an image are named, or left out; the passes that read them go on.

Crosses tables, the passes of mechanisms/, and the audit: one damaged section is read by all of them.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest

from orcdbg.base.errors import BadAddress, Corrupt, NotFound, NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import BytesSource, BytesSpace
from orcdbg.formats.elf import ElfFile
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText, make_spans
from orcdbg.patches.tables import built_bytes
from orcdbg.symbols.table import ENTRY
from orcdbg.target.vmlinux_alone import UnbootedKernel
from tests.build.elf import EHDR, SHDR, Part, image
from tests.fuzz_elf import audit_of, sample_vmlinux

TEXT, SLIDE = 0xFFFF_FFFF_8100_0000, 0x100_0000


def test_a_site_at_the_last_address_ends_the_search() -> None:
    """A self-relative word can name it, and no address lies behind it."""
    space = BytesSpace(TEXT, bytes(range(64)), lambda address, size: BadAddress("test", address, size))
    places = np.array([(1 << 64) - 1, TEXT + 5, (1 << 64) - 1], dtype=np.uint64)
    assert built_bytes(space, places, 2).tolist() == [[0, 0], [5, 6], [0, 0]]


def moved_image(relocations: bytes, symbols: bytes | None, link: int) -> Image:
    """Text, its relocations, and symbols where there are any."""
    parts = [Part(".text", TEXT, bytes(64), flags=6), Part(".rela.text", 0, relocations, type=4, flags=0)]
    if symbols is not None:
        parts += [Part(".strtab", 0, b"\0", type=3, flags=0), Part(".symtab", 0, symbols, 2, 0, link)]
    return Image(BytesSource("made", image(parts)))


MOVE = struct.pack("<QQq", TEXT + 8, 11, 0)


@pytest.mark.parametrize(
    ("relocations", "symbols", "link", "what"),
    [
        (MOVE, None, 3, "no symbol table"),
        (MOVE, b"", 3, "no symbol table"),
        (MOVE, bytes(24), 99, "no string table"),
        (struct.pack("<QQq", TEXT, 11 | 5 << 32, 0), bytes(24), 3, "names symbol 5 of 1"),
    ],
)
def test_relocations_that_lead_nowhere_are_named(
    relocations: bytes, symbols: bytes | None, link: int, what: str
) -> None:
    """Without symbols, without strings, with numbers that no symbol has."""
    with pytest.raises(UnsupportedFormat, match=what):
        BuiltText(moved_image(relocations, symbols, link), SLIDE).read(TEXT + SLIDE, 16)


def test_half_an_entry_is_left_out() -> None:
    """The whole ones before it hold."""
    text = BuiltText(moved_image(MOVE + b"half", np.zeros(1, ENTRY).tobytes(), 3), SLIDE)
    assert text.read(TEXT + SLIDE, 16) == bytes(8) + SLIDE.to_bytes(8, "little")


def audit_with(name: str, address: int | None, data: bytes | None) -> AuditReport:
    """The account of a kernel one of whose sections claims another address, or holds something else."""
    whole = bytearray(sample_vmlinux())
    elf = ElfFile(BytesSource("made", bytes(whole)))
    section = elf.by_name[name]
    if data is not None:
        whole[section.offset : section.offset + len(data)] = data
    if address is not None:
        struct.pack_into(
            "<Q", whole, EHDR.unpack_from(whole)[6] + SHDR.size * elf.sections.index(section) + 16, address
        )
    return audit_of(UnbootedKernel(Image(BytesSource("made", bytes(whole)))))


@pytest.mark.parametrize("name", [".retpoline_sites", ".return_sites", ".ibt_endbr_seal"])
def test_a_table_that_names_nothing_inside_the_text_is_a_problem(name: str) -> None:
    """A pass without a place has nothing to tell, whatever it does not know."""
    report = audit_with(name, None, struct.pack("<i", 0x1000) * 4)
    assert any(name in problem and "outside" in problem for problem in report.problems)


def test_a_place_at_the_last_address_is_not_inside_the_text() -> None:
    """Where its end comes round to a small number."""
    at = next(s for s in Image(BytesSource("made", sample_vmlinux())).sections if s.name == ".smp_locks").address
    last = struct.pack("<i", (1 << 64) - 1 - at - SLIDE)
    assert audit_with(".smp_locks", None, last).mechanisms["smp-lock"].sites == 3
    assert audit_with(".smp_locks", None, b"").mechanisms["smp-lock"].sites == 4


@pytest.mark.parametrize("name", [".notes", ".BTF", ".orc_unwind"])
@pytest.mark.parametrize("address", [(1 << 64) - 1, (1 << 64) - 0x1000, 0x1000])
def test_a_section_that_claims_the_last_addresses_changes_nothing(name: str, address: int) -> None:
    """What it and the slide add up to is no address."""
    assert audit_with(name, address, None).explained == audit_with(name, None, None).explained > 0


def with_symbol(name: str, address: int) -> Image:
    """The sample's image, one of whose symbols lies elsewhere."""
    whole = bytearray(sample_vmlinux())
    elf = ElfFile(BytesSource("made", bytes(whole)))
    symbols, strings = elf.by_name[".symtab"], elf.by_name[".strtab"]
    wanted = bytes(whole).index(b"\0" + name.encode() + b"\0", strings.offset) + 1 - strings.offset
    table = np.frombuffer(whole, ENTRY, symbols.size // ENTRY.itemsize, symbols.offset)
    table["value"][table["name"] == wanted] = address
    return Image(BytesSource("made", bytes(whole)))


@pytest.mark.parametrize(
    ("symbol", "mechanism", "lost"),
    [
        ("__stop___jump_table", "jump-label", {"jump-label"}),
        # The trampolines are told by their names, and stay.
        ("__stop_static_call_sites", "static-call", set()),
    ],
)
def test_a_table_that_follows_variables_breaks_alone(symbol: str, mechanism: str, lost: set[str]) -> None:
    """Its end lies outside the image: the audit names it, once, and has every other mechanism."""
    whole = audit_of(UnbootedKernel(Image(BytesSource("made", sample_vmlinux()))))
    report = audit_of(UnbootedKernel(with_symbol(symbol, (1 << 64) - 0x1000)))
    assert set(report.mechanisms) == set(whole.mechanisms) - lost
    named = [problem for problem in report.problems if "its sites are not known" in problem]
    assert len(named) == 1
    assert named[0].startswith(f"{mechanism}: ")


class Broken:
    """A pass that fails as one over damaged state does: where its places are asked for, or at one of them."""

    mechanism = "broken"

    def __init__(self, places: Exception | None, rule: Exception | None) -> None:
        self._places = places
        self._rule = rule

    def spans(self) -> Spans:
        """The first bytes of the text."""
        if self._places is not None:
            raise self._places
        return make_spans([TEXT + SLIDE], [4])

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Writes, and fails after that."""
        text.write(TEXT + SLIDE, b"\xcc")
        if self._rule is not None:
            raise self._rule
        return Applied("int3", "named by the test")


FAILURES = [
    Undecidable("its state is not in the snapshot"),
    NotFound("symbol", "ftrace_caller"),
    Corrupt("a list that runs in a circle"),
    NotInSnapshot("virtual", TEXT, 8),
    UnsupportedFormat("table", "more entries than any kernel has"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_pass_that_fails_at_a_place_leaves_it_undecided(error: Exception) -> None:
    """The audit counts the place, names the reason, and goes on; so does the list of sites."""
    patches = patches_of(Broken(None, error))
    report = audit_kernel(patches)
    assert report.mechanisms["broken"].sites == 1
    assert f"broken: what stands at 1 sites cannot be told; {error}" in report.problems
    cluster = patches.ledger.find(TEXT + SLIDE)
    assert cluster is not None
    assert cluster.expected is None
    assert (cluster.sites[-1].mechanism, cluster.sites[-1].decided_by) == ("broken", str(error))


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_pass_that_fails_to_tell_its_places_has_none(error: Exception) -> None:
    """The reason is a problem of the audit, and the other passes have what they have without it."""
    patches = patches_of(Broken(error, None))
    report = audit_kernel(patches)
    assert f"broken: its sites are not known: {error}" in report.problems
    others = {name: count for name, count in report.mechanisms.items() if name != "broken"}
    assert others == audit_of(UnbootedKernel(Image(BytesSource("made", sample_vmlinux())))).mechanisms
    assert len(patches.ledger) == len(patches_of().ledger) > 0


def patches_of(*passes: PatchPass) -> KernelPatches:
    """The sample's patches with some more passes."""
    kernel = UnbootedKernel(Image(BytesSource("made", sample_vmlinux())))
    built = BuiltText(kernel.image, SLIDE)
    linux = Linux(built, kernel.symbols, kernel.types, SLIDE)
    return KernelPatches(Build(kernel.image, linux, built, Features(linux)), [lambda _: passes])
