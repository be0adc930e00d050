"""Do the parts of the lab hold that need neither network nor emulator: formats written, text read back, and steps?"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orcdbg.target.session import Session
from tests.build.stub import MachineStub, StubServer, answering
from tests.lab import deaths, initramfs, program, scripts, tallies
from tests.lab.apt import Unavailable, find_mirror, parse_deb822, parse_one_line
from tests.lab.boots import BOOTS, DEADLY
from tests.lab.busy import GuestDied, death_behind, on_a_living_guest
from tests.lab.conftest import CHOSEN_BOOTS
from tests.lab.damage import Account
from tests.lab.failures import Difference
from tests.lab.gdbstub import GdbStub, StubError, WaitsForInterrupt
from tests.lab.guest import Guest, Machine
from tests.lab.loads import Load, loads
from tests.lab.shares import packed, unpack

STANZAS = """# a comment
Types: deb deb-src
# URIs: http://commented.example/debian
URIs: http://one.example/debian
 http://two.example/debian
Suites: stable

Types: deb-src
URIs: http://sources.example/debian

Types: deb
Enabled: no
URIs: http://disabled.example/debian
"""
CONSOLE = """\r
ROUND 1\r
STACKBEGIN 7 7 a b\r
[<0>] f+0x1/0x2 [m]\r
[<0>] g+0x1/0x2\r
STACKEND\r
STACKBEGIN 8 9 sleep\r
[<0>] f+0x1/0x2\r
STACKEND\r
ROUNDEND\r
ROUND 2\r
STACKBEGIN 7 7 a b\r
[<0>] f+0x1/0x2 [m]\r
[<0>] g+0x1/0x2\r
STACKEND\r
STACKBEGIN 8 9 sleep\r
[<0>] h+0x1/0x2\r
STACKEND\r
ROUNDEND\r
ROUND 3\r
STACKBEGIN 7 7 a b\r
"""


def test_stanza_uris_are_those_of_enabled_binary_sources() -> None:
    """Comments, sources only and disabled stanzas name no mirror."""
    assert list(parse_deb822(STANZAS)) == ["http://one.example/debian", "http://two.example/debian"]


def test_one_line_uris_stand_after_options() -> None:
    """Options in brackets, source lines and comments are passed over."""
    text = "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian stable main\ndeb-src http://two.example/ x y\n#deb z"
    assert list(parse_one_line(text)) == ["http://one.example/debian"]


def test_the_mirror_is_a_debian_archive_of_this_machine(tmp_path: Path) -> None:
    """Third parties' sources, and the security archive, are not taken for the Debian archive."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://other.example/node_20.x x main\n")
    with pytest.raises(Unavailable):
        find_mirror(tmp_path)
    security = "deb http://one.example/debian-security x main\n"
    (tmp_path / "sources.list.d" / "a.list").write_text(security + "deb http://two.example/debian x main\n")
    assert find_mirror(tmp_path) == "http://two.example/debian"


def test_a_cpio_archive_has_every_name_and_every_byte() -> None:
    """Each member starts on a multiple of four, and the trailer ends the archive."""
    archive = initramfs.encode_cpio([initramfs.Entry("a/b", 0o100644, b"12345")])
    assert len(archive) % 4 == 0
    assert archive.count(b"070701") == 2
    assert archive[54:62] == b"00000005"
    assert archive[110:116] == b"a/b\0\0\0"
    assert archive[116:124] == b"12345\0\0\0"
    assert archive.endswith(b"TRAILER!!!\0\0\0\0")


def test_modules_load_after_what_they_need(tmp_path: Path) -> None:
    """Dependencies come from the modules themselves; an unknown name is left out."""
    (tmp_path / "a-b.ko").write_bytes(b"\0depends=c,d\0")
    (tmp_path / "c.ko").write_bytes(b"\0depends=d\0")
    (tmp_path / "d.ko").write_bytes(b"\0depends=\0")
    assert list(initramfs.load_order(tmp_path, ["a_b", "none"])) == ["d", "c", "a_b"]


def test_a_written_program_makes_its_calls(tmp_path: Path) -> None:
    """The second call gets the first one's result: dup(1) is exited with."""
    path = tmp_path / "program"
    path.write_bytes(program.build_program([(32, 1), (60, program.PREVIOUS)]))
    path.chmod(0o755)
    assert 3 <= subprocess.run([str(path)], stdout=subprocess.DEVNULL, timeout=10, check=False).returncode < 30


