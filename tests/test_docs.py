"""Do the documents say what the program does?

Every `console` block that begins with `$ orcdbg demo` is run and compared. `python -m tests.test_docs` writes the blocks,
and the man page's list of commands, anew after a change of the program that is meant.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import struct
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orcdbg import __version__
from orcdbg.base import errors
from orcdbg.cli.main import sample_files
from orcdbg.cli.options import parser as program_parser
from orcdbg.commands.gcore import UserCore
from orcdbg.commands.live import Stopped
from orcdbg.commands.local_variables import ShownVariable
from orcdbg.commands.log import AuditLog
from orcdbg.commands.mod import Modules
from orcdbg.commands.patch_audit import Audit
from orcdbg.commands.rd import MemoryFile
from orcdbg.commands.registry import Registry
from orcdbg.commands.repeat import Repeated
from orcdbg.commands.result import Nothing, TextLines
from orcdbg.commands.source_text import SourceText
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.trace import TraceFlags, TraceInstances, TraceListing
from orcdbg.commands.trace_file import TraceFile
from orcdbg.formats.dwarf_lines import SourceLine
from orcdbg.formats.elf import Section
from orcdbg.gdb.stops import GuestStop, StopReason
from orcdbg.image.source_position import Inlined, Position
from orcdbg.image.vmlinux import Image, open_source
from orcdbg.kernel.audit_queues import AuditMessage
from orcdbg.kernel.modules import Module
from orcdbg.patches.audit.account import AuditReport, Difference
from orcdbg.patches.build import Build
from orcdbg.patches.ledger import PatchLedger
from orcdbg.plugin import API_VERSION
from orcdbg.snapshot.opening import open_snapshot, recognise
from orcdbg.subsystems.ftrace.ring_buffer import BufferCounts
from orcdbg.subsystems.ftrace.traces import TraceRecord
from orcdbg.target.session import Session
from orcdbg.typed.values import Scalar, ScalarKind
from orcdbg.views.as_json import encode
from orcdbg.views.lines import position_json
from orcdbg.views.local_variables import variable_json
from tests.build.answers import RESULTS, made
from tests.conftest import RunProgram
from tests.made_kernel_memory import described_objects

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "samples/**/*.md", "plugins/**/*.md") for path in ROOT.glob(pattern)
)
# Not CONTRIBUTING.md, whose examples name files that a contributor would add.
PAGES = [path for path in DOCUMENTS if path.name == "README.md" or ROOT / "docs" in path.parents]
_BLOCK = re.compile(r"(?ms)^```(\w+)\n(.*?)^```$")
_MACHINE_PATH = re.compile(r"(?<![\w.~$}/])/(?:home|root|work|farm|tmp|mnt|srv|Users)/")
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
_SOURCE_FILE = re.compile(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`")
_OPTION = re.compile(r"`(--?[\w-]+)")
Json = dict[str, Any]


def read(name: str) -> str:
    """A document's text, by its name from the repository's top."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of a document's fenced blocks in one language."""
    return [body for found, body in _BLOCK.findall(text) if found == language]


def ids(paths: list[Path]) -> list[str]:
    """Names for test parameters."""
    return [str(path.relative_to(ROOT)) for path in paths]


# Output


def answered(block: str, program: Callable[[list[str]], str]) -> str:
    """A console block with what its commands print now; blocks of other programs stay as they are."""
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    if not all(line.startswith("$ orcdbg demo") for line in commands):
        return block
    return "".join(f"{line}\n{program(shlex.split(line)[2:])}" for line in commands)


def rewritten(text: str, program: Callable[[list[str]], str]) -> str:
    """A document with every console block as the program answers now."""

    def again(found: re.Match[str]) -> str:
        language, body = found.groups()
        return f"```{language}\n{answered(body, program) if language == 'console' else body}```"

    return _BLOCK.sub(again, text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids(DOCUMENTS))
def test_output_that_is_shown_is_the_programs(path: Path, orcdbg_run: RunProgram) -> None:
    """Character by character: the README's backtrace, the tutorial's listings."""
    text = path.read_text(encoding="utf-8")
    assert rewritten(text, lambda words: orcdbg_run(*words)[1]) == text


