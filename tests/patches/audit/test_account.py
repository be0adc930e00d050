"""The account of a whole text, on the bundled sample: nothing unexplained, a planted byte found, damage survived."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import AddressSpace, FileSource
from orcdbg.cli.main import sample_files
from orcdbg.formats.elf import ElfFile, Section
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.alternative_table import AlternativeTable
from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.audit.core_text import audit_kernel, replayed_kernel, text_as_built
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.patches.sweep import UNKNOWN, WholeText, replay_pass
from orcdbg.target.session import Session

TABLES = (".altinstructions", ".parainstructions", ".smp_locks")


class Planted:
    """Memory with some bytes changed, or some pages missing."""

    def __init__(self, memory: AddressSpace, changes: dict[int, int], missing: frozenset[int] = frozenset()) -> None:
        self._memory = memory
        self._changes = changes
        self._missing = missing

    def read(self, address: int, size: int) -> bytes:
        """The bytes, changed."""
        if not self._missing.isdisjoint(range(address // 4096, (address + size - 1) // 4096 + 1)):
            raise NotInSnapshot("virtual", address, size)
        data = bytearray(self._memory.read(address, size))
        for at, value in self._changes.items():
            if address <= at < address + size:
                data[at - address] = value
        return bytes(data)


class DamagedImage(Image):
    """An image one of whose tables says something else."""

    def __init__(self, table: str, data: bytes) -> None:
        super().__init__(open_source(sample_files()[0]))
        self._table = table
        self._data = data

    def section_data(self, name: str) -> bytes:
        """The table, or what the file has."""
        return self._data if name == self._table else super().section_data(name)


class WithoutTables(Image):
    """An image that lost the tables of what the boot patches."""

    def __init__(self) -> None:
        super().__init__(open_source(sample_files()[0]))

    def find_section(self, name: str) -> Section | None:
        """The section, but for the tables."""
        return None if name in TABLES else super().find_section(name)

    def section_data(self, name: str) -> bytes:
        """What the file has, but for the tables."""
        return b"" if name in TABLES else super().section_data(name)


def build_with(sample: Session, memory: AddressSpace | None = None, image: Image | None = None) -> Build:
    """The sample's build with another memory or image."""
    linux = Linux(memory or sample.memory, sample.symbols, sample.types, sample.slide)
    chosen = image or sample.image
    return Build(chosen, linux, BuiltText(chosen, sample.slide), Features(linux))


def audit(build: Build) -> AuditReport:
    """The account."""
    return audit_kernel(KernelPatches(build))


def test_every_differing_byte_of_the_sample_has_one_account(sample: Session) -> None:
    """differing = explained + unexplained + mismatched + undecided, and mechanisms add up to the explained ones."""
    report = audit_kernel(sample.patches)
    assert report.clean
    assert report.differing == report.explained + report.undecided
    assert report.explained == sum(count.bytes for count in report.mechanisms.values())
    assert report.undecided == sum(count.undecided for count in report.mechanisms.values())


def test_a_mechanism_without_a_table_has_no_entry_but_for_those_that_the_contract_names(sample: Session) -> None:
    """What memory lists, lock prefixes, static calls where the kernel has any, and freed sites are there with no sites."""
    always = {"smp-lock", "ftrace", "kprobe", "optprobe", "init-freed"}
    without = audit(build_with(sample, image=WithoutTables()))
    assert set(without.mechanisms) == always | {"jump-label", "static-call"}
    assert without.mechanisms["smp-lock"].sites == 0
    assert set(audit(build_with(sample)).mechanisms) == set(without.mechanisms) | {"alternative", "paravirt"}


@pytest.mark.parametrize("where", ["schedule", "do_exit", "__x64_sys_read"])
def test_a_planted_byte_is_found_and_located(sample: Session, where: str) -> None:
    """Outside all sites it is unexplained, and the report names its address."""
    build = build_with(sample)
    owners = replayed_kernel(KernelPatches(build)).text
    start = sample.linux.address(where)
    at = next(a for a in range(start + 8, start + 4096) if not owners.owners[a - owners.address])
    value = sample.memory.read(at, 1)[0] ^ 0x5A
    report = audit(build_with(sample, Planted(sample.memory, {at: value})))
    assert report.unexplained == 1
    assert [found.address for found in report.unexplained_ranges] == [at]
    assert report.unexplained_ranges[0].memory == bytes([value])


def test_a_byte_planted_in_a_site_is_a_mismatch_of_its_mechanism(sample: Session) -> None:
    """Also where it puts back what the image had."""
    cluster = next(c for c in sample.stack_ledger.clusters() if c.expected and c.expected[0] != c.image[0])
    memory = Planted(sample.memory, {cluster.address: cluster.image[0]})
    report = audit(build_with(sample, memory))
    assert report.mismatched == 1
    assert report.mismatched_ranges[0].address == cluster.address
    assert report.mechanisms[cluster.sites[-1].mechanism].mismatched == 1


def test_missing_text_pages_are_counted_and_nothing_is_said_of_them(sample: Session) -> None:
    """They are no differences."""
    page = sample.linux.address("schedule") // 4096
    report = audit(build_with(sample, Planted(sample.memory, {}, frozenset({page}))))
    assert report.missing_pages == audit_kernel(sample.patches).missing_pages + 1
    assert report.clean


