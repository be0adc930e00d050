"""orcdbg as a program: exit statuses, errors of one line, batch mode, JSON lines, plug-ins."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from orcdbg.base.reading import FileSource
from orcdbg.cli.main import sample_files
from orcdbg.commands.redirections import split_redirection
from orcdbg.commands.registry import Registry
from orcdbg.formats.elf import ElfFile
from orcdbg.target.session import Session
from tests.build.kdump import Kdump, flattened
from tests.build.sample import changed_core
from tests.conftest import RunProgram

IMAGE, CORE = sample_files()
EXAMPLE = Path(__file__).parents[2] / "plugins" / "example" / "hello.py"


def one_error(outcome: tuple[int, str, str]) -> tuple[int, str]:
    """Exit status and the error's line; nothing on standard output, and at most a hint after it."""
    status, out, err = outcome
    lines = [line for line in err.splitlines() if not line.startswith("orcdbg: warning:")]
    assert out == ""
    assert lines[0].startswith("orcdbg: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    return status, lines[0]


def test_the_demo_walks_from_the_nmi_to_user_mode(orcdbg_run: RunProgram) -> None:
    """The whole chain, one frame corrected with its reason, no other in doubt."""
    status, out, _ = orcdbg_run("demo", "-e", "bt")
    frames = [line for line in out.splitlines() if line[1:2] == "#"]
    assert status == 0
    assert [line[0] for line in frames].count("~") == 1
    assert {line[0] for line in frames} == {" ", "~"}
    assert next(line for line in frames if line[0] == "~").split()[1].startswith("lock_is_held_type+0x52")
    assert "user mode  RIP:" in out
    assert out.rstrip().endswith("Ends at user registers.")


@pytest.mark.parametrize("order", [(IMAGE, CORE), (CORE, IMAGE)])
def test_files_are_told_by_content_in_either_order(orcdbg_run: RunProgram, order: tuple[str, str]) -> None:
    """The kind is in the bytes, not in the place."""
    assert orcdbg_run(*order, "-e", "sym linux_banner")[0] == 0


def test_a_file_that_is_no_elf_is_refused(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Exit status 3 and one line."""
    text = tmp_path / "notes.txt"
    text.write_text("not a kernel")
    status, line = one_error(orcdbg_run(IMAGE, str(text), "-e", "bt"))
    assert (status, "neither a vmlinux nor a snapshot" in line) == (3, True)


def test_a_missing_file_is_one_line(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Exit status 3."""
    assert one_error(orcdbg_run(IMAGE, str(tmp_path / "absent"), "-e", "bt"))[0] == 3


def test_a_folder_is_not_a_snapshot(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Exit status 3."""
    assert one_error(orcdbg_run(IMAGE, str(tmp_path), "-e", "bt"))[0] == 3


@pytest.mark.parametrize(("magic", "word"), [(b"KDUMP   ", "kdump"), (b"makedumpfile\0", "flattened")])
def test_a_dump_of_an_unknown_version_is_one_line(
    orcdbg_run: RunProgram, tmp_path: Path, magic: bytes, word: str
) -> None:
    """Exit status 3, and the format is named."""
    path = tmp_path / "dump"
    path.write_bytes(magic.ljust(8192, b"\0"))
    status, line = one_error(orcdbg_run(IMAGE, str(path), "-e", "bt"))
    assert status == 3
    assert word in line


def test_a_format_that_is_not_read_is_named(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """With what to do instead."""
    path = tmp_path / "dump"
    path.write_bytes(b"DISKDUMP".ljust(8192, b"\0"))
    status, out, err = orcdbg_run(IMAGE, str(path), "-e", "bt")
    assert (status, out) == (3, "")
    assert "diskdump" in err
    assert "hint:" in err


def sample_kdump() -> Kdump:
    """The sample's memory and notes, as a compressed kdump."""
    core = ElfFile(FileSource(CORE))
    loads = [(segment, core.source.read_at(segment.offset, segment.file_size)) for segment in core.segments[1:]]
    pages = {
        (segment.physical + at) // 4096: data[at : at + 4096]
        for segment, data in loads
        for at in range(0, len(data), 4096)
    }
    note = core.segments[0]
    return Kdump(pages, notes=core.source.read_at(note.offset, note.file_size))


@pytest.mark.parametrize("state", ["excluded", "absent", "cut off"])
def test_memory_that_is_missing_has_its_word(orcdbg_run: RunProgram, tmp_path: Path, state: str) -> None:
    """In the error's sentence and in its field; the rest of the dump is there."""
    dump, at = sample_kdump(), int(orcdbg_run("demo", "-e", "sym linux_banner")[1].split()[0], 16)
    frame = (at - 0xFFFFFFFF80000000) // 4096
    if state == "cut off":
        dump.unfinished = [frame]
    else:
        dump.pages = {one: page for one, page in dump.pages.items() if one != frame}
        dump.excluded = [frame] if state == "excluded" else []
    path = tmp_path / "dump"
    path.write_bytes(dump.encode())
    words = ["--keep-going", "--format", "json", "-e", "rd linux_banner", "-e", "rd init_task"]
    status, out, _ = orcdbg_run(IMAGE, str(path), *words)
    missing, found = map(json.loads, out.splitlines())
    assert (status, found["ok"]) == (1, True)
    assert (missing["error"]["kind"], missing["error"]["state"]) == ("not-in-snapshot", state)
    assert f"({state})" in missing["error"]["message"]


@pytest.mark.parametrize("is_flattened", [False, True])
def test_the_sample_as_a_kdump_gives_the_same_answers(
    orcdbg_run: RunProgram, tmp_path: Path, is_flattened: bool
) -> None:
    """Byte for byte, in JSON."""
    data = sample_kdump().encode()
    dump = tmp_path / "dump"
    dump.write_bytes(flattened(data) if is_flattened else data)
    words = ["--format", "json", "-e", "bt -a", "-e", "ps", "-e", "patch audit", "-e", "foreach bt"]
    assert orcdbg_run(IMAGE, str(dump), *words) == orcdbg_run(IMAGE, CORE, *words)


def _boundaries() -> list[int]:
    """Each header's end in the sample's core, and the byte before it."""
    file = ElfFile(FileSource(CORE))
    note = file.segments[0]
    ends = [64, 64 + 56, 64 + 56 * len(file.segments), note.offset + 12, note.offset + note.file_size]
    return sorted({end - back for end in ends for back in (0, 1)} - {note.offset + note.file_size})


@pytest.mark.parametrize("size", _boundaries())
def test_a_core_cut_at_any_header_boundary_is_one_line(orcdbg_run: RunProgram, tmp_path: Path, size: int) -> None:
    """Exit status 3, the file named, no traceback."""
    cut = tmp_path / "cut.core"
    cut.write_bytes(Path(CORE).read_bytes()[:size])
    status, line = one_error(orcdbg_run(IMAGE, str(cut), "-e", "bt"))
    assert status == 3
    assert str(cut) in line


def test_a_core_cut_inside_memory_shows_what_it_can(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """A warning on standard error; answers as far as memory reaches, or one line why not."""
    cut = tmp_path / "cut.core"
    cut.write_bytes(Path(CORE).read_bytes()[: 64 * 1024])
    status, _, err = orcdbg_run(IMAGE, str(cut), "-e", "bt")
    assert "the file is cut off" in err
    assert status in (0, 1)
    assert "Traceback" not in err


def test_without_vmcoreinfo_the_idt_tells_where_the_kernel_is(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """QEMU's notes hold CR3 and the IDT's address; the backtrace is the same."""
    stripped = changed_core(tmp_path / "stripped.core", ["CORE", "QEMU"])
    status, out, _ = orcdbg_run(IMAGE, stripped, "-e", "bt")
    assert status == 0
    assert out == orcdbg_run("demo", "-e", "bt")[1]
    assert "CR3 and IDT of CPU 0" in orcdbg_run(IMAGE, stripped, "-e", "sys")[1]


def test_without_any_word_on_the_kernels_place_memory_is_searched(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """The banner tells where the kernel is; the backtrace is the same."""
    stripped = changed_core(tmp_path / "stripped.core", ["CORE"])
    status, out, _ = orcdbg_run(IMAGE, stripped, "-e", "bt")
    assert (status, out) == (0, orcdbg_run("demo", "-e", "bt")[1])
    assert "the banner found in memory" in orcdbg_run(IMAGE, stripped, "-e", "sys")[1]


def test_where_nothing_tells_the_kernels_place_the_option_is_named(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """One clear error; with the option the kernel is another one."""
    stripped = changed_core(tmp_path / "stripped.core", ["CORE"])
    Path(stripped).write_bytes(Path(stripped).read_bytes().replace(b"Linux version", b"linux version"))
    status, out, err = orcdbg_run(IMAGE, stripped, "-e", "bt")
    assert (status, out) == (1, "")
    assert "hint: give --kaslr SLIDE and --phys-base BASE" in err
    status, out, err = orcdbg_run(IMAGE, stripped, "--kaslr", "0", "--phys-base", "0", "-e", "sym linux_banner")
    assert (status, out) == (4, "")


def test_a_snapshot_of_another_kernel_names_both_ids(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Exit status 4: build-ids are compared before anything is believed."""
    image = bytearray(lzma.decompress(Path(IMAGE).read_bytes()))
    section = ElfFile(FileSource(_write(tmp_path / "vmlinux", bytes(image)))).by_name[".notes"]
    at = image.index(b"GNU\0", section.offset) + 4
    image[at] ^= 0xFF
    other = _write(tmp_path / "other", bytes(image))
    status, line = one_error(orcdbg_run(other, CORE, "-e", "bt"))
    assert status == 4
    assert "build-id of the image is" in line
    assert "of the snapshot" in line


def test_another_banner_is_refused_where_no_build_id_tells(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Exit status 4 as well: the banner is read back from memory."""
    image = lzma.decompress(Path(IMAGE).read_bytes()).replace(b"Linux version 5.10", b"Linux version 5.11")
    other = _write(tmp_path / "other", image)
    status, line = one_error(orcdbg_run(other, changed_core(tmp_path / "stripped.core", ["CORE", "QEMU"]), "-e", "bt"))
    assert status == 4
    assert "5.11" in line
    assert "5.10" in line


def test_a_vmlinux_without_orc_is_walked_by_derived_rows(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Each frame says so, and one line besides; the frames are those of the table."""
    image = lzma.decompress(Path(IMAGE).read_bytes()).replace(b".orc_unwind\0", b".orc_absent\0")
    other = _write(tmp_path / "other", image)
    status, out, err = orcdbg_run(other, CORE, "-e", "bt")
    expected = orcdbg_run(IMAGE, CORE, "-e", "bt")[1]
    frames, known = ([line for line in text.splitlines() if "[ff" in line] for text in (out, expected))
    assert status == 0
    assert [_name_of(line) for line in frames] == [_name_of(line) for line in known]
    assert known
    assert all(line.startswith("~") and "derived" in line for line in frames)
    assert [line for line in err.splitlines() if "rows are derived from the instructions" in line]


def _name_of(line: str) -> str:
    """A frame's number, return slot and function."""
    return " ".join(line[1:].split()[:3])


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("command", "status", "word"),
    [
        ("nonsense", 2, "no such command"),
        ("bt 99999", 1, "no such task"),
        ("bt --why 99", 1, "no such frame"),
        ("dis no_such_symbol_here", 1, "no such symbol"),
        ("rd 0", 1, "not mapped"),
        ("rd linux_banner -5", 2, ""),
        ("bt 'open", 2, "No closing quotation"),
        ("set scroll 7", 2, "scroll"),
        ("patch", 2, "patch what"),
        ("orc", 0, ""),
    ],
)
def test_each_failure_has_its_exit_status(orcdbg_run: RunProgram, command: str, status: int, word: str) -> None:
    """1 for a command that failed, 2 for words that are no command."""
    found, _, err = orcdbg_run("demo", "-e", command)
    assert found == status
    assert word in err
    assert "Traceback" not in err


def test_batch_stops_at_the_first_failure_unless_told_otherwise(orcdbg_run: RunProgram) -> None:
    """The exit status is the first failure's either way."""
    words = ("demo", "-e", "bt 99999", "-e", "sym schedule")
    assert (orcdbg_run(*words)[:2]) == (1, "")
    status, out, _ = orcdbg_run(*words, "--keep-going")
    assert (status, "schedule" in out) == (1, True)


def test_commands_come_from_files_and_options_in_their_order(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """-e and -x mix; comments and empty lines say nothing."""
    script = tmp_path / "script"
    script.write_text("# a comment\n\nsym schedule\nquit\nsym never_reached\n")
    status, out, _ = orcdbg_run("demo", "-e", "sym linux_banner", "-x", str(script))
    assert status == 0
    assert [line.split()[2].split("/")[0] for line in out.splitlines()] == ["linux_banner", "schedule"]


def test_standard_input_that_is_no_terminal_is_a_script() -> None:
    """Without -e and -x; and batch mode imports neither cmd2 nor prompt_toolkit nor rich."""
    code = (
        "import sys; from orcdbg.cli.main import main; status = main(['demo']); "
        "print(sorted({'cmd2', 'prompt_toolkit', 'rich'} & set(sys.modules)), status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="sym schedule\n", capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "schedule" in done.stdout


def test_answers_can_be_piped_and_redirected(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """`|` runs the shell, `>` and `>>` write files; nothing else reaches standard output."""
    target = tmp_path / "answers"
    status, out, _ = orcdbg_run("demo", "-e", f"sym schedule > {target}", "-e", f"sym linux_banner >> {target}")
    assert (status, out) == (0, "")
    assert len(target.read_text().splitlines()) == 2
    assert orcdbg_run("demo", "-e", "ps | grep -c swapper")[1].strip() == "1"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("bt", ("bt", "", "")),
        ("bt | head -1", ("bt", "|", "head -1")),
        ("bt > a b", ("bt", ">", "a b")),
        ("bt >> x", ("bt", ">>", "x")),
        ("sym 'a|b'", ("sym 'a|b'", "", "")),
        ("bt>x", ("bt", ">", "x")),
    ],
)
def test_a_redirection_is_found_outside_quotes(registry: Registry, line: str, parts: tuple[str, str, str]) -> None:
    """Quoted operators are operands."""
    assert split_redirection(registry, line) == parts


def test_every_command_prints_one_json_line(orcdbg_run: RunProgram) -> None:
    """`schema`, the command as typed, `ok`, and a result or an error."""
    commands = [
        "bt",
        "bt -a",
        "foreach bt",
        "frame 6",
        "up",
        "down",
        "regs",
        "orc schedule",
        "patch list --symbol schedule",
    ]
    commands += [
        "patch at lock_is_held_type+0x51",
        "dis --diff lock_is_held_type 30",
        "sym schedule",
        "rd linux_banner 2",
    ]
    commands += ["ps", "mod", "sys", "set", "help", "help bt", "bt 99999"]
    words = [word for command in commands for word in ("-e", command)]
    _, out, _ = orcdbg_run("demo", "--format", "json", "--keep-going", *words)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["command"] for line in lines] == commands
    assert {line["schema"] for line in lines} == {1}
    assert [line["command"] for line in lines if not line["ok"]] == ["bt 99999"]
    assert lines[-1]["error"]["kind"] == "not-found"


def test_a_closed_pipe_ends_quietly() -> None:
    """Exit status 141, and no traceback."""
    words = [sys.executable, "-m", "orcdbg", "demo", "-e", "foreach bt"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 141
    assert err == b""


def test_a_plug_in_adds_a_command_a_mechanism_and_a_reader(
    orcdbg_run: RunProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worked example does all three."""
    status, out, _ = orcdbg_run("demo", "--plugin", str(EXAMPLE), "-e", "kthreads")
    assert (status, "kthreadd" in out) == (0, True)
    address = json.loads(orcdbg_run("demo", "--format", "json", "-e", "sym schedule")[1])["result"]["symbols"][0][
        "address"
    ]
    monkeypatch.setenv("ORCDBG_INT3", address)
    _, out, _ = orcdbg_run("demo", "--plugin", str(EXAMPLE), "--format", "json", "-e", "patch at schedule")
    sites = json.loads(out)["result"]["sites"]
    assert [site["expected"] for site in sites if site["mechanism"] == "int3"] == ["cc"]
    raw = _raw_memory(tmp_path)
    status, out, _ = orcdbg_run(IMAGE, raw, "--plugin", str(EXAMPLE), "-e", "sys")
    assert (status, "raw memory" in out) == (0, True)


def _raw_memory(tmp_path: Path) -> str:
    """The sample's memory in the example plug-in's own format, holes as zeros."""
    file = ElfFile(FileSource(CORE))
    loads = [s for s in file.segments if s.type == 1]
    info = next(n.data for n in file.notes() if n.name == "VMCOREINFO")
    path = tmp_path / "raw"
    with path.open("wb") as out:
        out.write((b"RAWMEM1\n" + info).ljust(4096, b"\0"))
        for segment in loads:
            out.seek(4096 + segment.physical)
            out.write(file.source.read_at(segment.offset, segment.file_size))
    return str(path)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("", "no function register"),
        ("1/0", "ZeroDivisionError"),
        ("def register(api): api.require(9, 0)", "wants API 9.0"),
    ],
)
def test_a_plug_in_that_fails_is_one_line(orcdbg_run: RunProgram, tmp_path: Path, code: str, word: str) -> None:
    """It was asked for, so the session does not open without it."""
    bad = tmp_path / "bad.py"
    bad.write_text(code)
    status, line = one_error(orcdbg_run("demo", "--plugin", str(bad), "-e", "sys"))
    assert (status, word in line) == (2, True)


def test_nothing_in_the_current_folder_is_run(
    orcdbg_run: RunProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither start-up files nor plug-ins."""
    for name in (".orcdbgrc", ".crashrc", "orcdbg.py", "hello.py", "plugin.py"):
        (tmp_path / name).write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    assert orcdbg_run("demo", "-e", "sym schedule")[0] == 0


def frames_of(out: str) -> list[dict[str, object]]:
    """The frames of the first stack in a JSON answer."""
    found: list[dict[str, object]] = json.loads(out)["result"]["stacks"][0]["frames"]
    return found


def test_a_kdump_core_has_notes_without_cpu_numbers(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """kdump leaves out QEMU's notes: whose registers a note holds is told by the stack they point at."""
    plain = changed_core(tmp_path / "kdump.core", ["CORE", "VMCOREINFO"])
    assert orcdbg_run(IMAGE, plain, "-e", "bt")[1] == orcdbg_run("demo", "-e", "bt")[1]
    assert "ELF core (kdump)" in orcdbg_run(IMAGE, plain, "-e", "sys")[1]


def test_a_missing_stack_page_ends_the_walk_where_it_is_missed(
    orcdbg_run: RunProgram, tmp_path: Path, sample: Session
) -> None:
    """The frames so far are shown as they are, then the reason; exit status 0, since the question was answered."""
    whole = frames_of(orcdbg_run("demo", "--format", "json", "-e", "bt")[1])
    slot = int(str(whole[7]["return_slot"]), 16)
    cut = changed_core(tmp_path / "hole.core", without=[sample.memory.translate(slot)])
    status, out, _ = orcdbg_run(IMAGE, cut, "--format", "json", "-e", "bt")
    stack = json.loads(out)["result"]["stacks"][0]
    assert (status, stack["end"]) == (0, "stopped")
    assert "not in the snapshot" in stack["end_reason"]
    assert 0 < len(stack["frames"]) < len(whole)
    assert [f["ip"] for f in stack["frames"]] == [f["ip"] for f in whole[: len(stack["frames"])]]


def test_missing_text_is_replayed_and_says_so(orcdbg_run: RunProgram, tmp_path: Path, sample: Session) -> None:
    """The frame in patched text is still right, and its reason names the replay."""
    text = sample.linux.address("lock_is_held_type")
    cut = changed_core(tmp_path / "notext.core", without=[sample.memory.translate(text)])
    _, out, _ = orcdbg_run(IMAGE, cut, "--format", "json", "-e", "bt")
    whole = frames_of(orcdbg_run("demo", "--format", "json", "-e", "bt")[1])
    ours = frames_of(out)
    assert [f["ip"] for f in ours] == [f["ip"] for f in whole]
    patch = ours[6]["patch"]
    assert isinstance(patch, dict)
    assert "replay" in patch["text_from"]
    assert "replay" in orcdbg_run(IMAGE, cut, "-e", "dis lock_is_held_type 3")[1]


def test_a_tasks_name_cannot_reach_the_terminal_raw(orcdbg_run: RunProgram, tmp_path: Path, sample: Session) -> None:
    """Control bytes in task_struct.comm come out as escapes, in text and in JSON."""
    task = sample.task(1)
    at = sample.memory.translate(task.address + sample.types.offset("task_struct", "comm"))
    evil = changed_core(tmp_path / "evil.core", patches={at: b"\x1b[31m\x07\r\n\xffx\0"})
    for words in (["-e", "ps"], ["-e", "bt 1"], ["--format", "json", "-e", "ps"], ["--color", "always", "-e", "set 1"]):
        status, out, _ = orcdbg_run(IMAGE, evil, *words)
        assert status == 0
        assert "\x1b[31m" not in out
        assert "\x07" not in out
        assert "\r" not in out
        assert "x1b[31m" in out or "u001b[31m" in out


def test_a_cyclic_task_list_is_said_and_ends(orcdbg_run: RunProgram, tmp_path: Path, sample: Session) -> None:
    """A list that never comes back to its head does not hang the program."""
    at = sample.task(1).address + sample.types.offset("task_struct", "tasks")
    evil = changed_core(tmp_path / "circle.core", patches={sample.memory.translate(at): at.to_bytes(8, "little")})
    status, out, _ = orcdbg_run(IMAGE, evil, "-e", "ps")
    assert status == 0
    assert "runs in a circle" in out
