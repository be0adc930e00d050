"""Which `.ko` file belongs to which loaded module, and what does its audit say?"""

from __future__ import annotations

from pathlib import Path

from orcdbg.base.errors import Mismatch, NotFound, OrcdbgError, UsageError
from orcdbg.formats.elf import parse_notes
from orcdbg.image.module_file import ModuleFile
from orcdbg.image.vmlinux import open_source
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module
from orcdbg.patches.audit import AuditReport
from orcdbg.patches.module_text import audit_module
from orcdbg.session import Session

_BUILD_ID = ".note.gnu.build-id"


def files_below(folder: str) -> dict[str, Path]:
    """The module files below a folder, by the names that the kernel gives the modules.

    Raises:
        UsageError: no such folder.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: not a folder")
    return {path.name.split(".")[0].replace("-", "_"): path for path in sorted(Path(folder).rglob("*.ko*"))}


def audit_modules(session: Session, folder: str | None) -> tuple[dict[str, AuditReport], dict[str, str]]:
    """The accounts of the loaded modules, and why some have none, by name."""
    found: dict[str, AuditReport] = {}
    without: dict[str, str] = {}
    files = files_below(folder) if folder is not None else {}
    for module in session.names.modules:
        try:
            if folder is None:
                raise NotFound("module file", module.name, "--modules DIR names where the .ko files are")
            found[module.name] = _audit(session, module, files)
        except OrcdbgError as error:
            without[module.name] = f"{error.message}; {error.hint}" if error.hint else error.message
    return found, without


def _audit(session: Session, module: Module, files: dict[str, Path]) -> AuditReport:
    if module.name not in files:
        raise NotFound("module file", module.name)
    file = ModuleFile(open_source(str(files[module.name])))
    _check_build(session, module, file)
    return audit_module(
        session.build, session.names.module_symbols[module.address], file, lambda name: _resolve(session, name)
    )


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
