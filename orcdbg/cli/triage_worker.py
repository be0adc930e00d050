"""The process that looks at one dump of `orcdbg triage`, and who forks it: `python -P -m orcdbg.cli.triage_worker DESCRIPTOR`.

A server, which has loaded the program, forks it. It reads a job from standard input and writes its answer to standard output.
It opens no file for writing, starts no program and makes no connection.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from orcdbg.analysis.analysis import Analysis, analyze
from orcdbg.analysis.findings import FindingKind
from orcdbg.base.errors import NO_MEMORY, OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.sys import read_utsname, stopping_date
from orcdbg.mcp.confinement import confine
from orcdbg.snapshot.opening import open_paths
from orcdbg.symbols.btf_made import cache_folder
from orcdbg.target.kernel_types import TypeOptions
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.triage.content import file_state, is_same
from orcdbg.triage.fork_server import serve
from orcdbg.triage.jobs import DumpLimits, Job, JobKind, Setting, parse_job
from orcdbg.triage.records import Cause, Death, DumpRecord, Failure, LimitKind, Outcome, failed, to_json
from orcdbg.triage.workers import MAX_ANSWER
from orcdbg.views.analyze import title_of
from orcdbg.views.reasons import message_of

T = TypeVar("T")

# Seconds of a CPU that a worker may take beyond what passes: it is ended from outside long before, if somebody still looks.
_SPARE_SECONDS = 60
# What each dump would load by itself else: a fifth of a second.
_LOADED_BY_EACH = (
    "capstone",
    "orcdbg.patches.replay",
    "orcdbg.unwind.batch.lockstep",
    "orcdbg.unwind.judge.depths",
    "orcdbg.unwind.judge.entries",
)


def record_of(job: Job) -> DumpRecord:
    """The record of a dump: a function of paths, in any process, on any machine that has the files."""
    try:
        state = file_state(job.dump)
    except OrcdbgError as error:
        return failed(job.dump, failure_of(error))
    try:
        same = next((other for other in job.candidates if _is_same(job.dump, other)), None)
        if same is not None:
            return DumpRecord(job.dump, Outcome.DUPLICATE, state, duplicate_of=same)
        if not state.size:
            return failed(job.dump, Failure("unsupported-format", f"{job.dump}: an empty file"), state)
        return _examined(job, DumpRecord(job.dump, Outcome.ANALYZED, state))
    except OrcdbgError as error:
        return _identified(failed(job.dump, failure_of(error), state))
    except MemoryError:
        return failed(job.dump, Failure(LimitKind.MEMORY.value, NO_MEMORY, "allow more with --memory"), state)


def _identified(record: DumpRecord) -> DumpRecord:
    """The record of a dump that could not be looked at, with what its notes say of the kernel: which image is missing."""
    try:
        snapshot = open_paths(record.dump)
    except OrcdbgError:
        return record
    info = snapshot.vmcoreinfo
    return replace(record, format=snapshot.format, release=info.get("OSRELEASE"), build_id=info.get("BUILD-ID"))


def _is_same(dump: str, other: str) -> bool:
    try:
        return is_same(dump, other)
    except OrcdbgError:
        return False  # the other one has gone


def failure_of(error: OrcdbgError) -> Failure:
    """An error as records keep it."""
    return Failure(error.kind, message_of(error), error.hint)


def _examined(job: Job, record: DumpRecord) -> DumpRecord:
    """The record with what the dump says."""
    session, image, warnings = _opened(job.dump, job.setting)
    debugger = Debugger(session)
    analysis = analyze(session)
    cause = analysis.cause
    return replace(
        record,
        format=session.snapshot.format,
        release=_told(lambda: read_utsname(debugger, "release")) or session.snapshot.vmcoreinfo.get("OSRELEASE"),
        build_id=session.image.build_id,
        image=image,
        date=_told(lambda: stopping_date(debugger)),
        death=_death(analysis),
        title=title_of(analysis),
        signature=analysis.signature,
        cause=None if cause is None else Cause(cause.kind.value, cause.certainty.value),
        unknown=sorted({untold.what for untold in analysis.unknown}),
        warnings=[*warnings, *session.warnings],
    )


def _opened(dump: str, setting: Setting) -> tuple[Session, str | None, list[str]]:
    """The session, the path of the image that was found, and what is to be said of that."""
    named: list[str] = []

    def find_image(build_id: str) -> str | None:
        path = setting.images.get(build_id)
        named.extend([] if path is None else [path])
        return path

    try:
        session = _open(dump, setting, find_image)
    except OrcdbgError as error:
        if not named:
            raise
        # An image that is damaged, or was changed meanwhile, is no reason to know nothing.
        session = _open(dump, setting, lambda build_id: None)
        return session, None, [f"the image was not used: {message_of(error)}"]
    return session, named[0] if named else None, []


def _open(dump: str, setting: Setting, find_image: Callable[[str], str | None]) -> Session:
    session = open_session(
        dump,
        debug_folders=setting.debug_folders,
        type_options=None if setting.btf is None else TypeOptions(setting.btf),
        find_image=find_image,
    )
    for folder in setting.modules:
        session.add_module_folder(folder)
    return session


def _told(ask: Callable[[], T]) -> T | None:
    """What memory says, None where it does not: it takes nothing else with it."""
    try:
        return ask()
    except OrcdbgError:
        return None


def _death(analysis: Analysis) -> Death:
    if analysis.cause is not None:
        return Death.NAMED
    stated = [finding for findings in analysis.head.values() for finding in findings]
    healthy = any(finding.kind is FindingKind.NO_DEATH for finding in stated)
    return Death.NONE if healthy else Death.UNKNOWN


def page_of(job: Job) -> dict[str, Any]:
    """The page of a dump, or why there is none."""
    # All commands take as long to load as a small dump takes to be looked at.
    from orcdbg.commands.report import DocumentForm, make_report
    from orcdbg.commands.standard import standard_commands
    from orcdbg.views.report import document

    try:
        session, image, _ = _opened(job.dump, job.setting)
        files = [job.dump] if image is None else [image, job.dump]
        report = make_report(Debugger(session), standard_commands(), files, job.command)
        return {"page": document(report, DocumentForm.HTML)}
    except OrcdbgError as error:
        return {"failure": asdict(failure_of(error))}
    except MemoryError:
        return {"failure": asdict(Failure(LimitKind.MEMORY.value, NO_MEMORY, "allow more with --memory"))}


def _limit(limits: DumpLimits) -> None:
    """Has the system hold this process to its limits too: memory that it asks for, time of a CPU, and the answer's size."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    seconds = int(limits.seconds) + _SPARE_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_ANSWER, MAX_ANSWER))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # Where the machine runs out of memory, the dump goes before whoever looks after it.
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def _readable(job: Job) -> list[str]:
    """What may be read: the dump and what lies beside it, and what the user named."""
    setting = job.setting
    beside = [str(Path(path).parent) for path in (job.dump, *job.candidates)]
    named = [*setting.images.values(), *setting.modules, *setting.debug_folders]
    kept = str(cache_folder(os.environ))
    return [*beside, *named, kept, *([] if setting.btf is None else [setting.btf])]


