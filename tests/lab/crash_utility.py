"""How does the lab ask crash, Debian sid's, which knows the newest kernels, whatever this machine has installed?"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.apt import Unavailable
from tests.lab.fetch import unpacked_packages

SUITE = "sid"
PACKAGES = [
    "crash",
    "libc6",
    "libgcc-s1",
    "libgmp10",
    "liblzo2-2",
    "libmpfr6",
    "libncursesw6",
    "libsnappy1v5",
    "libstdc++6",
    "libtinfo6",
    "libzstd1",
    "zlib1g",
]
LOADER = "ld-linux-x86-64.so.2"
SECONDS = 300.0  # a kernel takes 5 to 15, of which most is its DWARF; alone on a CPU


def command() -> list[str]:
    """The words that start crash with the libraries that it was built for.

    Raises:
        Unavailable: its packages could not be fetched.
    """
    root = unpacked_packages(SUITE, PACKAGES)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    return [str(libraries / LOADER), "--library-path", str(libraries), str(root / "usr/bin/crash")]


@dataclass(frozen=True, slots=True)
class Told:
    """What crash printed for each line that it was asked, and what it said of the dump at its start.

    Attributes:
        start: lines of its start, among them why it refuses a kernel.
        answers: text by line.
    """

    start: str
    answers: dict[str, str]


def ask(vmlinux: Path, snapshot: Path, lines: Sequence[str], options: Sequence[str] = ()) -> Told:
    """Run one crash over a dump, which answers all `lines`.

    Raises:
        Unavailable: its packages could not be fetched, or it did not come to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = [f"{line} > {folder}/{number}\n" for number, line in enumerate(lines)]
        words = [*command(), "-s", "--no_crashrc", "--no_scroll", *options, str(vmlinux), str(snapshot)]
        try:
            done = subprocess.run(
                words, input="".join([*asked, "quit\n"]), capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"crash took more than {SECONDS:g} s") from error
        files = [Path(folder, str(number)) for number in range(len(lines))]
        answers = {
            line: path.read_text(encoding="utf-8", errors="replace")
            for line, path in zip(lines, files, strict=True)
            if path.exists()
        }
    return Told(done.stdout + done.stderr, answers)
