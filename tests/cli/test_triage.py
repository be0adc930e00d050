"""orcdbg triage: many dumps, one after another or at once; each has a record, whatever is wrong with it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orcdbg.cli import triage
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.target.session import Session
from tests.build.sample import changed_core
from tests.conftest import RunProgram

IMAGE, CORE = sample_files()
IMAGES = str(Path(IMAGE).parent)
SIGNATURE = (
    "nmi-panic lock_is_held_type < rcu_read_lock_any_held < touch_atime < splice_direct_to_actor < do_splice_direct"
)
# A name of 15 bytes that would be a tag, a terminal's title, and writing from right to left.
HOSTILE = b"<s>&'\x1b]0;\xe2\x80\xae"
RELEASE = b"<script>\x1b[2J\n\xe2\x80\xae"
ROOT = Path(__file__).parents[2]
FAKE = (
    sys.executable,
    "-P",
    "-c",
    "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_module('tests.triage.fake_worker', run_name='__main__')",
    str(ROOT),
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


@pytest.fixture(scope="module")
def hostile(sample: Session, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample, in which the panicking task has a name that is none, and so has the kernel's release."""
    places = sample.kernel_memory.places
    comm = Debugger(sample).task.address + sample.types.offset("task_struct", "comm")
    names = sample.linux.address("init_uts_ns") + sample.types.offset("uts_namespace", "name")
    release = names + sample.types.offset("new_utsname", "release")
    of_image = release - KERNEL_BASE + sample.placement.phys_base
    patches = {places.physical_of(comm): HOSTILE + b"\0", of_image: RELEASE + b"\0"}
    return changed_core(tmp_path_factory.mktemp("hostile") / "core", patches=patches)


