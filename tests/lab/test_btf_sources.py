"""Real kernels whose vmlinux has no `.BTF`: each source of types gives the answers that the image's own give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.base.errors import NotInSnapshot, OtherTypes
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.image.vmlinux import open_image
from orcdbg.symbols.btf import SECTION
from orcdbg.symbols.btf_in_memory import BOUNDS
from orcdbg.symbols.btf_made import PAHOLE, find_program
from orcdbg.target.kernel_types import TypeOptions, TypeOrigin
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.views.as_text import text_pieces
from tests.lab.conftest import KERNELS, FindScene, OpenScene
from tests.lab.draw import kernels_of
from tests.lab.fetch import ensure

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("types without .BTF"))]
both = pytest.mark.parametrize("name", ["idle", "nmi"])

ASKED = ("foreach bt", "bt -a", "ps", "struct task_struct", "mod")


class Without:
    """Physical memory without some pages."""

    def __init__(self, memory: AddressSpace, pages: set[int]) -> None:
        self._memory, self._pages = memory, pages

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the rest."""
        if not self._pages.isdisjoint(range(address // PAGE, (address + size - 1) // PAGE + 1)):
            raise NotInSnapshot("physical", address, size)
        return self._memory.read(address, size)


def renamed(vmlinux: Path, path: Path, *names: bytes) -> str:
    """Writes a vmlinux in which sections and symbols of these names have others."""
    data = bytearray(vmlinux.read_bytes())
    for name in names:
        place = data.find(b"\0" + name + b"\0")
        while place >= 0:
            data[place + 2] ^= 0x20
            place = data.find(b"\0" + name + b"\0")
    path.write_bytes(data)
    return str(path)


@pytest.fixture
def bare(kernel: str, tmp_path: Path) -> Iterator[str]:
    """The kernel's vmlinux without `.BTF`; it has some hundred MiB, so it does not stay."""
    path = tmp_path / "vmlinux"
    yield renamed(ensure(kernel).vmlinux, path, SECTION.encode())
    path.unlink()


def answers(session: Session) -> list[str]:
    """What is answered, as text."""
    registry, debugger = standard_commands(), Debugger(session)
    return ["".join(text_pieces(registry.run(debugger, command), None)) for command in ASKED]


def hidden(session: Session) -> set[int]:
    """The physical pages that hold the kernel's BTF."""
    section = session.image.find_section(SECTION)
    assert section is not None
    start, end = section.address + session.slide, section.end + session.slide
    return {session.memory.translate(page) // PAGE for page in range(start & -PAGE, end, PAGE)}


@both
@pytest.mark.parametrize("named", [True, False])
def test_memory(kernel: str, name: str, named: bool, bare: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """Where its symbols say, and where it is found without them."""
    scene, session = open_scene(kernel, name)
    if not named:
        symbols = [word.encode() for words in BOUNDS for word in words]
        bare = renamed(Path(bare), Path(bare), *symbols)
    other = open_session(bare, scene.snapshot)
    assert other.found_types.origin is TypeOrigin.MEMORY
    assert answers(other) == answers(session)


@both
def test_a_file(kernel: str, name: str, bare: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """Where memory has lost it."""
    scene, session = open_scene(kernel, name)
    (tmp_path / "types").write_bytes(session.image.section_data(SECTION))
    pages = hidden(session)
    options = TypeOptions(btf=str(tmp_path / "types"))
    other = open_session(bare, scene.snapshot, through=lambda memory: Without(memory, pages), type_options=options)
    assert other.found_types.origin is TypeOrigin.FILE
    assert answers(other) == answers(session)


@both
def test_pahole(kernel: str, name: str, bare: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """What it makes of the DWARF, and what it made before."""
    if find_program(PAHOLE, os.environ) is None:
        pytest.skip("pahole is not installed")
    scene, session = open_scene(kernel, name)
    pages = hidden(session)
    cache = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for make in (True, False):
        options = TypeOptions(make_btf=make, environment=cache)
        other = open_session(bare, scene.snapshot, through=lambda memory: Without(memory, pages), type_options=options)
        assert other.found_types.origin is TypeOrigin.MADE
        assert answers(other) == answers(session)


@both
def test_drgn(kernel: str, name: str, bare: str, open_scene: OpenScene, tmp_path: Path) -> None:
    """What it reads of the DWARF, where nothing was made."""
    scene, session = open_scene(kernel, name)
    pages = hidden(session)
    options = TypeOptions(environment={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    other = open_session(bare, scene.snapshot, through=lambda memory: Without(memory, pages), type_options=options)
    assert other.found_types.origin is TypeOrigin.DRGN
    assert answers(other) == answers(session)


def test_types_of_each_other_kernel_are_refused(kernel: str, find_scene: FindScene, tmp_path: Path) -> None:
    """By what VMCOREINFO says, and without it."""
    scene = find_scene(kernel, "idle")
    for other in KERNELS:
        if other == kernel:
            continue
        path = tmp_path / other
        path.write_bytes(open_image(str(ensure(other).vmlinux)).section_data(SECTION))
        with pytest.raises(OtherTypes):
            open_session(scene.vmlinux, scene.snapshot, type_options=TypeOptions(btf=str(path)))
