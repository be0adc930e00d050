"""What are the words of crash and gdb here?

Of each word: what to type here, and what differs. A word that orcdbg has as its own is explained by its own help as well;
one that it has not says what to use instead, also in the error that typing it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orcdbg.commands.registry import Registry


class KnownWord(NamedTuple):
    """A word of another debugger: what to type here, None where there is nothing like it; and what differs, or why not."""

    here: str | None
    note: str = ""


_SAME_OPTIONS = "with crash's options"

# Words that cmd2 answers, which a script's line cannot have.
AT_THE_PROMPT = frozenset({"alias", "history", "macro", "run_script", "shell"})

FROM_CRASH: Mapping[str, KnownWord] = {
    "*": KnownWord("struct", "`*NAME` as in crash: the kind is found out"),
    "alias": KnownWord("alias", "`alias NAME LINE` as in crash; `alias create` at the prompt too"),
    "ascii": KnownWord("ascii", "`rd -a ADDR` shows text in memory"),
    "bpf": KnownWord(None, "BPF programs are named in stacks and by `sym`; nothing lists them yet"),
    "bt": KnownWord(
        "bt",
        "by ORC, each frame with where its CFA is from; -a -c -p -g -n -f -F -l -e -E -t -T -s -R as in crash; "
        "`--crash` prints crash's lines; -I, -S and -B take registers; guesses are marked `?`",
    ),
    "btop": KnownWord("vtop", "`vtop` shows the physical address; a page is 4096 bytes"),
    "dev": KnownWord("dev", _SAME_OPTIONS),
    "dis": KnownWord(
        "dis", "text as it ran, with the CFA rule; -r -f -l -s as in crash; `--diff` shows what the image had"
    ),
    "eval": KnownWord("eval"),
    "exit": KnownWord("quit"),
    "extend": KnownWord("extend", "plug-ins in Python: docs/plugins.md"),
    "files": KnownWord("files", _SAME_OPTIONS),
    "foreach": KnownWord("foreach", "tasks by state, name, pid, user, kernel, active; then the command"),
    "fuser": KnownWord("foreach files -R PATH", "`foreach files -R PATH` finds who has a file open"),
    "gdb": KnownWord(None, "there is no gdb inside; gdb's own words are known: `help from-gdb`"),
    "help": KnownWord("help", "-n, -m and the like, which show crash's inside, are not here"),
    "ipcs": KnownWord(None, "System V IPC is not decoded; `struct` and `list` show its objects"),
    "irq": KnownWord("irq", _SAME_OPTIONS),
    "kmem": KnownWord("kmem", _SAME_OPTIONS),
    "last": KnownWord("ps -l"),
    "list": KnownWord(
        "list", "crash's: linked lists; `list FUNCTION` shows source lines, with --source DIR their text"
    ),
    "log": KnownWord("log", "-t -T -m -c -d -a as in crash; `log err` shows errors and worse; [user] marks /dev/kmsg"),
    "mach": KnownWord("mach", _SAME_OPTIONS),
    "map": KnownWord(None, "for dumps of KVM guests in old formats only"),
    "mod": KnownWord("mod", "symbols and types of modules come from the dump, lines from -s and -S; -t as in crash"),
    "mount": KnownWord("mount", _SAME_OPTIONS),
    "net": KnownWord("net", _SAME_OPTIONS),
    "p": KnownWord("p", "expressions of C, without gdb: casts, ->, [], per-CPU variables with :CPU"),
    "pd": KnownWord("pd", "decimal `p`"),
    "px": KnownWord("px", "hexadecimal `p`"),
    "ps": KnownWord("ps", _SAME_OPTIONS),
    "pte": KnownWord("vtop", "`vtop` names the bits of each entry"),
    "ptob": KnownWord("vtop", "a page is 4096 bytes: PFN << 12"),
    "ptov": KnownWord("kmem", "`rd -p` reads a physical address as it is"),
    "q": KnownWord("quit"),
    "rd": KnownWord("rd", "-8 to -64, -d -D -s -S -x -a -N -R -e -o -p -r as in crash"),
    "repeat": KnownWord("repeat", "on a live guest, which runs on in between; a dump does not change"),
    "runq": KnownWord("runq", _SAME_OPTIONS),
    "rustfilt": KnownWord(None, "no command for it: names are shown as the kernel has them"),
    "sbitmapq": KnownWord("struct sbitmap_queue ADDR"),
    "search": KnownWord("search", _SAME_OPTIONS),
    "set": KnownWord("set", "a task, -c CPU, -p, or a variable: `set` lists them"),
    "sig": KnownWord("sig", _SAME_OPTIONS),
    "struct": KnownWord("struct", "`struct NAME.member,member ADDR COUNT`; -o -x -d -l and VARIABLE:CPUS as in crash"),
    "swap": KnownWord("kmem -i", "swap is in its summary; nothing lists the devices"),
    "sym": KnownWord("sym", "-l -m -M -p -n -q as in crash, file and line where the vmlinux has DWARF"),
    "sys": KnownWord("sys", _SAME_OPTIONS),
    "task": KnownWord("task", _SAME_OPTIONS),
    "timer": KnownWord("timer", _SAME_OPTIONS),
    "tree": KnownWord("tree", _SAME_OPTIONS),
    "union": KnownWord("struct", "`struct NAME` finds unions too"),
    "vm": KnownWord("vm", _SAME_OPTIONS),
    "vtop": KnownWord("vtop", "`--pid` names a task for its user addresses"),
    "waitq": KnownWord("waitq", _SAME_OPTIONS),
    "whatis": KnownWord("whatis", "a type, a name or an address"),
    "wr": KnownWord(None, "a dump is never written to"),
    "dmesg": KnownWord("log"),
    "lsmod": KnownWord("mod"),
    "trace": KnownWord("trace", "the ftrace ring buffers, as crash's trace extension shows them"),
    "gcore": KnownWord("gcore", "a task's memory as an ELF core, as crash's gcore extension writes it"),
}

# Settings of crash that mean nothing here: what to use, or why not.
CRASH_SETTINGS: Mapping[str, str] = {
    "console": "`--format`, or `| tee FILE` behind a command",
    "core": "orcdbg never dumps core on purpose",
    "debug": "`orcdbg --debug` shows where an error came from",
    "edit": "the prompt's keys are those of emacs",
    "emacs": "the prompt's keys are those of emacs",
    "error": "errors go to the standard error: 2> FILE on orcdbg's command line",
    "gdb": "there is no gdb inside; gdb's own words are known: `help from-gdb`",
    "hash": "memory is read through one cache always",
    "namelist": "the files are named when orcdbg is started: orcdbg VMLINUX SNAPSHOT",
    "dumpfile": "the files are named when orcdbg is started: orcdbg VMLINUX SNAPSHOT",
    "null-stop": "strings in arrays end at their NUL always",
    "print_array": "`p` gives elements that are structures their own lines",
    "refresh": "the task list is read once a stop",
    "scope": "variables of all files are found by their names",
    "silent": "a script, `-e` or `-x`, starts without a banner",
    "unwind": "stacks are unwound by ORC always",
    "vi": "the prompt's keys are those of emacs",
    "zero_excluded": "a page that is not in the snapshot is never shown as zeros",
}

FROM_GDB: Mapping[str, KnownWord] = {
    "advance": KnownWord("until", "in emulated code"),
    "apropos": KnownWord("apropos", "commands, options and topics of help"),
    "attach": KnownWord(None, "`orcdbg VMLINUX --remote HOST:PORT` opens a live guest"),
    "backtrace": KnownWord("backtrace", "the same as `bt`"),
    "break": KnownWord("break"),
    "bt": KnownWord("bt"),
    "call": KnownWord(None, "nothing can be called in a dump; `p` computes, `step --at F` emulates a function"),
    "continue": KnownWord("continue"),
    "core-file": KnownWord(None, "the files are named when orcdbg is started: orcdbg VMLINUX SNAPSHOT"),
    "define": KnownWord("alias", "`macro` at the prompt for lines with places to fill in"),
    "delete": KnownWord("delete"),
    "detach": KnownWord("detach"),
    "disassemble": KnownWord("disassemble", "`dis` is crash's"),
    "display": KnownWord("display", "after each step, and each stop of a live guest; formats of `p`"),
    "down": KnownWord("down"),
    "file": KnownWord(None, "the files are named when orcdbg is started: orcdbg VMLINUX SNAPSHOT"),
    "finish": KnownWord("finish", "in emulated code"),
    "frame": KnownWord("frame"),
    "info": KnownWord("info", "locals, args, registers, frame, symbol, line, threads, stack, breakpoints"),
    "jump": KnownWord(None, "a stopped machine goes nowhere; `step --at ADDR` emulates from another place"),
    "list": KnownWord(
        "list", "`list FUNCTION`, `list FILE:LINE` and `list *ADDR` with --source DIR; a list of the kernel otherwise"
    ),
    "next": KnownWord("next", "in emulated code"),
    "nexti": KnownWord("next"),
    "output": KnownWord("p"),
    "print": KnownWord("p"),
    "printf": KnownWord("p"),
    "ptype": KnownWord("ptype"),
    "python": KnownWord("py", "`session` and `kernel` are at hand"),
    "quit": KnownWord("quit"),
    "run": KnownWord(None, "a dump does not run; `step` emulates from where it stopped"),
    "set": KnownWord("set", "settings, not variables: a dump is never written to"),
    "shell": KnownWord("shell", "`!` at the prompt"),
    "source": KnownWord("run_script", "-x FILE on the command line"),
    "start": KnownWord(None, "a dump does not run; `step` emulates from where it stopped"),
    "step": KnownWord("step", "in emulated code, an instruction at a time"),
    "stepi": KnownWord("step"),
    "symbol-file": KnownWord(None, "the files are named when orcdbg is started: orcdbg VMLINUX SNAPSHOT"),
    "target": KnownWord(None, "`orcdbg VMLINUX --remote HOST:PORT` opens a live guest"),
    "tbreak": KnownWord("until", "`until ADDR` in emulated code"),
    "thread": KnownWord("thread", "gdb's thread N is CPU N-1"),
    "undisplay": KnownWord("undisplay"),
    "until": KnownWord("until"),
    "up": KnownWord("up"),
    "watch": KnownWord("watch"),
    "whatis": KnownWord("whatis", "a type, a name or an address"),
    "where": KnownWord("where", "the same as `bt`"),
    "x": KnownWord("x", "plain `x` is `rd`; x/FMT is gdb's"),
    "lx-cmdline": KnownWord("sys"),
    "lx-dmesg": KnownWord("log"),
    "lx-lsmod": KnownWord("mod"),
    "lx-ps": KnownWord("ps"),
    "lx-symbols": KnownWord("mod", "symbols of modules are found in the dump's memory"),
    "lx-version": KnownWord("sys"),
}

TOPICS: Mapping[str, tuple[str, Mapping[str, KnownWord]]] = {
    "from-crash": ("crash's words, and what each is here", FROM_CRASH),
    "from-gdb": ("gdb's words, and what each is here", FROM_GDB),
}


def topic_lines(registry: Registry, topic: str) -> Iterator[str]:
    """The words of a topic of `TOPICS`, a line each."""
    heading, words = TOPICS[topic]
    yield f"{heading}:"
    yield ""
    width = max(map(len, words))
    for word in sorted(words):
        yield f"  {word:<{width}}  {_explained(registry, word, words[word])}"


def is_offered(registry: Registry, line: str | None) -> bool:
    """Whether a line begins with a word that orcdbg has."""
    return line is not None and registry.find(line.replace("/", " ").split()[0]) is not None


def _explained(registry: Registry, word: str, known: KnownWord) -> str:
    if known.here is None:
        return known.note
    if not is_offered(registry, known.here):
        return f"`{known.here}`, at the prompt" if known.here in AT_THE_PROMPT else "not offered" + _other_way(known)
    same = known.here == word
    return "; ".join(part for part in ("here too" if same else f"`{known.here}`", known.note) if part)


def _other_way(known: KnownWord) -> str:
    return f"; {known.note}" if "`" in known.note else ""


def hint_for(registry: Registry, word: str) -> str | None:
    """What to use in place of a word that is known from elsewhere and not offered here; None for an unknown word."""
    for words in (FROM_CRASH, FROM_GDB):
        known = words.get(word)
        if known is not None and is_offered(registry, known.here):
            return f"here it is `{known.here}`" + (f": {known.note}" if known.note else "")
        if known is not None and known.here in AT_THE_PROMPT:
            return f"`{known.here}` is a word of the prompt"
        if known is not None and known.here is None:
            return known.note
    return None
