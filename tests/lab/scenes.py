"""Which stopped machines the tests look at: each scene boots one kernel, brings it somewhere, and takes a snapshot."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType

from tests.lab import scripts
from tests.lab.deaths import note_death
from tests.lab.fetch import Kernel, cache_dir, ensure, locked
from tests.lab.gdbstub import StubError
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.initramfs import build_initramfs, load_order
from tests.lab.program import sleeper_programs
from tests.lab.strike import WANTED, strike

BOOT_SECONDS = 180.0
KEPT_SEEDS = 4  # of one kernel and scene; a snapshot takes some 280 MB
ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Scene:
    """A snapshot and what is known to be true of it.

    Attributes:
        stacks: what the guest's own unwinder printed, by thread id, of tasks that stood still: innermost frame first,
            each "symbol+0xOFFSET/0xSIZE" with " [module]" where that applies.
        moved: the same for tasks that did not stand still; their frames may be out of date.
        comms: the names of all those tasks.
        symbols: runtime addresses by name; always `_text`.
        bp_address: where the NMI struck, else None.
        registers: the CPU's registers there, else empty.
        counts: how many threads each program of a crowd made, else empty.
    """

    kernel: str
    name: str
    seed: int
    vmlinux: Path
    snapshot: Path
    serial: Path
    stacks: dict[int, list[str]]
    kaslr: bool
    moved: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    comms: dict[int, str] = dataclasses.field(default_factory=dict)
    symbols: dict[str, int] = dataclasses.field(default_factory=dict)
    bp_address: int | None = None
    registers: dict[str, int] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


def idle(kernel: str, seed: int = 0) -> Scene:
    """Return a scene of sleeping tasks on two idle CPUs, with KASLR.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    return cached(kernel, "idle", seed, _make_idle)


def nmi(kernel: str, seed: int = 0, symbol: str = "_raw_spin_lock_irqsave", offset: int | None = None) -> Scene:
    """Return a scene of a panic by an NMI that struck between a patched-in `pushf` and its `pop`.

    Args:
        offset: of the `pop` in `symbol`; None looks for the two instructions in the guest's memory.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """

    def make(home: Path, found: Kernel, random: Random) -> Scene:
        return _make_nmi(home, found, random, symbol, offset)

    named = symbol == "_raw_spin_lock_irqsave" and offset is None
    return cached(kernel, "nmi" if named else f"nmi@{symbol}+{offset}", seed, make)


SCENES: dict[str, Callable[[str, int], Scene]] = {"idle": idle, "nmi": nmi}

_Make = Callable[[Path, Kernel, Random], Scene]


def cached(kernel: str, name: str, seed: int, make: _Make) -> Scene:
    """Return the scene of that name and seed, made where the cache has none."""
    found = ensure(kernel)
    home = cache_dir() / "scenes" / f"{kernel}-{name}-{seed}"
    with locked(home.name):
        if not (home / "scene.json").exists():
            _make_in(home, lambda scratch: make(scratch, found, Random(f"{kernel} {name} {seed}")), seed)
    return _load(home, found)


def fresh(kernel: str, name: str, seed: int, make: Callable[[Kernel, Random], Scene]) -> Scene:
    """Return a scene that is not kept, made anew; several attempts start from the same seed."""
    found = ensure(kernel)
    return attempt(f"{kernel} {name}", lambda: make(found, Random(f"{kernel} {name} {seed}")))


def _make_in(home: Path, make: Callable[[Path], Scene], seed: int) -> None:
    home.parent.mkdir(exist_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=home.parent))
    try:
        scene = attempt(home.name, lambda: make(scratch))
        (scratch / "initrd").unlink()
        _save(scratch, dataclasses.replace(scene, seed=seed))
        scratch.rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _prune(home)


