"""Expressions over the sample: values are those that memory holds, and nothing hostile gives anything but an error of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.expressions.evaluation import evaluate
from orcdbg.target.session import Session
from orcdbg.typed.declarations import type_name
from orcdbg.typed.objects import Object
from orcdbg.typed.types import VOID, pointer_to


def value_of(session: Session, text: str) -> Object:
    """The one value of an expression."""
    ((_, found),) = evaluate(session.program, text).values
    return found


@pytest.mark.parametrize(
    ("text", "number", "type_"),
    [
        ("1 + 2 * 3", 7, "int"),
        ("-7 / 2", -3, "int"),
        ("-7 % 3", -1, "int"),
        ("7u / 2", 3, "unsigned int"),
        ("1 << 31", -(1 << 31), "int"),
        ("1u << 31", 1 << 31, "unsigned int"),
        ("1ul << 63", 1 << 63, "unsigned long"),
        ("-1 >> 1", -1, "int"),
        ("0x7fffffff + 1", -(1 << 31), "int"),
        ("0xffffffff + 1", 0, "unsigned int"),
        ("0xffffffffffffffff + 1", 0, "unsigned long"),
        ("4294967295 + 1", 1 << 32, "long"),
        ("18446744073709551615", (1 << 64) - 1, "unsigned long"),
        ("0x80000000", 1 << 31, "unsigned int"),
        ("2147483648", 1 << 31, "long"),
        ("-1 > 1u", 1, "int"),
        ("-1 > 1", 0, "int"),
        ("(unsigned char)-1 == 255", 1, "int"),
        ("(char)300", 44, "char"),
        ("(_Bool)256", 1, "_Bool"),
        ("(short)0x18000", -32768, "short"),
        ("~0", -1, "int"),
        ("~0ul", (1 << 64) - 1, "unsigned long"),
        ("!5", 0, "int"),
        ("!!5", 1, "int"),
        ("0 || 2", 1, "int"),
        ("1 && 0", 0, "int"),
        ("0 && 1 / 0", 0, "int"),
        ("1 || *(int *)0", 1, "int"),
        ("1 ? 2 : 1 / 0", 2, "int"),
        ("1 ? -1 : 2u", 0xFFFF_FFFF, "unsigned int"),
        ("5 & 3 | 8 ^ 1", 9, "int"),
        ("017", 15, "int"),
        ("0b101", 5, "int"),
        ("'a' + 1", 98, "int"),
        (r"'\n'", 10, "char"),
        (r"'\x41'", 65, "char"),
        (r"'\101'", 65, "char"),
        ("1, 2, 3", 3, "int"),
        ("sizeof(int)", 4, "unsigned long"),
        ("sizeof(unsigned long [3])", 24, "unsigned long"),
        ("sizeof(struct list_head)", 16, "unsigned long"),
        ("sizeof *(struct list_head *)0", 16, "unsigned long"),
        ("sizeof(void *)", 8, "unsigned long"),
        ("offsetof(struct list_head, prev)", 8, "unsigned long"),
        ("(int *)8 + 2", 16, "int *"),
        ("2 + (char *)8", 10, "char *"),
        ("(int *)16 - 1", 12, "int *"),
        ("(long *)32 - (long *)16", 2, "long"),
        ("(int *)8 == 8", 1, "int"),
        ("(void *)8 < (void *)-1", 1, "int"),
        ("(void *)8 + 1", 9, "void *"),
        ("ARRAY_SIZE(init_task.comm)", 16, "unsigned long"),
        ("ffffffff81000000", 0xFFFF_FFFF_8100_0000, "unsigned long"),
    ],
)
def test_arithmetic_is_cs(sample: Session, text: str, number: int, type_: str) -> None:
    """Promotions, wrapping, signs, pointers; the type counts as much as the number."""
    found = value_of(sample, text)
    assert (int(found), type_name(found.type_)) == (number, type_)


def test_enumerators_are_ints_and_keep_their_names(sample: Session) -> None:
    """As C has them: one less than the first is -1."""
    assert value_of(sample, "PIDTYPE_SID").python_() == "PIDTYPE_SID"
    assert int(value_of(sample, "PIDTYPE_SID - PIDTYPE_PID")) == 3
    assert int(value_of(sample, "PIDTYPE_PID - 1")) == -1


def test_members_and_pointers_lead_to_what_memory_holds(sample: Session) -> None:
    """By name, by address, from a member to the structure around it."""
    task = sample.linux.address("init_task")
    linked = sample.linux.member("task_struct", "tasks.next", task)
    outer = linked - sample.types.offset("task_struct", "tasks")
    pid = sample.linux.member("task_struct", "pid", outer)
    assert int(value_of(sample, "&init_task")) == task
    assert int(value_of(sample, "init_task.tasks.next")) == linked
    for text in (
        "container_of(init_task.tasks.next, struct task_struct, tasks)->pid",
        "list_entry(init_task.tasks.next, task_struct, tasks)->pid",
        f"((struct task_struct *){outer:#x})->pid",
        f"(*(task_struct *){outer:#x}).pid",
        f"((struct task_struct *){outer:#x})[0].pid",
    ):
        assert int(value_of(sample, text)) == pid, text
    assert value_of(sample, "init_task.comm").string_() == "swapper/0"
    assert value_of(sample, "*&init_task.comm[1]@3").python_() == "wap"
    assert int(value_of(sample, "&init_task.comm[2] - &init_task.comm[0]")) == 2
    assert int(value_of(sample, "(unsigned long)&init_task + offsetof(struct task_struct, comm[3])")) == (
        task + sample.types.offset("task_struct", "comm") + 3
    )


def test_per_cpu_variables_are_of_the_cpus_that_are_asked_for(sample: Session) -> None:
    """By number, of all, by the kernel's own words; without a CPU only the address can be asked for."""
    place = sample.linux.per_cpu("runqueues", 0)
    assert place is not None
    for text in (
        "&runqueues:0",
        "&per_cpu(runqueues, 0)",
        "per_cpu_ptr(&runqueues, 0)",
        "&runqueues:a",
        "&runqueues:all",
    ):
        ((cpu, found),) = evaluate(sample.program, text).values
        assert int(found) == place, text
        assert cpu == (0 if ":" in text else None)
    member = int(value_of(sample, "&per_cpu_ptr(&runqueues, 0)->nr_running"))
    assert int(value_of(sample, "per_cpu_ptr(&runqueues.nr_running, 0)")) == member
    with pytest.raises(UsageError, match="once for each CPU"):
        value_of(sample, "runqueues.nr_running")
    with pytest.raises(UsageError, match="once for each CPU"):
        value_of(sample, "&runqueues.curr->pid")
    with pytest.raises(NotFound):
        value_of(sample, "runqueues:0-1")
    with pytest.raises(UsageError, match="nothing per CPU"):
        value_of(sample, "init_task.pid:0")
    assert int(value_of(sample, "1 ? 2 : 3")) == 2