def _answer(job: Job) -> dict[str, Any]:
    if job.kind is JobKind.PAGE:
        return page_of(job)
    return to_json(record_of(job))


def _most_memory() -> int | None:
    """The most bytes of memory that this process had."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        return None


def work() -> None:
    """Answers one job over the standard streams, which nothing else gets: what a library prints goes nowhere."""
    with os.fdopen(os.dup(0), "rb") as question:
        job, limits = parse_job(question.read())
    answer_to = os.fdopen(os.dup(1), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)
    _limit(limits)
    confine(_readable(job))
    try:
        answer = _answer(job)
    except Exception as error:  # noqa: BLE001  the boundary of a command: a fault of orcdbg's costs one dump
        failure = Failure("error", f"an error within orcdbg: {type(error).__name__}")
        answer = {"failure": asdict(failure)} if job.kind is JobKind.PAGE else to_json(failed(job.dump, failure))
    json.dump({"answer": answer, "memory": _most_memory()}, answer_to, ensure_ascii=True)
    answer_to.flush()


def main() -> None:
    """Works for whoever has the other end of the socket whose descriptor is the last word of the command line."""
    for module in _LOADED_BY_EACH:
        importlib.import_module(module)
    with socket.socket(fileno=int(sys.argv[-1])) as connection:
        serve(connection, work)


if __name__ == "__main__":
    main()