def attempt(what: str, make: Callable[[], Scene]) -> Scene:
    """Make a scene; begin anew where its guest fails, at most so often that ATTEMPTS are made."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return make()
        except (GuestError, StubError, TimeoutError) as error:
            if not left:
                raise
            note_death(what, str(error) or type(error).__name__)
    raise AssertionError("unreachable")


def _prune(newest: Path) -> None:
    stem = newest.name.rpartition("-")[0]
    homes = [path for path in newest.parent.glob(f"{stem}-*") if path.name.rpartition("-")[0] == stem]
    homes.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in homes[KEPT_SEEDS:]:
        shutil.rmtree(old)


def _save(home: Path, scene: Scene) -> None:
    text = json.dumps(dataclasses.asdict(scene), default=lambda path: path.name, indent=1)
    (home / "scene.json").write_text(text)


def _load(home: Path, kernel: Kernel) -> Scene:
    fields = json.loads((home / "scene.json").read_text())
    for name in ("stacks", "moved", "comms"):
        fields[name] = {int(tid): value for tid, value in fields[name].items()}
    for name in ("snapshot", "serial"):
        fields[name] = home / fields[name]
    return Scene(**{**fields, "vmlinux": kernel.vmlinux})


def write_initrd(
    home: Path, kernel: Kernel, init: str, random: Random, files: Mapping[str, bytes] = MappingProxyType({})
) -> Path:
    modules = load_order(kernel.modules, scripts.choose_modules(random))
    (home / "init").write_text(init)
    (home / "initrd").write_bytes(build_initramfs(init, modules, sleeper_programs(), files))
    return home / "initrd"


def dump_when_ready(home: Path, kernel: Kernel, name: str, initrd: Path, random: Random) -> Scene:
    """The scene of a guest with two CPUs that is dumped once it is ready, and then goes on to print the rest."""
    machine = Machine(kernel.vmlinuz, initrd, smp=2, memory=random.randint(192, 320))
    with Guest(machine, home / "serial.log") as guest:
        guest.wait_for(scripts.READY, BOOT_SECONDS)
        time.sleep(0.5)  # until it is idle
        guest.dump(home / "core")
        guest.resume()
        console = guest.wait_for(scripts.DONE, BOOT_SECONDS)
    return describe(home, kernel, name, console, kaslr=True)


def describe(home: Path, kernel: Kernel, name: str, console: str, kaslr: bool) -> Scene:
    quiet = name in ("idle", "driver") or name.startswith("crowd")
    stays = scripts.stays_while_idle if quiet else scripts.stays_while_busy
    rounds = scripts.parse_rounds(console)
    if not rounds:  # a message of the kernel has run into a mark
        raise GuestError("the console shows no tasks' stacks")
    still, moved = scripts.still_and_moved(rounds, stays)
    return Scene(
        kernel=kernel.name,
        name=name,
        seed=0,
        vmlinux=kernel.vmlinux,
        snapshot=home / "core",
        serial=home / "serial.log",
        stacks={tid: list(trace.frames) for tid, trace in still.items()},
        kaslr=kaslr,
        moved={tid: list(trace.frames) for tid, trace in moved.items()},
        comms={tid: trace.comm for tid, trace in {**still, **moved}.items()},
        symbols=scripts.parse_symbols(console),
    )


def _make_idle(home: Path, kernel: Kernel, random: Random) -> Scene:
    initrd = write_initrd(home, kernel, scripts.write_idle(random), random)
    machine = Machine(kernel.vmlinuz, initrd, smp=2, memory=random.randint(192, 320))
    with Guest(machine, home / "serial.log") as guest:
        guest.wait_for(scripts.READY, BOOT_SECONDS)
        time.sleep(0.5)  # lets the work that the last console output queued come to rest
        guest.dump(home / "core")
        guest.resume()
        console = guest.wait_for(scripts.DONE, BOOT_SECONDS)
    return describe(home, kernel, "idle", console, kaslr=True)


def _make_nmi(home: Path, kernel: Kernel, random: Random, symbol: str, offset: int | None) -> Scene:
    initrd = write_initrd(home, kernel, scripts.write_busy(random, symbol), random)
    kaslr, (wanted, most) = random.random() < 0.5, random.choice(WANTED)
    skipped = random.randint(0, most)
    append = "unknown_nmi_panic panic=0" + " nokaslr" * (not kaslr)
    with Guest(Machine(kernel.vmlinuz, initrd, append), home / "serial.log") as guest:
        console = guest.wait_for(scripts.BUSY, BOOT_SECONDS)
        start = scripts.parse_symbols(console)[symbol]
        time.sleep(random.random())
        registers = strike(guest, symbol, start, offset, wanted, skipped)
        guest.dump(home / "core")
    scene = describe(home, kernel, "nmi", console, kaslr)
    return dataclasses.replace(scene, bp_address=registers["rip"], registers=registers)