def test_functions_and_symbols_without_a_type_have_an_address(sample: Session) -> None:
    """Their value is refused in one sentence that says what to write."""
    address = sample.linux.address("schedule")
    for text in ("schedule", "&schedule"):
        assert int(value_of(sample, text)) == address
    assert int(value_of(sample, "(unsigned long)schedule + 0x10")) == address + 16
    banner = sample.linux.address("linux_banner")
    assert int(value_of(sample, "&linux_banner")) == banner
    assert int(value_of(sample, "&linux_banner + 0x10")) == banner + 16
    assert value_of(sample, "&linux_banner").type_.size == pointer_to(VOID).size
    assert value_of(sample, "(char *)&linux_banner").string_().startswith("Linux version 5.10")
    for text in (
        "linux_banner",
        "linux_banner + 1",
        "*linux_banner",
        "linux_banner.x",
        "linux_banner[0]",
        "linux_banner@2",
    ):
        with pytest.raises(UsageError) as refused:
            value_of(sample, text)
        assert refused.value.hint is not None
        assert "*(TYPE *)&linux_banner" in refused.value.hint


def test_a_type_alone_reads_nothing(sample: Session) -> None:
    """Through pointers that lead nowhere, as sizeof in C."""
    found = evaluate(sample.program, "((struct task_struct *)1)->mm->pgd", types_only=True)
    assert type_name(found.values[0][1].type_) == "pgd_t *"
    assert int(value_of(sample, "sizeof ((struct task_struct *)1)->mm->pgd->pgd")) == 8
    assert evaluate(sample.program, "struct list_head *").is_type
    assert evaluate(sample.program, "unsigned long").is_type
    assert not evaluate(sample.program, "init_task").is_type


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "1 +",
            "1 2",
            ")(",
            "(1",
            "1)",
            "init_task.",
            "init_task->",
            "1 ? 2",
            "a = 3",
            "init_task.pid = 3",
            "init_task.pid++",
        ),
        *(
            '"text"',
            "{1}",
            "1; 2",
            "#x",
            "struct {int a;} x",
            "(struct list_head){0}",
            "1); int y = (2",
            "sizeof",
            "int x",
        ),
        *(
            "1 / 0",
            "1 % 0",
            "1 << 1000000000",
            "1 << -1",
            "1 << 32",
            "0x7fffffffffffffff + 0x1ffffffffffffffff",
            "1.5",
            "1e5",
            "'ab",
            "''",
        ),
        *(
            "init_task",
            "init_task + 1",
            "-init_task",
            "!init_task",
            "*1",
            "&1",
            "init_task.comm = 1",
            "init_task.comm[16]",
            "init_task.comm[-1]",
        ),
        *(
            "schedule()",
            "panic(1)",
            "init_task.pid()",
            "(struct list_head)1",
            "(int[3])1",
            "sizeof(struct nothing_known)",
            "&init_task.in_execve",
        ),
        *(
            "offsetof(struct list_head, last)",
            "container_of(1, struct list_head)",
            "container_of()",
            "offsetof(int, a)",
            "per_cpu(init_task, 0)",
        ),
        *(
            "$rip",
            "$1",
            "$",
            "$$",
            "$_",
            "1 @ 2 @ 3",
            "(init_task.comm[0]@2)",
            "init_task.comm@0",
            "init_task.comm@100000",
            "init_task.pid@-1",
            "1@2",
        ),
        *(
            "runqueues:0-",
            "runqueues:-1",
            "runqueues:1-0",
            "runqueues:99999999999",
            ":0",
            "runqueues:0x1",
            "no_module!schedule",
            "'no such'",
        ),
        *(
            "-" * 300 + "1",
            "*" * 300 + "1",
            "(" * 49 + "1" + ")" * 49 + "+" + "-" * 400 + "1",
            "!" * 590 + "1",
            "(int)" * 190 + "1",
        ),
        *(
            "(" * 60 + "1" + ")" * 60,
            "1" + "+1" * 400,
            "9" * 4000,
            "0x" + "f" * 4000,
            "a" * 5000,
            "[" * 10,
            "1" + "[1]" * 150,
            "1" + "?1" * 250,
        ),
        *(
            "orcdbg_name_0",
            "__int128",
            "void",
            "(void)1 + 1",
            "sizeof(int[1 << 30])",
            "sizeof(int[-1])",
            "\x00",
            "\x1b[31m",
            "é",
            "p\\q",
            "@",
            "@1",
        ),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(sample: Session, text: str) -> None:
    """Whatever it is: nothing else comes out, and nothing takes long. What means something all the same has a type."""
    try:
        found = evaluate(sample.program, text)
        for _, value in found.values:
            assert found.is_type or int(value) is not None
    except OrcdbgError as error:
        assert error.message
        assert "\n" not in error.message