def test_only_tasks_that_stood_still_count() -> None:
    """A task seen at two places moved; an unfinished round is no round."""
    still, moved = scripts.still_and_moved(scripts.parse_rounds(CONSOLE), lambda comm: True)
    assert still[7].frames == ("f+0x1/0x2 [m]", "g+0x1/0x2")
    assert (list(still), list(moved), moved[9].comm) == ([7], [9], "sleep")


class CodeStub(MachineStub):
    """The sample's machine with other code at every address, of which the first `size` bytes can be read."""

    def __init__(self, sample: Session, code: bytes, size: int) -> None:
        super().__init__(sample.snapshot)
        self._code = code
        self._size = size

    def answer(self, question: bytes) -> bytes | None:
        """As the machine does, and rip alone (register 16); code is read by virtual addresses only."""
        if question == b"p10":
            self.log.append(question)
            return (0x1000).to_bytes(8, "little").hex().encode()
        if question.startswith(b"P10="):
            self.log.append(question)
            return b"OK"
        if question.startswith(b"m") and not self.physical:
            self.log.append(question)
            size = int(question.partition(b",")[2], 16)
            return self._code[:size].hex().encode() if size <= self._size else b"E14"
        return super().answer(question)


@contextmanager
def stub_at(sample: Session, folder: Path, code: bytes, size: int = 15) -> Iterator[tuple[GdbStub, list[bytes]]]:
    """A client of a machine whose next instruction is `code`, and what it asks."""
    machine = CodeStub(sample, code, size)
    with StubServer(folder, answering(machine.answer)) as server, GdbStub(server.path) as stub:
        yield stub, machine.log


@pytest.mark.parametrize("is_physical", [False, True])
@pytest.mark.parametrize("size", [3, 2])
def test_a_step_at_pause_goes_past_it_and_no_further(
    sample: Session, tmp_path: Path, is_physical: bool, size: int
) -> None:
    """QEMU would run the next instruction too; so also at a page's end, and while memory is read by physical addresses."""
    with stub_at(sample, tmp_path, b"\xf3\x90\x50", size) as (stub, log):
        if is_physical:
            stub.read_physical_memory()
        stub.step()
        assert b"P10=0210000000000000" in log
        assert not any(question.startswith(b"vCont;s") for question in log)
        assert stub.pauses == 1
        modes = [question for question in log if question.startswith(b"Qqemu")]
        assert modes == [b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0", b"Qqemu.PhyMemMode:1"] * is_physical


@pytest.mark.parametrize("code", [b"\xf4\xc3\xcc", b"\x0f\x01\xc9"])
def test_a_step_at_hlt_and_mwait_is_refused(sample: Session, tmp_path: Path, code: bytes) -> None:
    """No interrupt comes while a guest is stepped, so it would stand there."""
    with stub_at(sample, tmp_path, code) as (stub, log):
        with pytest.raises(WaitsForInterrupt, match="0x1000"):
            stub.step()
        assert not any(question.startswith((b"vCont;s", b"P")) for question in log)


@pytest.mark.parametrize(("code", "size"), [(b"\x90\xf3\x90", 15), (b"\x0f\x01\xca", 15), (b"", 0)])
def test_any_other_step_is_one_of_one_cpu(sample: Session, tmp_path: Path, code: bytes, size: int) -> None:
    """So too where the code cannot be read: the guest raises its page fault."""
    with stub_at(sample, tmp_path, code, size) as (stub, log):
        stub.step()
        assert log.count(b"vCont;s:1") == 1
        assert stub.pauses == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("488b4308", [Load(0x2008, 8)]),  # mov 0x8(%rbx),%rax
        ("488d4308", []),  # lea 0x8(%rbx),%rax
        ("0f1f4000", []),  # nopl 0x0(%rax)
        ("658b0510000000", [Load(0x1017 + 0x70000, 4)]),  # mov %gs:0x10(%rip),%eax
        ("65488b04ca", [Load(0x3000 + 8 * 5 + 0x70000, 8)]),  # mov %gs:(%rdx,%rcx,8),%rax
        ("f0480fc103", [Load(0x2000, 8, True)]),  # lock xadd %rax,(%rbx)
        ("65ff0b", [Load(0x72000, 4, True)]),  # decl %gs:(%rbx)
        ("48a5", [Load(0x5000, 8, True), Load(0x4000, 8)]),  # movsq: also what it only writes
        ("488903", [Load(0x2000, 8, True)]),  # mov %rax,(%rbx), which only writes
        ("5b", [Load(0x6000, 8)]),  # pop %rbx
        ("c3", [Load(0x6000, 8)]),  # ret
        ("c9", [Load(0x7000, 8)]),  # leave
        ("ff1425b0146382", [Load(0xFFFFFFFF826314B0, 8)]),  # call *0xffffffff826314b0
        ("678b00", []),  # mov (%eax),%eax, whose address has 32 bits
        ("06", []),  # no instruction
    ],
)
def test_the_loads_of_an_instruction_are_named(code: str, expected: list[Load]) -> None:
    """By registers before it and the CPU's own base, what it pops too; nothing is guessed."""
    registers = {"rip": 0x1000, "rax": 1, "rbx": 0x2000, "rcx": 5, "rdx": 0x3000, "rsi": 0x4000, "rdi": 0x5000}
    registers |= {"rsp": 0x6000, "rbp": 0x7000}
    assert loads(bytes.fromhex(code), registers, 0x70000) == expected


