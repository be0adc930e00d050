"""A module that is half unloaded: its state, its BTF and the pages of that are damaged, on a real kernel with the lab's driver.

Each command answers with what is left, in bounded time, and where a type is not found says whose BTF could not be read.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from orcdbg.base.errors import NotFound, NotInSnapshot
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.mod import Modules
from orcdbg.commands.standard import standard_commands
from orcdbg.kernel.modules import ModuleState
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from tests.lab.conftest import FindScene
from tests.lab.draw import kernels_of
from tests.lab.kbuild import NAME, built_driver
from tests.lab.skips import skipped_if_unavailable

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("own driver"))]

OWN, OTHER = f"struct {NAME}_device", "struct task_struct.pid"
STATES = {1: ModuleState.COMING, 2: ModuleState.GOING, 3: ModuleState.UNFORMED, 77: None}


class Changed:
    """Physical memory in which some bytes are others, and some pages missing."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory
        self.bytes: dict[int, int] = {}
        self.missing: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, damage included."""
        if not self.missing.isdisjoint(range(address // PAGE, (address + size - 1) // PAGE + 1)):
            raise NotInSnapshot("physical", address, size)
        data = bytearray(self._memory.read(address, size))
        for at, value in self.bytes.items():
            if address <= at < address + size:
                data[at - address] = value
        return bytes(data)


class Damaged:
    """The driver's kernel, whose memory can be damaged."""

    def __init__(self, vmlinux: str, snapshot: str) -> None:
        self._memory: Changed | None = None
        self.session: Session = open_session(vmlinux, snapshot, through=self._through)

    def _through(self, memory: AddressSpace) -> Changed:
        self._memory = Changed(memory)
        return self._memory

    def write(self, address: int, data: bytes) -> None:
        """Other bytes at a virtual address."""
        assert self._memory is not None
        self._memory.bytes |= {self.session.memory.translate(address + at): value for at, value in enumerate(data)}

    def lose(self, address: int) -> None:
        """A page that is not in the snapshot."""
        assert self._memory is not None
        self._memory.missing.add(self.session.memory.translate(address) // PAGE)

    def ask(self, line: str) -> object:
        """The answer of memory as it is now."""
        self.session.memory.forget()
        self.session.move(self.session.snapshot)
        return standard_commands().run(Debugger(self.session), line)


@pytest.fixture
def damaged(kernel: str, find_scene: FindScene) -> Damaged:
    """A session of its own."""
    scene = find_scene(kernel, "driver")
    return Damaged(str(scene.vmlinux), str(scene.snapshot))


@pytest.mark.parametrize("number", STATES)
def test_its_state_is_shown(kernel: str, damaged: Damaged, number: int) -> None:
    """The other modules are live."""
    session = damaged.session
    own = next(module for module in session.names.modules if module.name == NAME)
    assert own.state is ModuleState.LIVE
    damaged.write(own.address + session.types.offset("module", "state"), number.to_bytes(4, "little"))
    answer = damaged.ask("mod")
    assert isinstance(answer, Modules)
    states = {module.name: module.state for module in answer.modules}
    assert states.pop(NAME) is STATES[number]
    assert set(states.values()) <= {ModuleState.LIVE}


def lost_page(damaged: Damaged, btf: int, random: Random) -> None:
    """A page of its BTF, the first, so that its header is gone."""
    damaged.lose(damaged.session.linux.member("btf", "data", btf))


def garbage(damaged: Damaged, btf: int, random: Random) -> None:
    """Its pages are somebody else's by now."""
    linux = damaged.session.linux
    data, size = linux.member("btf", "data", btf), linux.member("btf", "data_size", btf) & 0xFFFF_FFFF
    damaged.write(data, random.randbytes(size))


def freed(damaged: Damaged, btf: int, random: Random) -> None:
    """Its struct btf is poisoned, as SLUB's debugging does."""
    damaged.write(btf, b"\x6b" * damaged.session.types.size("btf"))


def too_large(damaged: Damaged, btf: int, random: Random) -> None:
    """It claims all that its 32 bits can."""
    damaged.write(btf + damaged.session.types.offset("btf", "data_size"), b"\xff" * 4)


def other_start(damaged: Damaged, btf: int, random: Random) -> None:
    """Its types are counted from elsewhere."""
    damaged.write(btf + damaged.session.types.offset("btf", "start_id"), random.randbytes(4))


@pytest.mark.parametrize("how", [lost_page, garbage, freed, too_large, other_start], ids=lambda how: how.__name__)
def test_a_type_that_is_gone_is_told_as_such(
    kernel: str, seed: int, damaged: Damaged, how: Callable[[Damaged, int, Random], None]
) -> None:
    """In one line, with the module's or its address; the kernel's types stay."""
    with skipped_if_unavailable(f"{kernel} driver"):
        if not built_driver(kernel).has_btf:
            pytest.skip("kernels before 5.11 keep no types of modules")
    damaged.ask(OWN)
    types = damaged.session.program.module_types
    btf = types.address_of(NAME)
    assert btf is not None
    how(damaged, btf, Random(f"{seed} {kernel} {how.__name__}"))
    with pytest.raises(NotFound) as caught:
        damaged.ask(OWN)
    hint = caught.value.hint or ""
    assert "could not be read" in hint
    assert NAME in hint or f"{btf:#x}" in hint
    assert len(hint) < 400
    damaged.ask(OTHER)
