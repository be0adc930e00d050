"""How does a kernel without BTF get some: made by pahole from its DWARF, and kept for the next time?

What is made is kept below `$XDG_CACHE_HOME/orcdbg/btf` by the image's build-id. The folder and its files are taken only where
they are this user's own: a file in there says where everything in a kernel is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from orcdbg.base.cache_files import CacheFiles
from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats import codecs
from orcdbg.formats.elf import ElfFile
from orcdbg.image.vmlinux import MAX_TABLE, open_source
from orcdbg.symbols.btf import Btf

PAHOLE = "pahole"

# What becomes the name of a file on this machine: hexadecimal digits and nothing else.
_BUILD_ID = re.compile(r"[0-9a-f]{16,128}")
# The kernel with the most types took pahole 22 s.
_MAX_SECONDS = 1800
# Of what it says in standard error, the first line is shown.
_MAX_WORDS = 200
_STEP = 4 << 20
_VERSION = re.compile(rb"v?(\d{1,4})\.(\d{1,4})")
_EXCLUDES_LANGUAGES = (1, 24)
_KIND = "btf"  # of kept files

# By the first of these programs that the machine has.
_INSTALLERS = (
    ("apt-get", "apt install pahole"),
    ("dnf", "dnf install dwarves"),
    ("zypper", "zypper install dwarves"),
    ("pacman", "pacman -S pahole"),
)

Progress = Callable[[str], AbstractContextManager[object]]


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """The program of that name in the folders of PATH; nothing is run from the current folder, whatever PATH says."""
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    absolute = os.pathsep.join(folder for folder in folders if folder.startswith("/"))
    return shutil.which(name, path=absolute) if absolute else None


def pahole_command(environment: Mapping[str, str]) -> str:
    """The command that installs pahole on this machine."""
    commands = (command for program, command in _INSTALLERS if find_program(program, environment) is not None)
    return next(commands, _INSTALLERS[0][1])


# What is kept


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where it is kept: `$XDG_CACHE_HOME/orcdbg/btf`."""
    return CacheFiles(_KIND, environment).folder


def kept_btf(build_id: str | None, environment: Mapping[str, str]) -> Btf | None:
    """What was made for a kernel before; None where nothing was.

    Raises:
        UsageError: what is there may be somebody else's.
        UnsupportedFormat: it is damaged.
    """
    if build_id is None or not _BUILD_ID.fullmatch(build_id):
        return None
    files = CacheFiles(_KIND, environment)
    name = f"{build_id}.btf"
    data = files.read(name, MAX_TABLE + 1)
    if data is None:
        return None
    path = str(files.folder / name)
    if len(data) > MAX_TABLE:
        raise UnsupportedFormat(path, f"more than {MAX_TABLE} bytes of BTF")
    btf = Btf(data, path, is_built=False)
    btf.check_whole()
    return btf


def keep_btf(data: bytes, build_id: str, environment: Mapping[str, str]) -> None:
    """Keeps what was made; a file of that name is replaced as a whole.

    Raises:
        UsageError: it cannot be written, or the folder may be somebody else's.
    """
    if _BUILD_ID.fullmatch(build_id):
        CacheFiles(_KIND, environment).write(f"{build_id}.btf", data)


# Making it


def make_btf(debug: ElfFile, environment: Mapping[str, str], progress: Progress) -> bytes:
    """BTF that pahole makes of a file's DWARF.

    Args:
        debug: the file.
        environment: where PATH and TMPDIR are from.
        progress: shows, while its result is entered, that something is at work.

    Raises:
        OrcdbgError: pahole is not installed, or fails.
    """
    program = find_program(PAHOLE, environment)
    if program is None:
        raise OrcdbgError("--make-btf: pahole is not installed", pahole_command(environment))

    name = debug.source.name
    with tempfile.TemporaryDirectory(prefix="orcdbg-btf-") as folder:
        made = Path(folder) / "made.btf"
        source = _plain_file(debug.source, Path(folder))
        with progress(f"pahole makes BTF of {name}"):
            _run([program, *_options(program, environment), str(made), source], name, environment)
        try:
            with made.open("rb") as file:
                data = file.read(MAX_TABLE + 1)
        except OSError as error:
            raise _failed(name, "it made nothing") from error
    return data


def _plain_file(source: ByteSource, folder: Path) -> str:
    """The path of a file that pahole can read: a packed one is unpacked first."""
    path = os.path.abspath(source.name)  # noqa: PTH100  a name that begins with `-` is no option of pahole's
    with open(path, "rb") as file:
        if not codecs.is_compressed(file.read(8)):
            return path
    unpacked = open_source(path)
    target = folder / "vmlinux"
    with target.open("wb") as file:
        for offset in range(0, unpacked.size, _STEP):
            file.write(unpacked.read_at(offset, min(_STEP, unpacked.size - offset)))
    return str(target)


def _options(program: str, environment: Mapping[str, str]) -> list[str]:
    """What pahole is told, as scripts/pahole-flags.sh of the kernel tells it; the last word wants the file to make."""
    words = [program, "--version"]
    try:
        said = subprocess.run(
            words, capture_output=True, timeout=60, check=False, cwd="/", env=dict(environment)
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = b""
    version = _VERSION.search(said)
    # Rust's types have the names of C's, and others of their own; nobody asks for them.
    has_languages = version is not None and (int(version[1]), int(version[2])) >= _EXCLUDES_LANGUAGES
    return ["--btf_gen_floats", *(["--lang_exclude=rust"] if has_languages else []), "--btf_encode_detached"]


def _run(words: list[str], name: str, environment: Mapping[str, str]) -> None:
    """Runs pahole; OrcdbgError where it fails."""
    with tempfile.TemporaryFile() as said:
        try:
            ended = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                timeout=_MAX_SECONDS,
                check=False,
                cwd="/",
                env=dict(environment),
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(name, f"it was stopped after {_MAX_SECONDS} s") from error
        except OSError as error:
            raise _failed(name, f"it cannot be run: {error.strerror}") from error
        if ended.returncode:
            said.seek(0)
            first = said.read(_MAX_WORDS).decode("utf-8", "replace").strip().partition("\n")[0]
            raise _failed(name, first or f"exit status {ended.returncode}")


def _failed(name: str, what: str) -> OrcdbgError:
    return OrcdbgError(f"--make-btf: pahole made no BTF of {name}: {what}", "pahole --version: 1.22 or newer is needed")