@pytest.fixture(scope="module")
def folder(hostile: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample twice, changed, cut, and much that is no dump."""
    made = tmp_path_factory.mktemp("dumps")
    shutil.copy(CORE, made / "a.core")
    shutil.copy(CORE, made / "b.core")
    shutil.copy(hostile, made / "hostile.core")
    (made / "cut.core").write_bytes(Path(CORE).read_bytes()[:3_000_000])
    (made / "empty").touch()
    (made / "text").write_text("hello\n")
    return made


def records_in(path: Path) -> dict[str, Any]:
    """The records in a file, by the dump's name."""
    return {Path(record["dump"]).name: record for record in map(json.loads, path.read_text().splitlines())}


def test_every_dump_has_a_record_and_a_group(orcdbg_run: RunProgram, folder: Path, tmp_path: Path) -> None:
    """What is no dump is counted where it lies in a folder, and told of where it was named."""
    out_file = tmp_path / "r.jsonl"
    status, out, err = orcdbg_run(
        *("triage", str(folder), str(folder / "text"), "--images", IMAGES, "--jobs", "2", "-o", str(out_file))
    )
    assert (status, err) == (0, "")
    records = records_in(out_file)
    assert {name: record["outcome"] for name, record in records.items()} == {
        "a.core": "analyzed",
        "b.core": "duplicate",
        "hostile.core": "analyzed",
        "cut.core": "analyzed",
        "empty": "failed",
        "text": "failed",
    }
    whole = records["a.core"]
    assert (whole["signature"], whole["cause"]) == (SIGNATURE, {"kind": "nmi-panic", "certainty": "fact"})
    assert (whole["release"], whole["date"], whole["image"]) == ("5.10.223", 1795365634, IMAGE)
    assert (whole["build_id"], whole["death"]) == ("7339d8fddee0241894f65f126b7e6f70d5fb37d7", "named")
    assert records["b.core"]["duplicate_of"] == str(folder / "a.core")
    assert (records["cut.core"]["death"], records["cut.core"]["signature"]) == ("unknown", None)
    assert any("cut off" in warning for warning in records["cut.core"]["warnings"])
    assert records["empty"]["failure"]["message"].endswith("an empty file")
    assert records["text"]["failure"]["kind"] == "unsupported-format"

    assert out.startswith(
        "6 dumps: 3 analyzed, 1 duplicate, 2 failed\npassed over in folders, since they are no dumps: 1 file\n"
    )
    assert (
        f"    2  2026-11-22 16:40  2026-11-22 16:40  5.10.223, <script>\\x1b[2J\\n\\u202e\n       {SIGNATURE}\n" in out
    )
    assert "(2 fact; 1 more file with the same bytes)" in out
    assert "       failed: unsupported-format\n" in out


def test_without_an_image_the_dump_alone_has_to_do(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """The sample lacks its kernel's tables: a failure, with what its notes say. Where all dumps fail the status is 1."""
    out_file = tmp_path / "r.jsonl"
    status, out, err = orcdbg_run("triage", CORE, "-o", str(out_file))
    assert (status, err) == (1, "")
    record = records_in(out_file)["snapshot.core"]
    assert record["outcome"] == "failed" and "no image is given" in record["failure"]["message"]
    assert (record["release"], record["build_id"]) == ("5.10.223", "7339d8fddee0241894f65f126b7e6f70d5fb37d7")
    assert record["image"] is None
    assert out.startswith("1 dump: 0 analyzed, 0 duplicates, 1 failed\n")


def test_the_answer_as_json_is_one_line(orcdbg_run: RunProgram, folder: Path) -> None:
    """Groups with their exemplars; no records without -o."""
    status, out, err = orcdbg_run(
        *("triage", str(folder / "a.core"), str(folder / "b.core"), "--images", IMAGES, "--format", "json")
    )
    assert (status, err, out.count("\n")) == (0, "", 1)
    answer = json.loads(out)
    assert (answer["command"], answer["ok"]) == ("triage", True)
    result = answer["result"]
    assert (result["dumps"], result["analyzed"], result["duplicate"], result["failed"]) == (2, 1, 1, 0)
    assert (result["images"], result["undone"], result["output"], result["problems"]) == (1, 0, None, [])
    (group,) = result["groups"]
    assert (group["kind"], group["signature"], group["failure"]) == ("signature", SIGNATURE, None)
    assert (group["count"], group["duplicates"], group["first"]) == (1, 1, 1795365634)
    assert (group["releases"], group["certainties"]) == ({"5.10.223": 1}, {"fact": 1})
    assert group["exemplar"]["title"] == "an NMI became a panic in lock_is_held_type+0x52/0x110"


def test_records_on_standard_output_are_all_that_is_there(orcdbg_run: RunProgram, folder: Path) -> None:
    """For a program that reads them as they come."""
    status, out, err = orcdbg_run("triage", str(folder / "empty"), str(folder / "text"), "-o", "-")
    assert (status, err) == (1, "")
    assert [json.loads(line)["outcome"] for line in out.splitlines()] == ["failed", "failed"]


def test_resume_does_what_is_not_done(orcdbg_run: RunProgram, folder: Path, tmp_path: Path) -> None:
    """Half a line is dropped, its dump is done again, and so is one that was changed; the rest stays as it is."""
    out_file = tmp_path / "r.jsonl"
    words = ("triage", str(folder), "--images", IMAGES, "-o", str(out_file))
    assert orcdbg_run(*words)[0] == 0
    lines = out_file.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    marked = lines[0].replace('"attempts": 1', '"attempts": 77')
    out_file.write_text(marked + "".join(lines[1:3]) + lines[3][:40])

    assert orcdbg_run(*words) == (
        2,
        "",
        f"orcdbg: {out_file}: is there already\nhint: --resume goes on with it; or name another file\n",
    )
    status, out, err = orcdbg_run(*words, "--resume")
    assert (status, err) == (0, "")
    assert "3 of them in an earlier run\n" in out
    again = out_file.read_text().splitlines(keepends=True)
    assert again[:3] == [marked, *lines[1:3]]
    assert sorted(json.loads(line)["dump"] for line in again) == sorted(json.loads(line)["dump"] for line in lines)

    gone = tmp_path / "gone"
    assert orcdbg_run(*words[:2], str(gone), *words[2:], "--resume")[0] == 0
    assert "6 of them in an earlier run\n" in orcdbg_run(*words[:2], str(gone), *words[2:], "--resume")[1]
    gone.write_bytes(b"here now")
    assert "5 of them in an earlier run\n" in orcdbg_run(*words[:2], str(gone), *words[2:], "--resume")[1]

    os.utime(folder / "empty", ns=(1, 1))
    assert "4 of them in an earlier run\n" in orcdbg_run(*words, "--resume")[1]
    assert len(out_file.read_text().splitlines()) == 8


def test_what_a_dump_holds_never_reaches_a_page_or_a_terminal(
    orcdbg_run: RunProgram, hostile: str, tmp_path: Path
) -> None:
    """A release, a task's name and a file's name that would act are text: in the groups, in the records, in both pages."""
    dump = tmp_path / "a<b>\x1b]0;x"
    shutil.copy(hostile, dump)
    pages, out_file = tmp_path / "pages", tmp_path / "r.jsonl"
    status, out, err = orcdbg_run(
        *("triage", str(dump), "--images", IMAGES, "--report", str(pages), "-o", str(out_file))
    )
    assert (status, err) == (0, "")
    made = sorted(path.name for path in pages.iterdir())
    assert len(made) == 2 and re.fullmatch(r"dump-[0-9a-f]{16}\.html", made[0]) and made[1] == "index.html"
    index, page = [(pages / name).read_text() for name in reversed(made)]
    for text in (out, out_file.read_text(), index, page):
        assert all(character.isprintable() or character == "\n" for character in text)
    assert "&lt;script&gt;\\x1b[2J" in index and "a&lt;b&gt;\\x1b]0;x" in index and f'href="{made[0]}"' in index
    for text in (index, page):
        assert "<script" not in text and "<s>" not in text
        assert "default-src 'none'" in text
    assert "&lt;s&gt;&amp;&#x27;\\x1b]0;" in page


def test_an_output_never_replaces_an_input(orcdbg_run: RunProgram, folder: Path, tmp_path: Path) -> None:
    """A dump, an image, or a file of the pages' folder that is one of them: nothing is begun."""
    core = tmp_path / "index.html"
    shutil.copy(CORE, core)
    before = core.read_bytes()
    (tmp_path / "link").symlink_to(core)
    for words in (("--report", str(tmp_path)), ("-o", str(tmp_path / "link"), "--resume")):
        status, out, err = orcdbg_run("triage", str(core), "--images", IMAGES, *words)
        assert (status, out) == (2 if "--report" in words else 3, "")
        assert err.count("\n") <= 2
    assert core.read_bytes() == before
    (tmp_path / "empty").touch()
    status, _, err = orcdbg_run("triage", str(tmp_path / "empty"), "-o", str(tmp_path / "empty"))
    assert (status, "is one of the files that are read" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume"], "--resume goes on with a file"),
        (["-o", "-", "--resume"], "--resume goes on with a file"),
        (["--jobs", "0"], "not a whole number above 0: '0'"),
        (["--jobs", "9999"], "--jobs 9999: too many"),
        (["--seconds", "nan"], "not a number above 0: 'nan'"),
        (["--memory", "1"], "--memory 1: a dump takes more"),
        (["--dask", "tcp://10.1.1.1:8786"], "nothing protects this connection"),
        (["--dask", "tls://10.1.1.1:8786", "--jobs", "2"], "--jobs is for this machine"),
        (["--insecure"], "--insecure is for --dask"),
        (["--images", "/no/such"], "/no/such: not a folder"),
        (["-o", "/no/such/r.jsonl"], "/no/such/r.jsonl: cannot be written"),
        (["--report", "/no/such/pages"], "/no/such/pages: no folder can be made there"),
    ],
)
def test_words_that_make_no_sense_are_refused(orcdbg_run: RunProgram, words: list[str], said: str) -> None:
    """In a line, before any work."""
    status, out, err = orcdbg_run("triage", CORE, *words)
    assert (status, out) == (2, "")
    assert said in err.splitlines()[0]


def test_a_folder_without_a_dump_is_an_error(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Status 1."""
    status, out, err = orcdbg_run("triage", str(tmp_path))
    assert (status, out) == (1, "")
    assert err == f"orcdbg: no such dump: {tmp_path}\nhint: orcdbg triage DUMP... or a folder of them\n"


def test_real_limits_end_a_real_dump(orcdbg_run: RunProgram, folder: Path, tmp_path: Path) -> None:
    """Of time: a tenth of a second is not enough to begin with."""
    out_file = tmp_path / "r.jsonl"
    assert (
        orcdbg_run("triage", str(folder / "a.core"), "--images", IMAGES, "--seconds", ".1", "-o", str(out_file))[0] == 1
    )
    failure = records_in(out_file)["a.core"]["failure"]
    assert (failure["kind"], failure["message"]) == ("time-limit", "ended after 0.1 s")


def started(tmp_path: Path, *names: str) -> tuple[subprocess.Popen[str], Path]:
    """The program at work on dumps of these names, whose workers do what those say; and the file of its records."""
    for name in names:
        (tmp_path / name).write_text(name)
    # Whoever runs the tests in the background may have had SIGINT ignored for them, and all that they start.
    code = f"import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); \
from orcdbg.cli.main import main; import orcdbg.cli.triage as t; t.run.__defaults__ = ({FAKE!r},); sys.exit(main())"
    out_file = tmp_path / "r.jsonl"
    words = ["triage", *(str(tmp_path / name) for name in names), "-o", str(out_file), "--jobs", "2"]
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), out_file


def test_an_interruption_keeps_what_is_done(tmp_path: Path) -> None:
    """The groups of that are printed, nobody is left at work, and the status is 130; then --resume does the rest."""
    process, out_file = started(tmp_path, "a", "b", "hang-1", "c")
    while not out_file.exists() or out_file.read_text().count("\n") < 3:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert err == "orcdbg: interrupted: done: 3 dumps; the same line with --resume goes on\n"
    assert out.startswith("3 dumps: 3 analyzed, 0 duplicates, 0 failed\n! interrupted: not looked at: 1 dump\n")
    assert sorted(records_in(out_file)) == ["a", "b", "c"]


def test_workers_end_with_the_program(tmp_path: Path) -> None:
    """Also where that is killed, and cannot end them itself."""
    process, out_file = started(tmp_path, "a", "spin-1")
    while not out_file.exists() or out_file.read_text().count("\n") < 1:
        time.sleep(0.02)
        assert process.poll() is None
    left = descendants(process.pid)
    assert len(left) >= 2
    process.kill()
    process.communicate()
    while any(is_alive(pid) for pid in left):
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_worker_is_the_programs_own() -> None:
    """It is run without the current folder on its path."""
    assert triage.WORKER[1:3] == ("-P", "-m")
