"""What does `help` say of things that are no command: words of art, marks, keys, files that go in, forms of answers?

Each text is of at most 79 columns, and says where the documentation has more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Topic(NamedTuple):
    """A topic: its summary for lists, and its text, a line each."""

    summary: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The text's lines."""
        return self.text.strip("\n").splitlines()


TOPICS: Mapping[str, Topic] = {
    "cfa": Topic(
        "what a frame's CFA is, and the words of its last column",
        """
The CFA (canonical frame address) of a frame is the value of the stack pointer
in its caller, just before the call. The return address is mostly at CFA-8.

  ORC sp+40             the ORC row of this ip: rsp + 40
  ORC bp+16             it counts from rbp
  ORC regs @ADDR        an interrupt or exception saved all registers there
  ORC sp+64, patch +8 = sp+72
                        the row as built, moved for instructions that the
                        kernel has patched in
  derived sp+8          from the instructions themselves: no row covers them
  frame pointer         from rbp, in code that the kernel does not list
  scan                  a word found on the stack; a guess

Column 0 says how sure a frame is:
  blank  sure, by the row as built
  ~      sure, but by another rule, or by a recovered return address
  !      this frame's own step to its caller is in doubt
  ?      a guess, or reached through a frame that is in doubt
A doubt that several frames after each other have is said at the first.

See also: frame N, bt --why N, help orc; docs/tutorial.md
""",
    ),
    "orc": Topic(
        "what an ORC row says",
        """
ORC is the kernel's own table for unwinding stacks. A row covers the addresses
from its own up to the next row's, and says how to find the CFA there and where
the caller's rbp was saved. objtool makes the rows when the kernel is built, so
they know nothing of what the kernel writes over its text later. Where such
instructions move the stack pointer, `orc ADDR` shows the row and what is true.

A return address is looked up one byte before itself: at the call. An address
that an interrupt saved is looked up as it is.

See also: help cfa, help patches, bt --why N; docs/patches.md
""",
    ),
    "patches": Topic(
        "why text in memory differs from the vmlinux, and how it is explained",
        """
After a boot about 4 to 5 percent of a kernel's text differs from its vmlinux:
calls through pv_ops become instructions (paravirt), code is chosen by the
CPU's features (alternatives), branches follow static keys (jump labels), and
tracers and probes put in calls and int3. orcdbg computes what the kernel must
have written from the image, its tables and the kernel's data; with three
exceptions nothing is taken from the text itself. A site whose deciding state
is not in the snapshot is called undecided; there are no defaults.

  patch at ADDR         what was written there, by which pass, and why
  patch list            the patch sites; --changed those that were patched
  patch check           ORC rows that patched text makes wrong
  patch audit           compares all text with what it should be
  dis --diff ADDR       the text as it ran beside the text as built

See also: docs/patches.md
""",
    ),
    "keys": Topic(
        "the keys of the prompt",
        """
  Tab            completes commands, options, symbols, tasks, frames, types
  right arrow    takes over the grey suggestion, an earlier line
  up, down       earlier lines
  Ctrl-R         searches them
  Ctrl-C         stops the running command, or drops the line; never leaves
  Ctrl-D         leaves, as `quit` does; in a block of Python it ends the block
  Ctrl-A, Ctrl-E the line's beginning and end; the others are those of emacs

Several pasted lines stay on the prompt until Enter runs them.

See also: docs/commands.md, "At the prompt"
""",
    ),
    "input": Topic(
        "which files are read, and how words name tasks, addresses and values",
        """
orcdbg [VMLINUX] SNAPSHOT takes the files in any order and knows them by their
content. With SNAPSHOT alone, names, types and rows come from its memory.
`orcdbg checkup FILE...` says what files are, what is missing, and how to get
it; --modules DIR names modules' files, --debug-dir DIR split debug files,
--btf FILE types.

  -e CMD, -x FILE       run commands, as does a script on standard input; -x
                        takes a .py file too
  94                    a pid
  ffff888005051f40      an address, with or without 0x
  schedule+0x46         a symbol and a distance
  loop:lo_open          a symbol of one module
  p init_task.comm      `p` and its like take a C expression to the line's end

See also: docs/man.md, docs/expressions.md
""",
    ),
    "output": Topic(
        "where answers go and in which form",
        """
  CMD | grep x          into a program
  CMD > FILE            into a file; >> adds to it. A file that orcdbg reads is
                        never written over
  --format json         a line of JSON for each command, as docs/contract.md
                        says: addresses are strings, absent values null
  --width N             columns; without a terminal lines are never cut
  --color WHEN          auto, always or never; NO_COLOR is honoured
  set scroll off        no pager for long answers at the prompt
  --keep-going          go on after a command that failed; the exit status is
                        that of the first that did

Answers go to standard output; errors, warnings and progress to standard error.
With an expression a pipe or redirection has a blank before it: `p a > f`
writes, `p a>b` compares.

See also: docs/contract.md, docs/commands.md
""",
    ),
}