def test_no_boot_is_drawn_that_kills_its_guest() -> None:
    """Each of them is a boot that there is."""
    assert not set(CHOSEN_BOOTS) & set(DEADLY)
    assert {how for _, how in DEADLY} <= set(BOOTS)


@pytest.fixture
def deaths_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not told at the run's end."""
    monkeypatch.setattr(deaths, "DEATHS", [])


@pytest.mark.usefixtures("deaths_of_this_test")
def test_what_several_processes_counted_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaths, tallies and damage; the run had guests where one of its processes had."""
    monkeypatch.setattr(tallies, "TALLIES", {})
    monkeypatch.setattr(tallies, "DAMAGE", {})
    deaths.note_death("6.1 idle", "no kernel")
    tallies.TALLIES["6.1 busy"] = tallies.Tally(stops=3, doubts=Counter({"a doubt": 2}))
    tallies.DAMAGE["6.1"] = Account(named=Counter({"6.1": 5}))
    first, second = packed(True), packed(False)

    deaths.DEATHS.clear()
    tallies.TALLIES.clear()
    tallies.DAMAGE.clear()
    assert unpack(first)
    assert not unpack(second)

    assert deaths.DEATHS == [("6.1 idle", "no kernel")] * 2
    assert tallies.TALLIES["6.1 busy"].stops == 6
    assert tallies.TALLIES["6.1 busy"].doubts == {"a doubt": 4}
    assert tallies.DAMAGE["6.1"].named == {"6.1": 10}


@pytest.mark.usefixtures("deaths_of_this_test")
def test_work_on_a_guest_that_dies_begins_anew_and_is_counted() -> None:
    """As often as guests are booted; then the test is skipped, with the last reason."""
    tries = list[int]()

    @on_a_living_guest
    def work(until: int) -> None:
        tries.append(until)
        if len(tries) < until:
            raise GuestDied("6.12", f"Kernel panic {len(tries)}")

    work(3)
    assert len(tries) == 3
    told = list(deaths.account_of_deaths())
    assert told == ["2 guests died and were begun anew", "  6.12: Kernel panic 1", "  6.12: Kernel panic 2"]

    tries.clear()
    with pytest.raises(pytest.skip.Exception, match="Kernel panic 3"):
        work(9)


def test_what_a_test_finds_wrong_is_not_begun_anew() -> None:
    """The first failure stands."""
    tries = list[int]()

    @on_a_living_guest
    def work() -> None:
        tries.append(1)
        raise Difference("rip")

    with pytest.raises(Difference):
        work()
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("error", "is_dead"),
    [(AssertionError(), True), (StubError("gone"), True), (Difference("rip"), False)],
)
@pytest.mark.parametrize("console", ["BUSY\n", "BUSY\n[   1.0] Kernel panic - not syncing: x\n"])
def test_only_a_guest_that_has_panicked_stands_behind_an_error(
    tmp_path: Path, error: Exception, is_dead: bool, console: str
) -> None:
    """And never behind a difference between two CPUs that ran the same instructions."""
    guest = Guest(Machine(tmp_path, tmp_path), tmp_path / "serial")
    try:
        guest.serial.write_text(console)
        has_panicked = "panic" in console
        assert (death_behind(error, guest) is not None) == (is_dead and has_panicked)
    finally:
        guest.close()