def test_the_readme_shows_the_backtrace() -> None:
    """The first thing that a reader sees is a real answer."""
    shown = next(block for block in blocks(read("README.md"), "console") if block.startswith("$ orcdbg demo -e bt\n"))
    assert "~#6 " in shown
    assert shown.rstrip().endswith("Ends at user registers.")


def run_block(code: str, name: str, names: dict[str, Any]) -> str:
    """Runs a Python block among `names`, and gives what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec", dont_inherit=True), names)
    return printed.getvalue()


def with_answers(text: str) -> str:
    """A page whose Python blocks are one program, with what that prints now in the text blocks that follow them."""
    names: dict[str, Any] = {"__name__": "library"}
    printed = ""

    def again(found: re.Match[str]) -> str:
        nonlocal printed
        language, body = found.groups()
        if language == "python":
            printed = run_block(body, "docs/library.md", names)
        return f"```{language}\n{printed if language == 'text' else body}```"

    return _BLOCK.sub(again, text)


def test_the_library_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks, one after another in one program; a text block after one is what it prints."""
    monkeypatch.chdir(ROOT)
    text = read("docs/library.md")
    assert len(blocks(text, "python")) >= 3
    assert with_answers(text) == text


def quoted() -> Iterator[tuple[str, str]]:
    """Code blocks that begin with `# path/of/a/file`: that path, and the rest."""
    for document in DOCUMENTS:
        for block in blocks(document.read_text(encoding="utf-8"), "python"):
            first, _, rest = block.partition("\n")
            if re.fullmatch(r"# [\w./]+\.py", first):
                yield first[2:], rest


def test_code_that_is_quoted_stands_in_the_file() -> None:
    """A block under a comment with a file's name is a piece of that file."""
    found = list(quoted())
    assert found
    for name, piece in found:
        assert piece.strip("\n") in read(name), name


# Commands and options


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The option words of a parser and of the parsers below it, without those for help."""
    words: set[str] = set()
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            words.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                words |= options_of(below)
    return words


def sections(text: str, heading: str) -> dict[str, str]:
    """The parts of a document under headings such as "### `bt`", by the words in the backticks."""
    parts = re.split(rf"(?m)^{heading} `([^`]+)`.*$", re.sub(r"(?m)^## (?!`).*$", f"{heading} `-`", text))
    return {name: body for name, body in zip(parts[1::2], parts[2::2], strict=True) if name != "-"}


def option_cells(section: str) -> set[str]:
    """Options in the first columns of a section's tables."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {word for row in rows for word in _OPTION.findall(row)}


def test_the_commands_page_has_exactly_the_commands(registry: Registry) -> None:
    """Each with its options and aliases, no more and no fewer, in the group where `help` shows it."""
    text = read("docs/commands.md")
    described = sections(text, "###")
    assert set(described) == set(registry.commands)
    for name, command in registry.commands.items():
        assert option_cells(described[name]) == options_of(command.parser()), name
        for alias in command.aliases:
            assert f"`{alias}`" in described[name], (name, alias)
        group = text[: text.index(f"### `{name}`")].rpartition("\n## ")[2].splitlines()[0]
        assert group == command.group.capitalize(), name


def test_the_man_page_has_exactly_the_programs_options() -> None:
    """Those of the command line, no more and no fewer."""
    terms = [line for line in read("docs/man.md").splitlines() if line.startswith("`-")]
    found = {word for line in terms for word in _OPTION.findall(line)}
    assert found - {"-h", "--help"} == options_of(program_parser())


_COMMANDS_OF_MAN = re.compile(r"(?s)(?<=\n## Commands\n\n).*?(?=`help COMMAND` explains one)")


def with_commands(text: str, registry: Registry) -> str:
    """The man page with the commands as they are declared: a line each, in the words and the order of `help`."""
    listed = (f"`{name}`\n: {command.summary}\n\n" for name, command in registry.commands.items())
    return _COMMANDS_OF_MAN.sub(lambda _: "".join(listed), text)


def test_the_man_page_lists_the_commands_as_they_are_declared(registry: Registry) -> None:
    """Its list is made from the declarations, by `python -m tests.test_docs`."""
    text = read("docs/man.md")
    assert "`quit`\n: leave orcdbg\n" in text
    assert with_commands(text, registry) == text


# The contract