def test_replay_of_single_sites_agrees_with_replay_of_the_whole_text(sample: Session) -> None:
    """Both follow the same rules; a random choice of sites of all passes."""
    build = build_with(sample)
    text = replayed_kernel(KernelPatches(build)).text
    clusters = sample.ledger.between(text.address, text.end)
    for cluster in random.Random(3).sample(clusters, 500):
        owners = text.owners[cluster.address - text.address : cluster.end - text.address]
        if cluster.expected is not None and not (owners & UNKNOWN).any():
            assert text.read(cluster.address, len(cluster.image)) == cluster.expected


def test_replaying_replayed_text_changes_nothing(sample: Session) -> None:
    """The passes leave alone what they have done."""
    patches = KernelPatches(build_with(sample))
    first = replayed_kernel(patches).text
    again = WholeText(first.address, bytearray(first.data))
    for the_pass in patches.passes:
        replay_pass(the_pass, again)
    assert again.data == first.data


def test_a_boot_that_was_stopped_before_its_patches_were_all_in_leaves_them_undecided(sample: Session) -> None:
    """The kernel says so itself; what other passes wrote is explained as ever, and a changed byte elsewhere is found."""
    place = sample.linux.address("kfree")
    early = dict.fromkeys(range(at := sample.linux.address("alternatives_patched"), at + 4), 0)
    whole, report = audit(build_with(sample)), audit(build_with(sample, Planted(sample.memory, early)))
    assert (report.differing, report.unexplained, report.mismatched) == (whole.differing, 0, 0)
    assert report.undecided > whole.undecided
    assert any("alternatives_patched is 0" in problem for problem in report.problems)
    changed = sample.memory.read(place, 1)[0] ^ 0xFF
    report = audit(build_with(sample, Planted(sample.memory, {**early, place: changed})))
    assert (
        report.unexplained + report.mismatched,
        [*report.unexplained_ranges, *report.mismatched_ranges][0].address,
    ) == (
        1,
        place,
    )


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_table_is_a_problem_and_the_rest_is_audited(sample: Session, table: str, seed: int) -> None:
    """Random bytes in place of a table: lines that name it, never an exception."""
    data = random.Random(f"{table} {seed}").randbytes(4800)
    report = audit(build_with(sample, image=DamagedImage(table, data)))
    assert report.end - report.start == len(text_as_built(sample.build)[1])
    assert any(table in problem for problem in report.problems)


@pytest.mark.parametrize(("table", "size"), [(".altinstructions", 12), (".parainstructions", 16), (".smp_locks", 4)])
def test_a_table_of_ten_million_entries_is_a_problem_and_the_rest_is_audited(
    sample: Session, table: str, size: int
) -> None:
    """Its length is said, or each place that cannot be; what other tables tell is explained as ever."""
    whole = audit(build_with(sample))
    report = audit(build_with(sample, image=DamagedImage(table, bytes(size * 10**7))))
    assert any(table in problem for problem in report.problems)
    others = {name for name, one in whole.mechanisms.items() if one.bytes} - {"alternative", "paravirt", "smp-lock"}
    assert others
    for name in others:
        assert report.mechanisms[name].bytes == whole.mechanisms[name].bytes, name


def test_an_entry_with_an_impossible_feature_is_named(sample: Session) -> None:
    """The others are applied all the same."""
    table = bytearray(sample.image.section_data(".altinstructions"))
    section = sample.image.find_section(".altinstructions")
    assert section is not None
    sites = AlternativeTable(bytes(table), section.address + sample.slide).sites.tolist()
    chosen = next(row for row, site in enumerate(sites) if sample.build.text[0] <= site < sample.build.text[1])
    table[12 * chosen + 8 : 12 * chosen + 10] = (0x7FFF).to_bytes(2, "little")
    report = audit(build_with(sample, image=DamagedImage(".altinstructions", bytes(table))))
    assert any("feature bit 32767 is out of range" in problem for problem in report.problems)
    assert report.mechanisms["alternative"].patched > 0


def test_the_replayed_text_is_an_elf_file_with_its_symbols(sample: Session, tmp_path: Path) -> None:
    """Section .text at its run-time address, holding the replayed bytes."""
    from orcdbg.commands.debugger import Debugger
    from orcdbg.commands.standard import standard_commands

    path = tmp_path / "text.elf"
    standard_commands().run(Debugger(sample), f"patch replay -o {path}")
    elf = ElfFile(FileSource(str(path)))
    text = elf.by_name[".text"]
    build = sample.build
    assert text.address == build.text[0]
    expected = replayed_kernel(KernelPatches(build)).text
    assert elf.data(text) == bytes(expected.data)
    assert elf.by_name[".symtab"].size > 24 * 1000


def test_strict_has_its_own_exit_status(sample: Session) -> None:
    """5 when something is wrong, 0 when nothing is or nobody asked."""
    from orcdbg.commands.debugger import Debugger
    from orcdbg.commands.standard import standard_commands

    result = standard_commands().run(Debugger(sample), "patch audit --strict")
    assert getattr(result, "exit_status", None) == 0


def test_owners_follow_the_order_of_passes(sample: Session) -> None:
    """No byte of the replayed text differs from the image without a pass that is answerable for it."""
    build = build_with(sample)
    replayed = replayed_kernel(KernelPatches(build))
    built = np.frombuffer(text_as_built(build)[1], dtype=np.uint8)
    changed = replayed.text.array != built
    assert bool((replayed.text.owners[changed] != 0).all())
