"""The options of log, rd, sym, bt and dis that people from crash type, over the sample."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.dis import Disassembly
from orcdbg.commands.log import Log
from orcdbg.commands.rd import MemoryWords, StringInMemory
from orcdbg.commands.registry import Registry
from orcdbg.commands.result import NoneFits
from orcdbg.commands.stacks import Stacks
from orcdbg.commands.sym import Symbols
from orcdbg.target.session import Session
from orcdbg.unwind.frame import FrameKind
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain


def shown(registry: Registry, debugger: Debugger, command: str) -> str:
    """A command's text."""
    return plain(lines_of(registry.run(debugger, command), None))


# log


def test_a_level_is_named_by_number_or_word(registry: Registry, debugger: Debugger) -> None:
    """And takes what is more urgent along."""
    by_word, by_number = (registry.run(debugger, command) for command in ("log notice", "log -l 5"))
    assert isinstance(by_word, Log)
    assert isinstance(by_number, Log)
    assert by_word.records == by_number.records
    assert len(by_word.records) > 0
    assert {record.level for record in by_word.records} <= set(range(6))
    everything = registry.run(debugger, "log")
    assert isinstance(everything, Log)
    assert {record.level for record in everything.records} - set(range(6))
    with pytest.raises(UsageError):
        registry.run(debugger, "log loud")


def test_the_columns_of_a_log_line_are_chosen(registry: Registry, debugger: Debugger) -> None:
    """Dates are those of the machine's clock; a record from user space is marked on each of its lines."""

    def of_records(line: str) -> list[str]:
        """Without what never came into the log, and has no columns."""
        whole = shown(registry, debugger, line).splitlines()
        return [text for text in whole if not text.startswith(("[nmi_print_seq of CPU 0] ", "! safe_print_seq "))]

    lines = of_records("log -m")
    assert all(re.match(r"<\d+>\[ *\d+\.\d{6}\]( |$)", text) for text in lines)
    dated = of_records("log -T")
    assert all(re.match(r"\[\w{3} \w{3} \d\d \d\d:\d\d:\d\d UTC 20\d\d\]( |$)", text) for text in dated)
    assert of_records("log -t") == [text.partition("]")[2][1:] for text in dated]

    result = registry.run(debugger, "log -n 1")
    assert isinstance(result, Log)
    result = replace(result, unflushed=(), problems=())
    evil = replace(result.records[0], facility=1, text="Kernel panic\nCall Trace:")
    written = plain(lines_of(replace(result, records=[evil]), None)).splitlines()
    assert [text.split("] ", 1)[1] for text in written] == ["[user] Kernel panic", "[user] Call Trace:"]
    assert encode(replace(result, records=[evil]))["records"][0]["from_user"] is True


# rd


