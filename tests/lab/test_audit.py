"""Every patched byte of real kernels accounted for, however they were booted."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from orcdbg.base.reading import AddressSpace
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.module_files import audit_modules
from orcdbg.commands.patch_sites import Sites
from orcdbg.commands.standard import standard_commands
from orcdbg.image.vmlinux import open_image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.patches.audit.core_text import audit_kernel, replayed_kernel
from orcdbg.patches.build import Build
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.patches.sweep import UNKNOWN
from orcdbg.symbols.table import image_symbols
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End
from tests.lab import boots
from tests.lab.apt import Unavailable
from tests.lab.conftest import CHOSEN_BOOTS, KERNELS, OpenScene
from tests.lab.fetch import ensure
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.scenes import BOOT_SECONDS, Scene, write_initrd
from tests.lab.scripts import write_busy
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab
EARLY = ("alternative_instructions", "apply_alternatives", "apply_returns", "apply_paravirt")


def opened(scene: Scene) -> Session:
    """The scene's session."""
    return open_session(scene.vmlinux, scene.snapshot)


def assert_modules_clean(session: Session, modules: Path) -> None:
    """The same of every loaded module."""
    reports, without = audit_modules(session, str(modules))
    assert without == {}
    assert {name: (one.unexplained, one.mismatched, one.problems) for name, one in reports.items()} == {
        module.name: (0, 0, []) for module in session.names.modules
    }


def assert_clean(scene: Scene, session: Session) -> None:
    """Nothing is unexplained, nothing contradicts the replay, nothing is left open."""
    report = audit_kernel(session.patches)
    wrong = [*report.unexplained_ranges, *report.mismatched_ranges]
    assert [(session.names.describe(one.address), one.mechanism, one.memory.hex()) for one in wrong] == []
    assert report.problems == []
    assert report.differing == report.explained > 0
    assert_modules_clean(session, ensure(scene.kernel).modules)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["idle", "nmi"])
def test_a_default_boot_is_fully_explained(kernel: str, name: str, open_scene: OpenScene) -> None:
    """Idle on two CPUs, and struck by an NMI on one."""
    assert_clean(*open_scene(kernel, name))


@pytest.mark.parametrize(("kernel", "how"), CHOSEN_BOOTS)
def test_a_boot_of_another_kind_is_fully_explained(kernel: str, how: str, seed: int, tmp_path: Path) -> None:
    """Other CPUs, mitigations, tracers and probes."""
    try:
        scene = boots.boot(kernel, how, seed, tmp_path)
        assert_clean(scene, opened(scene))
    except (Unavailable, GuestError) as error:
        # Some of these guests die in the emulator now and then, long before anything is to be audited.
        pytest.skip(f"{kernel} {how}: {error}")
    finally:
        (tmp_path / "core").unlink(missing_ok=True)


class Planted:
    """Memory with one byte changed."""

    def __init__(self, memory: AddressSpace, at: int) -> None:
        self._memory = memory
        self._at = at

    def read(self, address: int, size: int) -> bytes:
        """The bytes, one of them not what it was."""
        data = bytearray(self._memory.read(address, size))
        if address <= self._at < address + size:
            data[self._at - address] ^= 0xFF
        return bytes(data)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_changed_byte_anywhere_in_the_text_is_found(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """In a site or outside, the report names the address, or the relocated operand that the byte is part of."""
    _, session = open_scene(kernel, "idle")
    start, end = session.build.text
    for at in Random(f"{kernel} {seed}").sample(range(start, end), 5):
        linux = Linux(Planted(session.memory, at), session.symbols, session.types, session.slide)
        build = Build(session.image, linux, session.built, Features(linux))
        report = audit_kernel(KernelPatches(build))
        wrong = [*report.unexplained_ranges, *report.mismatched_ranges]
        # Of an operand that no longer differs by the slide all bytes that were moved are told, in one piece or two.
        assert any(one.address <= at < one.address + len(one.memory) for one in wrong)
        assert all(at - 4 < one.address and one.address + len(one.memory) <= at + 4 for one in wrong)


@pytest.mark.parametrize("kernel", KERNELS)
def test_single_sites_and_the_whole_text_agree(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """All sites of a stretch somewhere in the text."""
    _, session = open_scene(kernel, "idle")
    text = replayed_kernel(session.patches).text
    start = Random(f"{kernel} {seed}").randrange(text.address, text.end - (1 << 20))
    for cluster in session.ledger.between(start, start + (1 << 14)):
        owners = text.owners[cluster.address - text.address : cluster.end - text.address]
        if cluster.expected is not None and not (owners & UNKNOWN).any():
            assert text.read(cluster.address, len(cluster.image)) == cluster.expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_relocated_operands_are_the_first_pass_at_a_place(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """`patch at` an instruction that the boot loader moved: linked and moved bytes, and memory holds the moved ones."""
    _, session = open_scene(kernel, "idle")
    if not session.slide:
        pytest.skip(f"{kernel}: this boot was not moved")
    debugger, registry, random = Debugger(session), standard_commands(), Random(f"{kernel} {seed} moved")
    start, end = session.build.text
    seen = 0
    for _ in range(2000):
        place = session.names.at(random.randrange(start, end))
        if place is None or place.size > 4096:
            continue
        for at, linked, moved in session.built.fields(place.start, place.start + place.size, place.start)[:1]:
            answer = registry.run(debugger, f"patch at {at:#x}")
            assert isinstance(answer, Sites)
            first = answer.sites[0]
            assert (first.site.mechanism, first.site.address, first.site.order) == ("relocation", at, 0)
            assert (first.site.image, first.site.expected) == (linked, moved)
            assert first.memory == moved or len(answer.sites) > 1
            seen += 1
        if seen > 50:
            break
    assert seen > 20


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_boot_stopped_while_it_patches_contradicts_nothing(kernel: str, seed: int, tmp_path: Path) -> None:
    """At the first instruction of the patching, or of one of its passes; the stack is whole."""
    random = Random(f"{kernel} early {seed}")
    with skipped_if_unavailable(kernel):
        found = ensure(kernel)
    symbols = image_symbols(open_image(str(found.vmlinux)))
    names = [name for name in EARLY if symbols.find(name) is not None]
    chosen = symbols.get(random.choice(names))
    initrd, core = write_initrd(tmp_path, found, write_busy(random, chosen.name), random), tmp_path / "core"
    with Guest(Machine(found.vmlinuz, initrd, "nokaslr"), tmp_path / "serial.log") as guest, guest.stub() as stub:
        stub.set_breakpoint(chosen.address)
        assert stub.resume(BOOT_SECONDS)
        guest.qmp("dump-guest-memory", paging=False, protocol=f"file:{core}")
    session = open_session(found.vmlinux, core)
    report = audit_kernel(session.patches)
    print(f"{kernel} {chosen.name}: {report.explained} explained, {report.undecided} undecided of {report.differing}")
    assert (report.unexplained, report.mismatched) == (0, 0)
    assert report.explained > 0
    assert report.problems
    (running,) = session.unwinder.running
    trace = session.unwinder.trace(session.task(running))
    assert (trace.frames[0].ip, trace.end, {frame.doubt for frame in trace.frames}) == (
        chosen.address,
        End.BOOT,
        {None},
    )
