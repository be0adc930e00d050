"""orcdbg decode: a printed report beside the sample's vmlinux, or without any."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.cli.decode import run
from orcdbg.cli.main import sample_files
from orcdbg.cli.output import complain
from orcdbg.commands.debugger import Debugger
from orcdbg.target.session import Session
from orcdbg.unwind.frame import FrameKind
from orcdbg.views.stacks import name_of
from tests.build import oops_texts as texts
from tests.conftest import RunProgram

VMLINUX = sample_files()[0]


@pytest.fixture
def decoded(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs decode with a text: exit status, output, standard error."""

    def program(text: str | bytes, *words: str) -> tuple[int, str, str]:
        data = text.encode() if isinstance(text, str) else text
        try:
            status = run(words, io.BytesIO(data))
        except OrcdbgError as error:
            complain(error)
            status = error.exit_status
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return program


@pytest.fixture(scope="module")
def report(sample: Session) -> str:
    """What the sample's kernel would have printed: its frames, with a line after a `?` of each kind between them."""
    frames = [
        frame for frame in Debugger(sample).trace(Debugger(sample).task).frames if frame.kind is not FrameKind.USER
    ]
    interrupted = next(number for number, frame in enumerate(frames) if number and frame.kind is FrameKind.INTERRUPT)
    code = sample.memory.read(frames[interrupted].ip - 1, 9)
    shown = f"{code[0]:02x} <{code[1]:02x}> {code[2:].hex(' ')}"
    start = sample.linux.address("schedule")
    size = sample.names.at(start)
    assert size is not None
    lines = [
        "Kernel panic - not syncing: NMI: Not continuing",
        "CPU: 0 PID: 135 Comm: cat Not tainted 5.10.223 #1",
        "Call Trace:",
        " <NMI>",
        *(f" {name_of(frame)}" for frame in frames[1:interrupted]),
        f"RIP: 0010:{name_of(frames[interrupted])}",
        f"Code: {shown}",
        "RSP: 0018:ffa000000014fd80 EFLAGS: 00000246",
        f"RAX: 0000000000000000 RBX: {start + 3:016x} RCX: 0000000000000000",
        " </NMI>",
        f" ? schedule+0x0/{size.size:#x}",
        *(f" {name_of(frame)}" for frame in frames[interrupted + 1 :]),
        "Kernel Offset: disabled",
    ]
    return "\n".join(lines) + "\n"


def result_of(answer: tuple[int, str, str]) -> dict[str, Any]:
    """The JSON of an answer that went well."""
    status, out, err = answer
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["command"], found["ok"]) == ("decode", True)
    result: dict[str, Any] = found["result"]
    return result


def test_title_and_signature_are_those_of_the_dump(decoded: Any, orcdbg_run: RunProgram, report: str) -> None:
    """By the same words and rules."""
    found = result_of(decoded(report, VMLINUX, "--format", "json"))
    _, out, _ = orcdbg_run("demo", "--format", "json", "-e", "analyze")
    expected = json.loads(out)["result"]
    assert found["title"] == expected["title"]
    assert found["signature"] == expected["signature"]
    assert found["kind"] == expected["cause"]["kind"]


def test_code_beside_the_image(decoded: Any, report: str) -> None:
    """The sample was stopped between pushfq and pop, which stand for a paravirt call."""
    found = result_of(decoded(report, VMLINUX, "--format", "json"))
    assert [(one["text"], one["faulting"]) for one in found["code"][:2]] == [("pushfq", False), ("popq %rax", True)]
    assert [one["mechanisms"] for one in found["code"][:2]] == [["paravirt"], ["paravirt"]]
    assert found["code"][0]["built"] == "ff"
    assert found["code"][1]["address"] == "0xffffffff813a48e2"


def test_the_slide_and_what_it_names(decoded: Any, report: str) -> None:
    """By the kernel's own line; without that no value has a name, and the answer says why."""
    found = result_of(decoded(report, VMLINUX, "--format", "json"))
    assert (found["slide"], found["slide_from"]) == ("0x0", "kernel-offset")
    assert found["register_names"]["rbx"].startswith("schedule+0x3/")
    assert "slide" not in found["only_dump"]

    moved = report.replace("Kernel Offset: disabled\n", "")
    found = result_of(decoded(moved, VMLINUX, "--format", "json"))
    assert (found["slide"], found["register_names"]) == (None, {})
    assert "slide" in found["only_dump"]


def test_lines_after_a_question_mark_are_judged(decoded: Any, report: str) -> None:
    """Where a function begins no call ends."""
    found = result_of(decoded(report, VMLINUX, "--format", "json"))
    lines = found["traces"][0]["lines"]
    assert [(one["symbol"], one["verdict"]) for one in lines if not one["sure"]] == [("schedule", "no-call")]
    assert all(one["address"] is not None for one in lines)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("5.10.223 #1", "5.10.224 #1", "the release of the image is 5.10.223, of the report 5.10.224"),
        ("touch_atime+0x148/0x250", "touch_atime+0x148/0x260", "the size of touch_atime of the image is 0x250"),
    ],
)
def test_another_build_is_refused(decoded: Any, report: str, old: str, new: str, says: str) -> None:
    """In one line, with the status of the contract."""
    assert old in report
    status, out, err = decoded(report.replace(old, new), VMLINUX)
    assert (status, out) == (4, "")
    assert len(err.splitlines()) == 1
    assert says in err