def first_column(table: str) -> set[str]:
    """Names in backticks in the first column of the first table."""
    rows = re.search(r"(?m)(?:^\|.*\n)+", table)
    cells = [line.split("|")[1] for line in rows.group(0).splitlines()] if rows else []
    return {word for cell in cells for word in re.findall(r"`([\w-]+)`", cell)}


def _sample_module() -> Modules:
    return Modules([Module(0xFFFFFFFFC0000000, "m", ((0xFFFFFFFFC0000000, 8),), (0xFFFFFFFFC0000000, 8), None)], ())


def _sample_account(audit: Json) -> Json:
    """The fields of one text's account, without those that speak of modules."""
    return {name: value for name, value in audit.items() if not name.startswith("modules")}


def _inlined() -> Json:
    """A function inlined into another, which the sample, having no DWARF, cannot tell of."""
    at = SourceLine("a.h", 1)
    found: Json = position_json(Position(at, (Inlined("inner", at),), SourceLine("a.c", 2)))
    return dict(found["inlined"][0])


def _variable() -> Json:
    """A local variable, likewise."""
    value = Scalar(ScalarKind.INT, 1)
    return variable_json(ShownVariable("nr", "int nr", False, "inner", True, value, None, None, None, True))


def _sample_difference() -> Json:
    """A wrong stretch, which the sample has none of."""
    wrong = Difference(0xFFFFFFFF81000000, b"\x90", b"\xcc", b"\xc3", "kprobe")
    report = AuditReport(wrong.address, wrong.address + 1, mismatched=1, mismatched_ranges=[wrong])
    found: Json = encode(Audit(report, {"m": report}, {}, {}))
    assert set(found["modules"]["m"]) == set(_sample_account(found))
    return dict(found["mismatched"][0])


# Beside an object in docs/contract.md: the commands over the sample, of which the last answers, and the way to the object.
_FROM = re.compile(r"<!-- from: ([^>]*?)(?: -> ([\w.]+))? -->")


# The same where the sample has nothing to show: the type of a result that is made, and the way to the object.
_MADE = re.compile(r"<!-- made: (\w+)(?: -> ([\w.]+))? -->")


def _made_objects() -> dict[str, Json]:
    """The objects whose sections name the type of an answer."""
    by_name = {cls.__name__: cls for cls in RESULTS}
    found = {}
    for name, section in sections(read("docs/contract.md"), "####").items():
        if (match := _MADE.search(section)) is not None:
            cls, way = match.groups()
            keys = [int(key) if key.isdigit() else key for key in (way or "").split(".") if key]
            found[name] = _follow(encode(made(by_name[cls])), keys)
    return found


def _ways() -> dict[str, tuple[str, list[str | int]]]:
    """The objects whose sections say how to get one."""
    found = {}
    for name, section in sections(read("docs/contract.md"), "####").items():
        if (match := _FROM.search(section)) is not None:
            commands, way = match.groups()
            found[name] = commands, [int(key) if key.isdigit() else key for key in (way or "").split(".") if key]
    return found


def _answer(run: RunProgram, commands: str) -> Json:
    """What the last of some commands over the sample says."""
    words = (word for one in commands.split("; ") for word in ("-e", one))
    found: Json = json.loads(run("demo", "--format", "json", *words)[1].splitlines()[-1])
    return found


def _trace_objects() -> dict[str, Json]:
    """Those of `trace`, which the sample has no memory for."""
    record = TraceRecord(1, 0, 1, "init", 0, 0, "sched_switch", "sched", "text")
    flags = TraceFlags(*(1 << bit for bit in range(8)))
    listing = TraceListing("global", "nop", "local", True, flags, [record], [BufferCounts(0, 3, 1, 0, 0)], ())
    names = encode(TraceInstances([("global", "nop", 2)], ()))
    found = encode(listing)
    file = encode(TraceFile("trace.dat", "global", 8192, [(0, 1)], 1, ()))
    return {
        "TRACEFILE": file,
        "TRACEFILECPU": file["records"][0],
        "TRACE": found,
        "TRACECOUNTS": found["counts"][0],
        "TRACERECORD": found["records"][0],
        "TRACES": names,
        "TRACENAME": names["traces"][0],
    }


def _follow(answer: Json, way: Iterable[str | int]) -> Json:
    """A part of an answer."""
    found: Any = answer
    for key in way:
        found = found[key]
    return dict(found)


