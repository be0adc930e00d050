"""Which `.ko` file belongs to which loaded module, and what does its audit say?"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orcdbg.base.errors import Corrupt, Mismatch, NotFound, OrcdbgError, UnsupportedFormat, UsageError
from orcdbg.base.folders import is_folder
from orcdbg.formats.elf import parse_notes
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.vmlinux import open_source
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module
from orcdbg.patches.audit.account import AuditReport
from orcdbg.patches.audit.module_text import audit_module
from orcdbg.patches.state.static_call_keys import trampolines_and_keys
from orcdbg.target.session import Session

# What depmod takes for a module; debug files beside them (`x.ko.debug`) are none.
_MODULE_FILE = re.compile(r"(.+)\.ko(?:\.(?:xz|zst|gz))?", re.DOTALL)
_BUILD_ID = ".note.gnu.build-id"


def files_below(folder: str) -> dict[str, list[Path]]:
    """The module files below a folder, by the names that the kernel gives the modules; of a name there may be several.

    Raises:
        UsageError: no such folder.
    """
    if not is_folder(folder):
        raise UsageError(f"{folder}: not a folder")
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).rglob("*.ko*")):
        name = _MODULE_FILE.fullmatch(path.name)
        if name is not None:
            found.setdefault(name[1].replace("-", "_"), []).append(path)
    return found


def audit_modules(session: Session, folder: str | None) -> tuple[dict[str, AuditReport], dict[str, str]]:
    """The accounts of the loaded modules, and why some have none, by name.

    Args:
        session: the stopped kernel.
        folder: where the modules' files are; None for the folders and files that the session was given for its modules.
    """
    found: dict[str, AuditReport] = {}
    without: dict[str, str] = {}
    below = None if folder is None else files_below(folder)
    trampolines = functools.cache(lambda: _trampolines(session))  # where a file is found that needs them
    for module in session.names.modules:
        try:
            files = session.module_files(module.name) if below is None else below.get(module.name, ())
            if files is None:
                raise NotFound("module file", module.name, "--modules DIR names where the .ko files are")
            if module.name in found:
                # No two modules have one name; thousands of false ones would each take a file's audit.
                raise Corrupt(f"another module of this name was audited, this one is at {module.address:#x}")
            found[module.name] = _audit(session, module, files, trampolines)
        except OrcdbgError as error:
            without[module.name] = f"{error.message}; {error.hint}" if error.hint else error.message
    return found, without


def _trampolines(session: Session) -> dict[int, int]:
    """Of each static call that the kernel or a loaded module defines, the key by the trampoline."""
    found = dict(session.build.static_calls)
    for symbols in session.names.module_symbols.values():
        with contextlib.suppress(OrcdbgError):
            found |= trampolines_and_keys(symbols.table, 0)
    return found


def _audit(
    session: Session, module: Module, files: Sequence[Path], trampolines: Callable[[], Mapping[int, int]]
) -> AuditReport:
    file = matching_file(files, module.name, lambda one: _check_build(session, module, one))
    symbols = session.names.module_symbols[module.address]
    return audit_module(session.build, symbols, file, lambda name: _resolve(session, name), trampolines())


def matching_file(paths: Sequence[Path], name: str, check: Callable[[ModuleFile], None]) -> ModuleFile:
    """The first of several files that is the module's and has its code.

    Args:
        paths: of files with the module's name.
        name: the module's.
        check: raises an OrcdbgError for a file of another build.

    Raises:
        NotFound: there is no file of that name.
        OrcdbgError: what is wrong with the last one.
    """
    wrong: OrcdbgError = NotFound("module file", name)
    for path in paths:
        try:
            file = ModuleFile(open_source(str(path)))
            check(file)
            if not file.elf.has_code:
                raise UnsupportedFormat(file.path, "only debugging information: the module's code is not in it")
        except OrcdbgError as error:
            wrong = error
        else:
            return file
    raise wrong


def _check_build(session: Session, module: Module, file: ModuleFile) -> None:
    """Compares the build-id in memory with the file's; a file of another build would explain nothing."""
    section = file.elf.by_name.get(_BUILD_ID)
    address = module_sections(session.linux, module).get(_BUILD_ID)
    if section is None or address is None:
        return
    ours = file.elf.data(section)
    theirs = session.memory.read(address, len(ours))
    if ours != theirs:
        raise Mismatch("build-id", _build_id(ours), _build_id(theirs))


def _build_id(note: bytes) -> str:
    return next((one.data.hex() for one in parse_notes(note, _BUILD_ID)), "none")


def _resolve(session: Session, name: str) -> int | None:
    """A symbol's run-time address: the kernel's, else another module's."""
    found = session.linux.find_address(name)
    if found is not None:
        return found
    for symbols in session.names.module_symbols.values():
        try:
            symbol = symbols.table.find(name)
        except OrcdbgError:
            continue
        if symbol is not None:
            return symbol.address
    return None