def test_without_a_vmlinux(decoded: Any) -> None:
    """What the text alone says: title, signature, registers, code with the faulting instruction."""
    found = result_of(decoded(texts.as_mailed(texts.NULL_612), "--format", "json"))
    assert found["title"] == "NULL pointer dereference in mill_turn+0x1b/0x60 [mill]: read of 8 bytes at 0x10"
    assert found["signature"].startswith(texts.NULL_SIGNATURE)
    assert found["only_dump"][0] == "image"
    assert [one["text"] for one in found["code"] if one["faulting"]] == ["movq 0x10(%rbx), %rax"]
    assert found["code"][0]["text"] == "nop"
    assert found["registers"]["rdi"] == "0xffffffffc0a03200"


@pytest.mark.parametrize("name", ["NULL_612", "PAGING_44", "SOFT_LOCKUP_61", "HUNG_515", "PANIC_419", "WARNING_66"])
def test_every_generation_as_text(decoded: Any, name: str) -> None:
    """Each is read; the text begins with the title and the signature."""
    status, out, err = decoded(getattr(texts, name))
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("signature: ")
    assert "Only a dump would tell" in out


def test_addresses_tell_the_slide(decoded: Any, report: str, sample: Session) -> None:
    """Older kernels print them: the distance to the image's is the slide."""
    address = sample.linux.address("schedule") + 0x10
    place = sample.names.at(address)
    assert place is not None
    line = f" [<{address + 0x6200000:016x}>] ? schedule+0x10/{place.size:#x}\n"
    text = report.replace("Kernel Offset: disabled\n", line)
    found = result_of(decoded(text, VMLINUX, "--format", "json"))
    assert (found["slide"], found["slide_from"]) == ("0x6200000", "addresses")


def test_hostile_text_is_shown_as_text(decoded: Any) -> None:
    """No control character reaches the terminal, and the answer is bounded."""
    text = texts.NULL_612.replace("Comm: grinder", "Comm: \x1b]0;x\x07\u202ey").replace("mill_grind", "a" * 5000)
    status, out, _ = decoded(text)
    assert status == 0
    assert all(character.isprintable() or character == "\n" for character in out)


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"", 3, "the text: empty"),
        (b"\0\1\2" * 100, 3, "not a text"),
        (b"good morning\n", 1, "no such report of the kernel"),
    ],
)
def test_what_is_no_report(decoded: Any, data: bytes, status: int, says: str) -> None:
    """One line."""
    found, out, err = decoded(data)
    assert (found, out) == (status, "")
    assert says in err.splitlines()[0]


def test_a_snapshot_is_no_vmlinux(decoded: Any, report: str) -> None:
    """It is said what to use."""
    status, _, err = decoded(report, sample_files()[1])
    assert status == 3
    assert "a snapshot" in err


def test_the_text_comes_from_standard_input() -> None:
    """As the shell's `<` gives it."""
    words = [sys.executable, "-m", "orcdbg", "decode"]
    done = subprocess.run(words, input=texts.HUNG_515.encode(), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"hung task: INFO: task fetcher:1203 blocked for more than 120 seconds.")


def test_a_chain_of_lines_after_a_question_mark(decoded: Any, report: str) -> None:
    """The kernel lost its way at the patched place, so that all outer lines have a `?`: each calls the one before."""
    before, mark, behind = report.partition(" </NMI>\n")
    lost = (
        before
        + mark
        + "".join(f" ?{line}\n" if "+0x" in line and "?" not in line else f"{line}\n" for line in behind.splitlines())
    )
    found = result_of(decoded(lost, VMLINUX, "--format", "json"))
    verdicts = {one["symbol"]: one["verdict"] for one in found["traces"][0]["lines"] if not one["sure"]}
    assert verdicts["schedule"] == "no-call"
    assert verdicts["rcu_read_lock_any_held"] == "possible"
    assert verdicts["do_splice_direct"] == "possible"
    assert found["signature"] == "nmi-panic lock_is_held_type"


def test_a_line_that_is_not_between_two_sure_ones(decoded: Any, report: str) -> None:
    """A call ends there, but the line outside of it itself calls the line inside of it."""
    old = " rcu_read_lock_any_held+0x4e/0xa0\n touch_atime+0x148/0x250\n"
    assert old in report
    text = report.replace(old, old.replace("\n", "\n ? do_sendfile+0x14c/0x4e0\n", 1))
    found = result_of(decoded(text, VMLINUX, "--format", "json"))
    verdicts = [one["verdict"] for one in found["traces"][0]["lines"] if one["symbol"] == "do_sendfile"]
    assert verdicts == ["bypassed", None]
