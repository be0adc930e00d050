"""orcdbg triage: which dumps are looked at, by whom, and where do records, groups and pages go?"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from orcdbg.base.errors import UsageError
from orcdbg.cli.options import OptionParser, add_answer_format, add_debug_folders, add_module_folders
from orcdbg.cli.output import answer_alone
from orcdbg.commands.triage import TriageResult
from orcdbg.commands.writing import open_output, refuse_outputs, replacing
from orcdbg.triage.dumps import FoundDumps, find_dumps
from orcdbg.triage.groups import DumpGroup, groups_of
from orcdbg.triage.image_index import ImageIndex, index_images
from orcdbg.triage.jobs import DumpLimits, Job, JobKind, Setting
from orcdbg.triage.record_file import KeptRecords, RecordFile, drop_half_line, read_records
from orcdbg.triage.records import DumpRecord, Outcome
from orcdbg.triage.rounds import Rounds, Workers
from orcdbg.triage.workers import Crew, Ended
from orcdbg.views.progress import Progress
from orcdbg.views.triage import counted
from orcdbg.views.triage_page import index_page

WORKER = (sys.executable, "-P", "-m", "orcdbg.cli.triage_worker")
STANDARD_OUTPUT = "-"
INDEX = "index.html"
_SECONDS = 300.0
_MEMORY = 2048
_LEAST_MEMORY = 256
_MOST_JOBS = 1024


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"not a number above 0: {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or not int(text):
        raise argparse.ArgumentTypeError(f"not a whole number above 0: {text!r}")
    return int(text)


def _parser() -> OptionParser:
    made = OptionParser(
        prog="orcdbg triage",
        description="Look at many dumps, and group those that died of the same.",
        allow_abbrev=False,
    )
    made.add_argument(
        "dumps", nargs="+", metavar="DUMP|DIR", help="dumps, and folders in which all dumps are looked at"
    )
    made.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of kernels' images, found by build-id; repeatable",
    )
    made.add_argument("--jobs", type=_count, metavar="N", help="how many dumps at a time on this machine (default: 1)")
    made.add_argument(
        "--dask", metavar="ADDRESS", help="look at the dumps on a Dask cluster: its scheduler's tls://HOST:PORT"
    )
    made.add_argument(
        "--insecure", action="store_true", help="let --dask go to another machine by tcp://, which nothing protects"
    )
    made.add_argument(
        "--seconds", type=_positive, default=_SECONDS, metavar="N", help="the most that a dump may take (default: 300)"
    )
    made.add_argument(
        "--memory", type=_count, default=_MEMORY, metavar="MIB", help="the most that a dump may take (default: 2048)"
    )
    made.add_argument(
        "-o", "--output", metavar="FILE.jsonl", help="where the records go, a line each; `-` for standard output"
    )
    made.add_argument("--resume", action="store_true", help="go on where an earlier run with the same -o has ended")
    made.add_argument(
        "--report", metavar="DIR", help="a folder for pages: an index of the groups, and one of each group"
    )
    add_module_folders(made)
    add_debug_folders(made)
    made.add_argument("--btf", metavar="FILE|DIR", help="types for images without .BTF: a file, or a folder by release")
    add_answer_format(made)
    return made


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done, and by whom."""

    options: Namespace
    found: FoundDumps
    images: ImageIndex
    setting: Setting
    crew: Workers
    command: Sequence[str]

    @property
    def inputs(self) -> Sequence[str]:
        """What no output may replace, beside the dumps."""
        return list(self.images.paths.values())


