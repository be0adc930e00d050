"""dis: where a listing ends, addresses that are no instruction's, and bytes that nobody is known to have changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orcdbg
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.dis import Disassembly
from orcdbg.commands.instructions import Account, disassemble
from orcdbg.commands.standard import standard_commands
from orcdbg.target.session import Session
from tests.build.sample import changed_core
from tests.conftest import RunProgram

FUNCTIONS = ("do_idle", "lock_is_held_type", "schedule", "__schedule", "delay_tsc")


def dis(session: Session, words: str) -> Disassembly:
    """The command's answer."""
    answer = standard_commands().run(Debugger(session), f"dis {words}")
    assert isinstance(answer, Disassembly)
    return answer


def test_the_instructions_up_to_an_address_end_there(sample: Session) -> None:
    """However many are asked for: those of the next function are not among them."""
    start = sample.linux.address("do_idle")
    whole = [line.address for line in dis(sample, "-r do_idle+0x26").instructions]
    assert (whole[0], whole[-1]) == (start, start + 0x26)
    assert [line.address for line in dis(sample, "-r do_idle+0x26 3").instructions] == whole[-3:]
    assert [line.address for line in dis(sample, "-r do_idle+0x26 1000").instructions] == whole
    assert [line.address for line in dis(sample, "-r do_idle 5").instructions] == [start]


def test_an_address_in_the_middle_of_an_instruction_is_named(sample: Session) -> None:
    """Each address of a function: of an instruction's own nothing is said, of all others which holds them."""
    place = sample.names.at(sample.linux.address("do_idle"))
    assert place is not None
    starts = [line.address for line in disassemble(sample, place.start, place.start + 0x60, None)]
    for address in range(starts[0], starts[-1]):
        problems = dis(sample, f"{address:#x} 1").problems
        if address in starts:
            assert not problems
        else:
            holder = max(start for start in starts if start < address)
            name = f"do_idle+{holder - place.start:#x}/"
            assert len(problems) == 1
            assert f"{address:#x} is in the middle of the instruction at {name}" in problems[0]


def test_bytes_that_no_patch_explains_are_marked(tmp_path: Path, sample: Session, orcdbg_run: RunProgram) -> None:
    """One beside all patches, and one in a patch's place; of the sample as it is none is marked."""
    for name in FUNCTIONS:
        found = Counter(line.account for line in dis(sample, name).instructions)
        assert set(found) <= {Account.AS_BUILT, Account.PATCHED}, (name, found)
        assert found[Account.AS_BUILT] > 3

    ftrace = sample.linux.address("do_idle")
    push = ftrace + 9
    patches = {sample.memory.translate(push): b"\x90", sample.memory.translate(ftrace): b"\xcc"}
    core = changed_core(tmp_path / "core", patches=patches)
    damaged = orcdbg.open(sample_files()[0], core)
    accounts = {line.address: line.account for line in dis(damaged, "do_idle").instructions}
    assert accounts[ftrace] is Account.MISMATCHED
    assert accounts[push] is Account.UNEXPLAINED
    wrong = {address for address, account in accounts.items() if account not in (Account.AS_BUILT, Account.PATCHED)}
    assert wrong <= set(range(ftrace, ftrace + 5)) | {push, push + 1}

    for option in ("", "--diff "):
        _, text, _ = orcdbg_run("--color", "never", sample_files()[0], core, "-e", f"dis {option}do_idle 12")
        marked = [line for line in text.splitlines() if line.startswith("!")]
        assert any(f"{push:x}" in line and "not as built, by no known patch" in line for line in marked), text
        assert any(f"{ftrace:x}" in line and "not what the patches here would have left" in line for line in marked), (
            text
        )