@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    "init_task",
                    ".",
                    "->",
                    "comm",
                    "tasks",
                    "next",
                    "mm",
                    "(",
                    ")",
                    "[",
                    "]",
                    "*",
                    "&",
                    "-",
                    "!",
                    "~",
                    "1",
                    "0",
                    "0x10",
                ),
                *(
                    "sizeof",
                    "struct",
                    "list_head",
                    "task_struct",
                    "int",
                    "unsigned",
                    "+",
                    "/",
                    "<<",
                    ">>",
                    "?",
                    ":",
                    ",",
                    "@",
                    "$1",
                    "'a'",
                ),
                *(
                    "runqueues",
                    "per_cpu",
                    "container_of",
                    "offsetof",
                    "schedule",
                    "linux_banner",
                    "PIDTYPE_PID",
                    "enum",
                    "pid_t",
                    "==",
                    "&&",
                ),
            ]
        ),
        max_size=14,
    )
)
def test_any_words_give_a_value_or_an_error_of_ours(sample: Session, words: list[str]) -> None:
    """In any order."""
    try:
        for _, found in evaluate(sample.program, " ".join(words)).values:
            type_name(found.type_)
            found.value_()
    except OrcdbgError as error:
        assert "\n" not in error.message


@given(st.text(max_size=60))
def test_any_text_gives_a_value_or_an_error_of_ours(sample: Session, text: str) -> None:
    """Of any characters."""
    try:
        evaluate(sample.program, text)
    except OrcdbgError as error:
        assert error.message


INTEGER_TYPES = {
    "signed char": (8, True),
    "unsigned char": (8, False),
    "short": (16, True),
    "unsigned short": (16, False),
    "int": (32, True),
    "unsigned int": (32, False),
    "long": (64, True),
    "unsigned long": (64, False),
}


@given(
    st.sampled_from(sorted(INTEGER_TYPES)),
    st.sampled_from(sorted(INTEGER_TYPES)),
    st.sampled_from(["+", "-", "*", "&", "|", "^", "<", "<=", "==", ">"]),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1),
)
def test_two_integers_are_computed_in_their_common_type(
    sample: Session, left: str, right: str, symbol: str, first: int, second: int
) -> None:
    """By the rules told another way: both at least 32 bits, the wider of them, unsigned where the wider is."""
    found = value_of(sample, f"({left}){first:#x} {symbol} ({right}){second:#x}")

    def converted(number: int, bits: int, is_signed: bool) -> int:
        low = number % (1 << bits)
        return low - (1 << bits) if is_signed and low >= 1 << bits - 1 else low

    sides = []
    for name, number in ((left, first), (right, second)):
        bits, is_signed = INTEGER_TYPES[name]
        sides.append((max(bits, 32), is_signed or bits < 32, converted(number, bits, is_signed)))
    bits = max(side[0] for side in sides)
    is_signed = all(side[1] for side in sides if side[0] == bits)
    one, two = (converted(side[2], bits, is_signed) for side in sides)
    results = {
        "+": one + two,
        "-": one - two,
        "*": one * two,
        "&": one & two,
        "|": one | two,
        "^": one ^ two,
        "<": one < two,
        "<=": one <= two,
        "==": one == two,
        ">": one > two,
    }
    is_comparison = symbol in ("<", "<=", "==", ">")
    assert int(found) == (int(results[symbol]) if is_comparison else converted(results[symbol], bits, is_signed))
    assert found.size_ == (4 if is_comparison else bits // 8)