def run(arguments: Sequence[str], worker: Sequence[str] = WORKER) -> int:
    """Runs `orcdbg triage`; the exit status.

    Args:
        arguments: the words behind `triage`.
        worker: the command of the process that looks at a dump.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    found = find_dumps(options.dumps)
    kept = _kept(options)
    with Progress(sys.stderr) as progress:
        images = index_images(options.images, os.environ, lambda files: progress.tell(f"{files} files of images"))
    # No link is followed by these: a worker is told what the user named.
    setting = Setting(
        images.paths,
        [os.path.abspath(folder) for folder in options.modules],  # noqa: PTH100
        [os.path.abspath(folder) for folder in options.debug_dir],  # noqa: PTH100
        None if options.btf is None else os.path.abspath(options.btf),  # noqa: PTH100
    )
    work = _Work(options, found, images, setting, _workers(options, worker), ["orcdbg", "triage", *arguments])
    result = _result(work, kept)
    if options.output != STANDARD_OUTPUT:
        answer_alone(options.format, "triage", result)
    return result.exit_status


def _is_file(output: str | None) -> bool:
    """Whether the records go into a file of their own."""
    return output not in (None, STANDARD_OUTPUT)


def _check(options: Namespace) -> None:
    """Refuses what cannot be, before any work."""
    if options.resume and not _is_file(options.output):
        raise UsageError("--resume goes on with a file", "name it: -o FILE.jsonl --resume")
    if options.memory < _LEAST_MEMORY:
        raise UsageError(f"--memory {options.memory}: a dump takes more", f"at least {_LEAST_MEMORY}")
    if options.jobs is not None and options.jobs > _MOST_JOBS:
        raise UsageError(f"--jobs {options.jobs}: too many", f"at most {_MOST_JOBS}")
    if options.dask is not None and options.jobs is not None:
        raise UsageError(
            "--jobs is for this machine, not for --dask", "dask worker --nthreads N says how many at a time"
        )
    if options.insecure and options.dask is None:
        raise UsageError("--insecure is for --dask", "--dask ADDRESS names the scheduler")


def _workers(options: Namespace, worker: Sequence[str]) -> Workers:
    """Who looks at the dumps."""
    limits = DumpLimits(options.seconds, options.memory << 20)
    if options.dask is None:
        return Crew(worker, limits, options.jobs or 1)

    from orcdbg.triage.cluster import DaskCluster, check_address

    check_address(options.dask, options.insecure)
    return DaskCluster(options.dask, worker[1:], limits)


def _kept(options: Namespace) -> KeptRecords:
    """The records of an earlier run; without --resume there must be none that would be lost."""
    path = options.output
    if not _is_file(path):
        return KeptRecords([])
    if options.resume:
        return read_records(path)
    if os.path.isfile(path) and os.path.getsize(path):  # noqa: PTH113, PTH202
        raise UsageError(f"{path}: is there already", "--resume goes on with it; or name another file")
    return KeptRecords([])


def _result(work: _Work, kept: KeptRecords) -> TriageResult:
    """Does the work, as far as somebody lets it."""
    options = work.options
    # What can be refused is refused before the work, which takes its time.
    if options.report is not None:
        _make_folder(options.report)
        refuse_outputs(_inside(options.report, INDEX), work.inputs)

    rounds = Rounds(work.found.paths, kept.records, work.setting)
    records: list[DumpRecord] = [*rounds.kept]
    problems = [*work.found.problems, *work.images.problems]
    if kept.damaged:
        problems.append(f"{options.output}: {kept.damaged} lines are no records; their dumps were looked at again")

    _look(work, rounds, kept, records)
    undone = len(work.found.paths) - len(records)
    groups = groups_of(records)
    pages: dict[str, str] = {}
    if options.report is not None and not undone:
        pages = _write_pages(work, groups, problems)
    result = TriageResult(
        records,
        groups,
        len(rounds.kept),
        undone,
        work.found.passed_over,
        len(work.images.paths),
        options.output,
        options.report,
        pages,
        problems,
    )
    if options.report is not None and not undone:
        _write(_inside(options.report, INDEX), index_page(result, work.command), work.inputs)
    return result


def _look(work: _Work, rounds: Rounds, kept: KeptRecords, records: list[DumpRecord]) -> None:
    """Looks at the dumps, and adds their records; an interruption ends that, and what is done stays."""
    failed = sum(record.outcome is Outcome.FAILED for record in records)
    with ExitStack() as stack:
        output = _record_file(work, kept, stack)
        progress = stack.enter_context(Progress(sys.stderr))
        try:
            for record in rounds.run(work.crew):
                records.append(record)
                if output is not None:
                    output.add(record)
                failed += record.outcome is Outcome.FAILED
                progress.tell(_how_far(progress.seconds, len(records) - len(rounds.kept), len(rounds.todo), failed))
        except KeyboardInterrupt:
            if len(records) == len(work.found.paths):
                return
            more = "; the same line with --resume goes on" if _is_file(work.options.output) else ""
            print(f"orcdbg: interrupted: done: {counted(len(records), 'dump')}{more}", file=sys.stderr)


def _how_far(seconds: float, done: int, of: int, failed: int) -> str:
    """How far it is, and how long the rest may take."""
    left = int(seconds / done * (of - done))
    return f"triage: {done} of {of} dumps, {failed} failed, about {left // 60}:{left % 60:02} left"


def _record_file(work: _Work, kept: KeptRecords, stack: ExitStack) -> RecordFile | None:
    """Where the records go; None where nobody wants them."""
    path = work.options.output
    if path is None:
        return None
    if path == STANDARD_OUTPUT:
        return RecordFile(sys.stdout.buffer)
    try:
        refuse_outputs(path, work.inputs)
        if work.options.resume:
            drop_half_line(path, kept.whole)
        return RecordFile(stack.enter_context(open_output(path, work.inputs, append=work.options.resume)))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


# Pages


def _write_pages(work: _Work, groups: Sequence[DumpGroup], problems: list[str]) -> dict[str, str]:
    """A page of the dump of each group that is to be looked at; their names by the dump."""
    pages: dict[str, str] = {}
    wanted = [group.exemplar for group in groups if group.exemplar.outcome is Outcome.ANALYZED]
    jobs = [Job(JobKind.PAGE, record.dump, work.setting, command=work.command) for record in wanted]
    with Progress(sys.stderr) as progress:
        for ended in work.crew.run(jobs):
            dump = ended.job.dump
            name = f"dump-{hashlib.sha256(os.fsencode(dump)).hexdigest()[:16]}.html"
            page, why = _page_of(ended)
            if page is None:
                problems.append(f"{dump}: no page: {why}")
                continue
            _write(_inside(work.options.report, name), page, work.inputs)
            pages[dump] = name
            progress.tell(f"triage: {len(pages)} of {len(jobs)} pages")
    return pages


def _page_of(ended: Ended) -> tuple[str | None, str]:
    """A page, or None and why there is none. What a worker says may be anything."""
    if ended.failure is not None:
        return None, ended.failure.message
    answer = None if ended.answer is None else ended.answer.get("answer")
    page, failure = (answer.get("page"), answer.get("failure")) if isinstance(answer, dict) else (None, None)
    if isinstance(page, str):
        return page, ""
    return None, str(failure.get("message")) if isinstance(failure, dict) else "the worker said nothing of use"


def _make_folder(path: str) -> None:
    try:
        Path(path).mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: no folder can be made there: {error.strerror}") from error


def _inside(folder: str, name: str) -> str:
    return str(Path(folder) / name)


def _write(path: str, text: str, inputs: Sequence[str]) -> None:
    with replacing(path, inputs) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
