"""How the lab asks the Debian archive for packages of any suite without touching the machine's own apt state."""

from __future__ import annotations

import getpass
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SYSTEM_SOURCES = Path("/etc/apt")
TRIES = 3
PAUSE_SECONDS = 5.0
COMMAND_SECONDS = 600.0

_T = TypeVar("_T")


class Unavailable(Exception):
    """A kernel or source package cannot be had here and now.

    Attributes:
        reason: one line for a test's skip message.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def run(command: list[str], cwd: Path | None = None) -> str:
    """Run a command to its end and return its standard output.

    Raises:
        Unavailable: the command is missing, failed, or took too long.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Unavailable(f"{command[0]} {command[-1]}: exit {done.returncode}: {' '.join(tail)}")
    return done.stdout


def with_retries(action: Callable[[], _T]) -> _T:
    """Call `action` up to three times: mirrors hiccup, and one pause is usually enough."""
    for attempt in range(TRIES):
        try:
            return action()
        except Unavailable:
            if attempt == TRIES - 1:
                raise
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


def parse_one_line(text: str) -> Iterator[str]:
    """Yield the URIs of a one-line-style sources.list."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s", line)
        if match:
            yield match.group(1)


def parse_deb822(text: str) -> Iterator[str]:
    """Yield the URIs of every enabled binary stanza of a .sources file."""
    text = re.sub(r"(?m)^#.*\n?", "", text)
    for stanza in re.split(r"\n\s*\n", text):
        fields = {key.lower(): value.split() for key, value in re.findall(r"(?m)^([\w-]+):((?:.|\n[ \t])*)", stanza)}
        if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
            yield from fields.get("uris", [])


def find_mirror(etc: Path = SYSTEM_SOURCES) -> str:
    """Return the URI of the Debian archive that this machine already uses.

    Raises:
        Unavailable: no apt source of this machine is a Debian archive.
    """
    uris: list[str] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix in (".list", ".sources"):
            parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
            uris += parse(path.read_text())
    for uri in uris:
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise Unavailable("no Debian archive among this machine's apt sources")


@dataclass(frozen=True, slots=True)
class Archive:
    """One suite of the Debian archive with a private apt state below `root`."""

    suite: str
    root: Path

    def update(self) -> None:
        """Fetch the suite's package lists."""
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        # An empty status file: apt believes that nothing is installed and asks nothing of the machine.
        (self.root / "status").write_text("")
        source = f"deb [arch=amd64 signed-by={KEYRING}] {find_mirror()} {self.suite} main\n"
        (self.root / "sources.list").write_text(source)
        with_retries(lambda: self._apt("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"))

    def depends(self, package: str) -> list[str]:
        """Return the names on the Depends line of the newest version of `package`."""
        shown = self._apt("apt-cache", "show", "--no-all-versions", package)
        match = re.search(r"(?m)^Depends: (.*)$", shown)
        return re.findall(r"(?:^|[,|])\s*([^\s,|(]+)", match.group(1)) if match else []

    def download(self, packages: list[str], folder: Path) -> None:
        """Download the newest versions of `packages` as .deb files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with_retries(lambda: self._apt("apt-get", "download", "-q", *packages, cwd=folder))

    def download_with_needs(self, packages: list[str], folder: Path) -> None:
        """Download `packages` and all that they depend on, as if nothing were installed, into `folder`."""
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        words = [
            "install",
            "-q",
            "-y",
            "--download-only",
            "--no-install-recommends",
            "-o",
            f"Dir::Cache::archives={folder}",
        ]
        with_retries(lambda: self._apt("apt-get", *words, *packages))

    def _apt(self, tool: str, *words: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::sourcelist": self.root / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": self.root / "lists",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "Acquire::Languages": "none",
            # The _apt user cannot write below a private cache folder; apt would warn at every call.
            "APT::Sandbox::User": getpass.getuser(),
        }
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return run([tool, *flags, *words], cwd)