@pytest.fixture
def objects(orcdbg_run: RunProgram, tmp_path: Path) -> dict[str, Json]:
    """A real object for each that docs/contract.md describes, by the name it has there."""
    audit_command, replay_command = "patch audit", f"patch replay -o {tmp_path}/text.elf"
    ways = _ways()
    wanted = dict.fromkeys([audit_command, replay_command, *(commands for commands, _ in ways.values())])
    answers = {commands: _answer(orcdbg_run, commands) for commands in wanted}
    found = {name: _follow(answers[commands], way) for name, (commands, way) in ways.items()}
    audit, modules = answers[audit_command]["result"], encode(_sample_module())
    account = _sample_account(audit)
    return (
        found
        | _made_objects()
        | described_objects()
        | {
            "INLINED": _inlined(),
            "VARIABLE": _variable(),
            "SOURCETEXT": encode(SourceText(SourceLine("a.c", 1), 1, ["text"], None, None, None, ())),
            "AUDIT": {name: value for name, value in audit.items() if name not in account},
            "ACCOUNT": account,
            "COUNT": account["by_mechanism"]["paravirt"],
            "DIFFERENCE": _sample_difference(),
            "REPLAY": answers[replay_command]["result"],
            "RAWFILE": encode(MemoryFile(0xFFFFFFFF81000000, 8, "file")),
            **_trace_objects(),
            "USERCORE": encode(UserCore("core.1", 1, 1, 4096, 4096, {"swapped": 1}, ())),
            "AUDITLOG": encode(AuditLog([], ())),
            "AUDITMESSAGE": encode(AuditLog([AuditMessage("audit_queue", 1300, "text")], ()))["messages"][0],
            "MODULES": modules,
            "MODULE": modules["modules"][0],
            "RANGE": modules["modules"][0]["ranges"][0],
            "STOPPED": encode(Stopped(GuestStop(StopReason.BREAKPOINT, 0, 0xFFFFFFFF81000000), None, None)),
            "REPEATED": encode(Repeated(iter([TextLines(["a line"])]))),
            "LINES": encode(TextLines(["a line"])),
        }
    )


def test_the_contract_names_every_field_and_no_other(objects: dict[str, Json]) -> None:
    """In both directions: a field that the program adds is described, one that is described is there."""
    described = sections(read("docs/contract.md"), "####")
    assert set(described) == set(objects)
    for name, found in objects.items():
        assert first_column(described[name]) == set(found), name


def test_a_command_without_an_answer_gives_an_empty_object() -> None:
    """As the contract says of `set NAME VALUE`."""
    assert encode(Nothing()) == {}


def test_the_contract_names_every_kind_of_error() -> None:
    """With the exit status that goes with it."""
    kinds = {cls.kind: cls.exit_status for cls in _classes(errors.OrcdbgError)}
    rows = dict(re.findall(r"(?m)^\| `([\w-]+)` +\| (\d) +\|", read("docs/contract.md")))
    assert {name: int(status) for name, status in rows.items()} == kinds


def _classes(cls: type[errors.OrcdbgError]) -> Iterator[type[errors.OrcdbgError]]:
    """An error class and those below it; tests and plug-ins may have more."""
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _classes(below)


def test_the_pages_name_every_mechanism(orcdbg_run: RunProgram) -> None:
    """docs/patches.md in its table and the contract in its list: all that the code has, and those of the sample's account."""
    known = {
        word
        for path in (ROOT / "orcdbg" / "patches").rglob("*.py")
        for word in re.findall(r'(?m)^ {4}mechanism = "([\w-]+)"$', path.read_text(encoding="utf-8"))
    }
    assert "kprobe" in known
    audit = json.loads(orcdbg_run("demo", "--format", "json", "-e", "patch audit")[1])["result"]
    known |= set(audit["by_mechanism"])
    described = sections(read("docs/patches.md").replace("## The mechanisms", "### `the mechanisms`"), "###")
    assert known - {"relocation"} <= first_column(described["the mechanisms"]) - {"relocation"}
    listed = sections(read("docs/contract.md"), "####")["COUNT"].partition("Mechanisms: ")[2]
    assert set(re.findall(r"`([\w-]+)`", listed)) == first_column(described["the mechanisms"])


