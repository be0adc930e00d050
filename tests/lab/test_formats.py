"""One machine, many files: whatever wrote the snapshot, and however it is packed, the answers are the same."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

import orcdbg
from orcdbg.base.errors import NotInSnapshot
from orcdbg.orc.effective import Source
from orcdbg.snapshot.opening import open_paths
from orcdbg.unwind.frame import End, Mark
from tests.lab import scenes, scripts
from tests.lab.apt import Unavailable
from tests.lab.crash import DUMPS, Crash, crash
from tests.lab.draw import kernels_of
from tests.lab.fetch import ensure
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab

ASKED = ("foreach bt", "ps", "patch audit", "bt -a", "mod")
OF_MEMORY = ("mod", "patch audit")  # what needs no CPU's registers
# makedumpfile of the newest suite that has all packings knows kernels of its own time.
CRASHED = ("5.10", "6.1", "6.12")


def answers(vmlinux: Path, *files: Path | str, piped: bool = False, asked: Sequence[str] = ASKED) -> str:
    """What the program prints, in JSON, one line for each question."""
    words = [word for question in asked for word in ("-e", question)]
    names = ["-"] if piped else [str(file) for file in files]
    run = [sys.executable, "-m", "orcdbg", str(vmlinux), *names, "--format", "json", *words]
    if piped:
        with (
            Path(files[0]).open("rb") as stream,
            subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE) as cat,
        ):
            done = subprocess.run(run, stdin=cat.stdout, capture_output=True, text=True, check=False)
    else:
        done = subprocess.run(run, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == len(asked)
    return done.stdout


def plain_images(home: Path) -> list[str]:
    """A core's memory as plain images, without notes; each as it is named on the command line."""
    core = open_paths(str(home / "core"))
    assert core.ranges is not None
    names = []
    for start, end in core.ranges():
        path = home / f"ram-{start:x}"
        with path.open("wb") as file:
            for at in range(start, end, 1 << 20):
                file.write(core.physical.read(at, min(1 << 20, end - at)))
        names.append(f"{path}@{start:#x}")
    return names


@pytest.fixture(scope="module")
def crashed(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crash]:
    """One kernel, chosen by the seed, that panicked into its capture kernel."""
    name = Random(seed).choice(CRASHED)
    home = tmp_path_factory.mktemp("crash")
    try:
        kernel = ensure(name)
        for attempt in range(2):
            try:
                made = crash(kernel, seed + attempt, home)
                break
            except GuestError as error:
                if attempt:
                    raise
                print(f"{name}: {error}; trying seed {seed + 1}")
    except Unavailable as error:
        pytest.skip(f"{name}: {error}")
    yield made
    for group in made.dumps.values():
        for path in group:
            path.unlink()


def test_makedumpfile_wrote_all_formats(crashed: Crash) -> None:
    """So that the comparisons below compare what they say; the capture kernel says what failed."""
    assert [name for name in DUMPS if f"DUMPED {name}\n" not in crashed.console.replace("\r", "")] == []


@pytest.mark.parametrize("name", [name for name in DUMPS if name != "elf"])
def test_a_crash_gives_the_same_answers_from_every_file(crashed: Crash, name: str) -> None:
    """Byte for byte, those of the copy of /proc/vmcore: packed, filtered, flattened, split."""
    expected = answers(crashed.kernel.vmlinux, *crashed.dumps["elf"])
    assert answers(crashed.kernel.vmlinux, *reversed(crashed.dumps[name])) == expected


def test_the_task_that_panicked_has_the_callers_that_the_kernel_printed(crashed: Crash) -> None:
    """Through `__crash_kexec`, which has no ORC rows; from the one that called panic() on, in the kernel's own words."""
    session = orcdbg.open(crashed.kernel.vmlinux, crashed.dumps["elf"][0])
    traces = [session.unwinder.trace(task) for task in session.tasks if task.pid]
    (trace,) = [one for one in traces if (session.names.describe(one.frames[0].ip) or "").startswith("__crash_kexec+")]
    assert (trace.frames[0].mark, trace.frames[0].source, trace.end) == (Mark.CHANGED, Source.DWARF, End.USER)
    assert {frame.mark for frame in trace.frames} <= {Mark.CHANGED, Mark.AS_BUILT}
    ours = [
        f"{f.location.symbol}+{f.ip - f.location.start:#x}/{f.location.size:#x}" for f in trace.frames if f.location
    ]
    printed = crashed.console.replace("\r", "").split("Kernel panic - not syncing")[1].split("Call Trace:")[1]
    theirs = re.findall(r"^\[[^]]*\] +(\w\S*\+0x\w+/0x\w+)$", printed.split("RIP: 0033")[0], re.MULTILINE)
    assert _callers_of_panic(ours) == _callers_of_panic(theirs) != []


def _callers_of_panic(names: list[str]) -> list[str]:
    last = max(index for index, name in enumerate(names) if re.match(r"v?panic\+", name))
    return names[last + 1 :]


def test_each_file_holds_the_same_memory(crashed: Crash) -> None:
    """What a dump holds is what /proc/vmcore held; what it left out has its word, and makedumpfile's word is not absent."""
    whole = open_paths(*map(str, crashed.dumps["elf"]))
    assert whole.ranges is not None
    spans = list(whole.ranges())
    for name, paths in crashed.dumps.items():
        snapshot, words, same = open_paths(*map(str, paths)), set[str](), 0
        for start, end in spans:
            for address in range(-(-start // 4096) * 4096, end - 4095, 97 * 4096):
                try:
                    assert snapshot.physical.read(address, 4096) == whole.physical.read(address, 4096), (name, address)
                    same += 1
                except NotInSnapshot as error:
                    words.add(error.state.value)
        filtered = "zero-filled" if name.startswith("elf-") else "excluded"
        assert words <= {filtered}, name
        # Pages of zeros are not lost at level 1: they share one descriptor.
        assert bool(words) == name.endswith("-31")
        assert same > 20


@pytest.mark.parametrize("kernel", kernels_of("QEMU's kdump"))
def test_qemus_kdump_gives_the_answers_of_its_core(kernel: str, seed: int, tmp_path: Path) -> None:
    """One stopped guest, dumped twice: the same answers, also from a pipe; and opening costs at most half again as much."""
    with skipped_if_unavailable(kernel):
        found = ensure(kernel)
    random = Random(f"{kernel} formats {seed}")
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + scripts.write_tasks(random)
    initrd = scenes.write_initrd(
        tmp_path, found, f"{init}\necho {scripts.READY}\nwhile :; do sleep 1000; done\n", random
    )
    with Guest(Machine(found.vmlinuz, initrd, smp=2), tmp_path / "serial.log") as guest:
        guest.wait_for(scripts.READY, scenes.BOOT_SECONDS)
        time.sleep(0.5)
        guest.dump(tmp_path / "core")
        guest.dump(tmp_path / "kdump", "kdump-zlib")
    expected = answers(found.vmlinux, tmp_path / "core")
    assert answers(found.vmlinux, tmp_path / "kdump") == expected
    assert answers(found.vmlinux, tmp_path / "kdump", piped=True) == expected
    bare = answers(found.vmlinux, *plain_images(tmp_path), asked=OF_MEMORY)
    assert bare == answers(found.vmlinux, tmp_path / "core", asked=OF_MEMORY)