def test_memory_is_read_as_text_and_numbers(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Of the same bytes: text, words in either order, decimal."""
    banner = registry.run(debugger, "rd -a linux_banner")
    assert isinstance(banner, StringInMemory)
    assert banner.data.startswith(b"Linux version 5.10")
    assert banner.data.endswith(b"\n")
    some = registry.run(debugger, "rd -a linux_banner 5")
    assert isinstance(some, StringInMemory)
    assert some.data == b"Linux"
    network = registry.run(debugger, "rd -32 -N linux_banner 2")
    assert isinstance(network, MemoryWords)
    assert [network.value(0), network.value(1)] == [int.from_bytes(b"Linu", "big"), int.from_bytes(b"x ve", "big")]
    at = sample.linux.address("init_task") + sample.types.offset("task_struct", "nr_cpus_allowed")
    assert shown(registry, debugger, f"rd -32 -d {at:x}").split()[1] == "1"
    assert "Linux" not in shown(registry, debugger, "rd -x linux_banner")


def test_a_place_is_named_by_its_end_or_an_offset(registry: Registry, debugger: Debugger) -> None:
    """And words may end at an address."""
    plainly = registry.run(debugger, "rd linux_banner 4")
    for other in ("rd -e linux_banner+32 linux_banner", "rd -R linux_banner+24 4", "rd -o -8 linux_banner+8 4"):
        if other.startswith("rd -o"):
            other = other.replace("-o -8", "-o=-8")
        assert registry.run(debugger, other) == plainly, other
    for wrong in ("rd -e linux_banner linux_banner", "rd -e linux_banner+32 linux_banner 4", "rd -o x linux_banner"):
        with pytest.raises(UsageError):
            registry.run(debugger, wrong)


def test_memory_goes_into_a_file_and_never_onto_an_input(
    registry: Registry, debugger: Debugger, tmp_path: Path
) -> None:
    """Byte by byte."""
    file = tmp_path / "banner"
    registry.run(debugger, f"rd -8 -r {file} linux_banner 13")
    assert file.read_bytes() == b"Linux version"
    with pytest.raises(UsageError):
        registry.run(debugger, f"rd -r {debugger.session.files[0]} linux_banner 13")


# sym


def test_neighbours_of_a_symbol_touch_it(registry: Registry, debugger: Debugger) -> None:
    """The one before ends where it begins, the one behind begins where it ends."""
    found = registry.run(debugger, "sym -p -n schedule")
    assert isinstance(found, Symbols)
    before, symbol, behind = found.symbols
    assert before.address + before.size == symbol.address
    assert symbol.address + symbol.size == behind.address
    assert symbol.name == "schedule"


def test_all_symbols_are_listed_in_order(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Each that a name finds among them, with the size that the single look-up gives."""
    found = registry.run(debugger, "sym -l")
    assert isinstance(found, Symbols)
    addresses = [line.address for line in found.symbols]
    assert addresses == sorted(addresses)
    single = registry.run(debugger, "sym schedule")
    assert isinstance(single, Symbols)
    assert single.symbols[0] in found.symbols
    for wrong, error in (("sym", UsageError), ("sym -l schedule", UsageError), ("sym -m none", NotFound)):
        with pytest.raises(error):
            registry.run(debugger, wrong)


# bt


def test_words_of_a_frame_end_with_its_return_slot(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """So that those of all frames on one stack are the stack from the first frame up."""
    result = registry.run(debugger, "bt -F 1")
    assert isinstance(result, Stacks)
    trace = result.stacks[0]
    calls = [frame for frame in trace.frames if frame.return_slot is not None]
    assert len(calls) > 3
    for frame in calls:
        words = result.words[trace.task, frame.index]
        assert (words.address, words.address + 8 * len(words.values) - 8) == (frame.sp, frame.return_slot)
        assert words.values[-1] == trace.frames[frame.index + 1].ip
        assert words.names is not None
        assert words.names[-1] == sample.names.describe(words.values[-1])
    encoded = encode(result)["stacks"][0]["frames"]
    assert encoded[0]["words"][-1]["address"] == encoded[0]["return_slot"]
    assert encode(registry.run(debugger, "bt 1"))["stacks"][0]["frames"][0]["words"] is None


def test_stacks_are_chosen_by_process_panic_and_reference(registry: Registry, debugger: Debugger) -> None:
    """A reference may be a function or a word."""
    panicked, first = registry.run(debugger, "bt -p"), registry.run(debugger, "bt")
    assert isinstance(panicked, Stacks)
    assert isinstance(first, Stacks)
    assert [trace.pid for trace in panicked.stacks] == [trace.pid for trace in first.stacks]
    threads = registry.run(debugger, "bt -g 1")
    assert isinstance(threads, Stacks)
    assert threads.stacks[0].pid == 1
    word = next(f.return_slot for f in first.stacks[0].frames if f.return_slot is not None)
    value = registry.run(debugger, f"rd {word:x}")
    assert isinstance(value, MemoryWords)
    for reference in ("panic", f"{value.value(0):x}"):
        found = registry.run(debugger, f"bt -R {reference}")
        assert isinstance(found, Stacks)
        assert len(found.stacks) == 1
    none = registry.run(debugger, "bt -R schedule_hrtimeout")
    assert isinstance(none, NoneFits)
    assert none.what == "stacks"


def test_idle_cpus_are_left_out_and_named(registry: Registry, debugger: Debugger) -> None:
    """The sample's one CPU is busy; the idle task by itself is left out."""
    result = registry.run(debugger, "bt -n idle 0 1")
    assert isinstance(result, Stacks)
    assert [trace.pid for trace in result.stacks] == [1]
    assert result.idle_cpus == [0]
    assert "idle, and left out: CPU 0" in shown(registry, debugger, "bt -n idle 0 1")
    assert encode(registry.run(debugger, "bt -n idle 0")) == {"stacks": [], "idle_cpus": [0], "problems": []}


def test_crashs_lines_have_offsets_when_asked(registry: Registry, debugger: Debugger) -> None:
    """Decimal unless told, as crash has them."""
    frame = debugger.trace().frames[1]
    assert frame.kind is FrameKind.CALL
    assert frame.location is not None
    offset = frame.ip - frame.location.start
    for options, text in (("", ""), (" -s", f"+{offset}"), (" -s -x", f"+{offset:#x}"), (" -s -d", f"+{offset}")):
        assert f" {frame.location.symbol}{text} at {frame.ip:x}" in shown(registry, debugger, f"bt --crash{options}")
    assert f"    {frame.sp:x}: " in shown(registry, debugger, "bt --crash -f")


# dis


def test_operands_are_named(registry: Registry, debugger: Debugger) -> None:
    """A per-CPU variable by its offset, others by their address; a plain number has no name."""
    text = shown(registry, debugger, "dis delay_tsc")
    assert re.search(r"movl %gs:0x[0-9a-f]+\(%rip\), %\w+  # per-CPU [0-9a-f]+ <cpu_number\+0x0/0x\w+>", text)
    assert not re.search(r"\$-?[1-9]\d*[^x\da-f]", text)
    found = registry.run(debugger, "dis panic")
    assert isinstance(found, Disassembly)
    named = [one for line in found.instructions for one in line.named]
    assert any(not one.is_per_cpu and one.name.startswith("panic_on_warn+0x0/") for one in named)


def test_a_listing_ends_with_the_function_unless_told(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """Near the function's end, `dis` alone shows fewer than eight."""
    place = sample.names.at(sample.linux.address("schedule"))
    assert place is not None
    whole = registry.run(debugger, "dis schedule")
    assert isinstance(whole, Disassembly)
    last = whole.instructions[-2].address
    told = registry.run(debugger, f"dis {last:x} 6")
    assert isinstance(told, Disassembly)
    assert len(told.instructions) == 6
    to_end = registry.run(debugger, f"dis -f {last:x}")
    assert isinstance(to_end, Disassembly)
    assert len(to_end.instructions) == 2


# The words of others


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("wr", "never written"),
        ("stepping", "`help`"),
        ("lx-dmesg", "`log`"),
        ("define", "`alias` is a word of the prompt"),
    ],
)
def test_a_word_of_another_debugger_says_what_it_is_here(
    registry: Registry, debugger: Debugger, word: str, hint: str
) -> None:
    """An unknown one that it is unknown."""
    with pytest.raises(UsageError) as caught:
        registry.run(debugger, f"{word} 1")
    assert caught.value.hint is not None
    assert hint in caught.value.hint


@pytest.mark.parametrize("topic", ["from-crash", "from-gdb"])
def test_the_pages_for_people_from_elsewhere_claim_nothing_that_is_not_there(
    registry: Registry, debugger: Debugger, topic: str
) -> None:
    """A word that is said to be here is a command; what is one of the prompt says so."""
    lines = shown(registry, debugger, f"help {topic}").splitlines()[2:]
    assert len(lines) > 40
    assert "not offered" not in "".join(lines)
    for text in lines:
        word, explained = text.split(maxsplit=1)
        if explained.startswith("here too"):
            assert registry.find(word) is not None, word


# vm


def test_the_structures_of_user_memory_are_none_for_a_kernel_thread(registry: Registry, debugger: Debugger) -> None:
    """`vm -m -v` says so; of a task whose user memory the snapshot lacks, the problem names the task."""
    user = next(task for task in debugger.session.tasks if not task.is_kernel_thread)
    thread = next(task for task in debugger.session.tasks if task.is_kernel_thread and task.pid)
    assert encode(registry.run(debugger, f"vm -m -v {thread.pid}"))["tasks"][0]["structures"] == []
    assert "No user memory" in shown(registry, debugger, f"vm -m {thread.pid}")
    found = encode(registry.run(debugger, f"vm -m {user.pid}"))
    assert found["tasks"] == []
    assert f"the memory of task {user.pid}" in found["problems"][0]


# foreach, ps


def test_tasks_are_named_by_regular_expressions(registry: Registry, debugger: Debugger) -> None:
    """As in crash; a word without their characters is a whole name, and one that is no expression too."""
    names = {task.comm for task in debugger.session.tasks if task.comm.startswith("kworker/0")}
    assert names
    for line in ("ps kworker/0.*", "foreach '^kworker/0' ps"):
        assert {task["comm"] for task in encode(registry.run(debugger, line))["tasks"]} == names
    with pytest.raises(NotFound):
        registry.run(debugger, "foreach kworker ps")
    with pytest.raises(NotFound):
        registry.run(debugger, "foreach 'kworker(' ps")


def test_stacks_of_many_tasks_are_chosen_by_what_is_on_them(registry: Registry, debugger: Debugger) -> None:
    """`foreach bt -R` has the stacks that `--has` has of a function; of a word those on which it stands."""
    by_name, by_reference = (registry.run(debugger, f"foreach bt {option} do_nanosleep") for option in ("--has", "-R"))
    assert isinstance(by_name, Stacks)
    assert isinstance(by_reference, Stacks)
    assert [trace.task for trace in by_name.stacks] == [trace.task for trace in by_reference.stacks]
    slot = by_name.stacks[0].frames[1].ip
    with_word = registry.run(debugger, f"foreach bt -R {slot:x}")
    assert isinstance(with_word, Stacks)
    assert by_name.stacks[0].task in {trace.task for trace in with_word.stacks}


def test_a_kernel_address_is_translated_for_each_task(registry: Registry, debugger: Debugger) -> None:
    """`foreach vtop` answers as `vtop` does, a task at a time; -u takes user addresses alone."""
    alone = encode(registry.run(debugger, "vtop linux_banner"))
    found = encode(registry.run(debugger, "foreach kernel vtop linux_banner"))
    assert len(found["tasks"]) > 10
    assert all(one["translation"] == alone for one in found["tasks"])
    with pytest.raises(UsageError):
        registry.run(debugger, "foreach vtop -u linux_banner")


# runq, search


def test_parts_of_the_kernels_memory_are_searched_alone(registry: Registry, debugger: Debugger) -> None:
    """`search -T` looks at no stack that `-t` does not; only one kind of memory can be named."""
    active, every = (
        {hit["address"] for hit in encode(registry.run(debugger, f"search {option} -m ffffff schedule"))["hits"]}
        for option in ("-T", "-t")
    )
    assert active <= every
    assert len(every) > len(active)
    with pytest.raises(UsageError):
        registry.run(debugger, "search -K -V schedule")


def test_an_expression_in_parentheses_says_where_to_disassemble(registry: Registry, debugger: Debugger) -> None:
    """As in crash; a value that is no address is a mistake."""
    start = debugger.session.linux.address("schedule")
    first = registry.run(debugger, "dis schedule 1")
    assert isinstance(first, Disassembly)
    size = len(first.instructions[0].raw)
    found = registry.run(debugger, f"dis '(schedule + {size})' 1")
    assert isinstance(found, Disassembly)
    assert found.instructions[0].address == start + size
    with pytest.raises(UsageError):
        registry.run(debugger, "dis '(schedule +)' 1")


def test_settings_say_how_numbers_and_arrays_are_shown(registry: Registry, debugger: Debugger) -> None:
    """A format in the line comes before them; one that means nothing here says what to use."""
    registry.run(debugger, "set hex")
    assert shown(registry, debugger, "p init_task.flags") == "$1 = 0x200002\n"
    assert shown(registry, debugger, "p -d init_task.flags") == "$2 = 2097154\n"
    assert shown(registry, debugger, "p init_task.comm") == '$3 = "swapper/0"\n'
    assert "flags = 0x200002" in shown(registry, debugger, "struct task_struct.flags init_task")
    assert "flags = 0x200002" in shown(registry, debugger, "task -R flags 0")
    registry.run(debugger, "set radix 10")
    assert shown(registry, debugger, "p init_task.flags") == "$4 = 2097154\n"
    registry.run(debugger, "set print_max 2")
    assert "... 1 more" in shown(registry, debugger, "p init_task.thread.tls_array")
    for word, hint in (("zero_excluded on", "never shown as zeros"), ("debug", "--debug"), ("radix 7", "10, 16")):
        with pytest.raises(UsageError) as caught:
            registry.run(debugger, f"set {word}")
        assert hint in str(caught.value.hint)


def test_all_words_of_a_stack_are_shown(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """From its lowest address to its top, and the return addresses by their names."""
    result = encode(registry.run(debugger, "bt -r"))
    (stack,) = result["stacks"]
    begin = sample.linux.member("task_struct", "stack", debugger.task.address)
    assert (stack["pid"], stack["words"][0]["address"]) == (135, f"{begin:#x}")
    assert len(stack["words"]) == (16 << 10) // 8
    returns = {f"{frame.return_slot:#x}" for frame in debugger.trace().frames if frame.return_slot}
    named = {word["address"] for word in stack["words"] if word["symbol"]}
    assert len(returns & named) > 3


def test_processes_are_shown_with_their_threads_and_limits(registry: Registry, debugger: Debugger) -> None:
    """The leader first, each process once; without headings the lines are the same ones."""
    families = encode(registry.run(debugger, "ps -g"))["tasks"]
    shown_tasks = [one["task"] for family in families for one in (family, *family["threads"])]
    assert sorted(shown_tasks) == sorted(task["task"] for task in encode(registry.run(debugger, "ps"))["tasks"])
    with_header, without = shown(registry, debugger, "ps"), shown(registry, debugger, "ps -H")
    assert with_header.partition("\n")[2] == without
    assert encode(registry.run(debugger, "sig -g 1"))["tasks"] == encode(registry.run(debugger, "sig 1"))["tasks"]


def test_words_around_a_match_are_shown(registry: Registry, debugger: Debugger, sample: Session) -> None:
    """As many as asked for on each side, of the same size; what is too much or of texts is refused."""
    banner = int.from_bytes(sample.memory.read(sample.linux.address("linux_banner"), 8), "little")
    line = f"search -k -x 2 {banner:x} -s linux_banner -l 8"
    found = encode(registry.run(debugger, line))
    place = sample.linux.address("linux_banner")
    assert [hit["address"] for hit in found["hits"]] == [f"{place:#x}"]
    around = found["contexts"][f"{place:#x}"]
    assert len(around) == 5
    assert around[2] == f"{banner:#x}"
    assert around[3] == f"{int.from_bytes(sample.memory.read(place + 8, 8), 'little'):#x}"
    assert f"{place + 8:016x}: " in shown(registry, debugger, line)
    for wrong in ("search -x 0 1", "search -x 99999 1", "search -x 1 -c text"):
        with pytest.raises(UsageError):
            registry.run(debugger, wrong)


def test_offsets_are_decimal_where_asked(registry: Registry, debugger: Debugger) -> None:
    """The same numbers."""
    hexadecimal = re.findall(r"<\+(0x[0-9a-f]+)>", shown(registry, debugger, "dis schedule 5 -x"))
    decimal = re.findall(r"<\+(\d+)>", shown(registry, debugger, "dis schedule 5 -d"))
    assert [int(text, 16) for text in hexadecimal] == [int(text) for text in decimal]
    assert len(decimal) == 5
