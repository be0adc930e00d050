"""The words of stepping move a live guest, and a copy of it only where they speak of the emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.target.session import Session
from tests.build.stub import MachineStub, StubServer, answering
from tests.conftest import RunProgram


@pytest.fixture
def stub(sample: Session) -> MachineStub:
    """The sample's machine; it does not move, whatever it is told."""
    return MachineStub(sample.snapshot)


@pytest.fixture
def words(stub: MachineStub, tmp_path: Path) -> Iterator[list[str]]:
    """The command line that opens it."""
    with StubServer(tmp_path, answering(stub.answer)) as server:
        yield [sample_files()[0], "--remote", f"unix:{server.path}", "--kaslr", "0", "--phys-base", "0"]


def asked(stub: MachineStub) -> list[bytes]:
    """The packets that move the machine, or say where it shall stop."""
    return [one for one in stub.log if one.startswith(b"vCont;") or one[:1] in b"zZ"]


def test_instructions_are_run_on_the_guest(orcdbg_run: RunProgram, words: list[str], stub: MachineStub) -> None:
    """By its one CPU; the answer says where it stands, and by which rule."""
    status, out, err = orcdbg_run(*words, "--format", "json", "-e", "step 2 --trace")
    found = json.loads(out)["result"]
    assert (status, err, found["stopped_by"], found["instructions"]) == (0, "", "count", 2)
    assert [one["symbol"] for one in found["trace"]] == ["delay_tsc"] * 3
    assert asked(stub) == [b"vCont;s:01"] * 2


def test_a_run_up_to_an_address_takes_its_breakpoint_back(
    orcdbg_run: RunProgram, words: list[str], stub: MachineStub
) -> None:
    """Here it is where the guest stands already, so that it is stepped off first."""
    assert orcdbg_run(*words, "-e", "until delay_tsc+0x31")[0] == 0
    ip = b"ffffffff81277821"
    assert asked(stub) == [
        b"Z1,%s,1" % ip,
        b"z1,%s,1" % ip,
        b"vCont;s:01",
        b"Z1,%s,1" % ip,
        b"vCont;c",
        b"z1,%s,1" % ip,
    ]


def test_breakpoints_are_the_stubs(orcdbg_run: RunProgram, words: list[str], stub: MachineStub) -> None:
    """Set, listed, taken back; watched memory is as wide as a CPU watches."""
    status, out, _ = orcdbg_run(
        *words, "-e", "break schedule", "-e", "watch jiffies 8", "-e", "delete 1", "-e", "delete"
    )
    assert status == 0
    assert "schedule" in out
    assert "jiffies" in out
    assert [one[:2] for one in asked(stub)] == [b"Z1", b"Z2", b"z1", b"z2"]
    assert orcdbg_run(*words, "-e", "watch jiffies 3")[0] == 2
    assert orcdbg_run(*words, "-e", "delete 7")[0] == 1


def test_other_words_of_stepping_run_a_copy(orcdbg_run: RunProgram, words: list[str], stub: MachineStub) -> None:
    """What would it do: the guest stands still."""
    status, _, err = orcdbg_run(*words, "-e", "step 3 --at _raw_spin_lock_irqsave --zero")
    assert (status, err) == (0, "")
    assert asked(stub) == []


def test_a_command_is_repeated_while_the_guest_runs_in_between(
    orcdbg_run: RunProgram, words: list[str], stub: MachineStub
) -> None:
    """It ends where something else than the time stops the guest, as this one's breakpoint does, and says so."""
    status, out, err = orcdbg_run(*words, "--format", "json", "-e", "repeat -0.1,3 p/x $rip")
    first, stop = json.loads(out)["result"]["answers"]
    assert (status, err, first["values"][0]["value"]) == (0, "", "0xffffffff81277821")
    assert stop["reason"] == "breakpoint"
    assert asked(stub) == [b"vCont;c"]
    status, out, _ = orcdbg_run(*words, "-e", "repeat -5,1 p 1 + 1")
    assert (status, out) == (0, "$1 = 2\n")
    for wrong in ("repeat", "repeat -0 ps", "repeat repeat ps", "repeat no_such_word"):
        assert orcdbg_run(*words, "-e", wrong)[0] == 2
    status, _, err = orcdbg_run("demo", "-e", "repeat -1 ps")
    assert (status, "nothing changes" in err) == (2, True)


def test_too_much_is_refused(orcdbg_run: RunProgram, words: list[str]) -> None:
    """As are counts that are none."""
    assert orcdbg_run(*words, "-e", "step 1000000")[0] == 2