# Examples for contributors and authors of plug-ins


class ImageWithMarks(Image):
    """The sample's image with the table of the example, which names one link address."""

    def __init__(self, site: int) -> None:
        super().__init__(open_source(sample_files()[0]))
        self._site = site
        self.section = Section(".marked_sites", 1, 2, site - 0x1000, 0, 4, 0, 0, 0)

    def find_section(self, name: str) -> Section | None:
        """The file's sections and the table."""
        return self.section if name == self.section.name else super().find_section(name)

    def section_data(self, name: str) -> bytes:
        """Likewise."""
        return struct.pack("<i", 0x1000) if name == self.section.name else super().section_data(name)


def test_the_contributors_examples_work(sample: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mechanism of CONTRIBUTING.md, on the sample, and its snapshot format, on a file; its command is quoted from files."""
    # The format's two files import each other by names that only a contributor's tree has.
    module = types.ModuleType("orcdbg.formats.page_save")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names: dict[str, Any] = module.__dict__
    for block in blocks(read("CONTRIBUTING.md"), "python"):
        if not block.startswith("# "):
            run_block(block, "CONTRIBUTING.md", names)
    site = int(sample.linux.address("schedule"))
    image = ImageWithMarks(site - sample.slide)
    build = Build(image, sample.linux, sample.built, sample.features)
    assert names["MARKED"].tables == (image.section.name,)
    ledger = PatchLedger(names["MARKED"].make(build, ()), sample.built)
    cluster = ledger.find(site)
    assert cluster is not None
    assert (cluster.expected, cluster.sites[0].decided_by) == (b"\xcc", "the kernel always does it")

    page, address = b"x" * 4096, 0x5000
    file = tmp_path / "saved"
    file.write_bytes(b"PAGESAVE" + struct.pack("<QQ", 1, address) + page)
    snapshot = recognise(str(file), [names["READER"]])
    assert snapshot is not None
    assert open_snapshot([snapshot]).physical.read(address, len(page)) == page


def test_the_plug_in_page_names_the_current_interface() -> None:
    """Version and every name that a plug-in may import."""
    text = read("docs/plugins.md")
    from orcdbg import plugin

    assert f"API {API_VERSION[0]}.{API_VERSION[1]}" in text
    for name in plugin.__all__:
        assert f"`{name}`" in text, name


# All documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids(DOCUMENTS))
def test_documents_name_no_place_of_one_machine(path: Path) -> None:
    """Neither where this copy lies nor anybody's home."""
    text = path.read_text(encoding="utf-8")
    assert _MACHINE_PATH.findall(text) == []
    assert str(ROOT) not in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids(DOCUMENTS))
def test_links_lead_somewhere(path: Path) -> None:
    """Relative ones, to files of the repository."""
    text = path.read_text(encoding="utf-8")
    for target in _LINK.findall(re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", text)):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_the_source_files_that_pages_name_are_there(path: Path) -> None:
    """Whether a page names them from the repository's top or from the folder `orcdbg`."""
    for name in _SOURCE_FILE.findall(path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists() or (ROOT / "orcdbg" / name).exists(), name


def test_every_page_and_decision_is_in_an_index() -> None:
    """docs/index.md lists the pages, docs/adr/index.md the decisions; no two have one number."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {page for page in pages if f"\n{page}\n" not in read("docs/index.md")} == set()
    decisions = sorted(path.stem for path in (ROOT / "docs" / "adr").glob("0*.md"))
    assert len({name[:4] for name in decisions}) == len(decisions)
    assert [name for name in decisions if f"\n{name}\n" not in read("docs/adr/index.md")] == []


def test_the_changelog_keeps_its_form() -> None:
    """Keep a Changelog: what is not released yet stands first."""
    headings = re.findall(r"(?m)^## (.*)$", read("CHANGELOG.md"))
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def _program(words: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "orcdbg", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def main() -> None:
    """Writes the documents' listings anew."""
    os.chdir(ROOT)
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        made = rewritten(text, _program)
        if path == ROOT / "docs" / "library.md":
            made = with_answers(made)
        if path == ROOT / "docs" / "man.md":
            made = with_commands(made, standard_commands())
        if made != text:
            path.write_text(made, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
