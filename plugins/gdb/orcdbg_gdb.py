"""gdb's `bt`, `up` and `finish` by ORC and the kernel's own patches: load it with `source` in gdb 13 or later.

    (gdb) source orcdbg_gdb.py        `orcdbg gdb-plugin` prints where it is
    (gdb) target remote :1234

It asks orcdbg who called whom in kernel text, and adds the commands `orc frame`, `orc patches`, `orc check` and `orc slide`.
gdb brings its own Python, so the folders that hold orcdbg and numpy are looked for: ORCDBG_PYTHONPATH names them, else they
are those beside this file.
"""

from __future__ import annotations

import abc
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gdb
from gdb.FrameDecorator import FrameDecorator
from gdb.unwinder import Unwinder, register_unwinder

_HERE = Path(__file__).resolve()
_NAMES = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "eflags", "cs", "ss"),
)
_MASK = (1 << 64) - 1


def _python_folders() -> Iterator[str]:
    """Where orcdbg and what it needs may be: the environment's word, the tree around this file, its virtual environment."""
    yield from filter(None, os.environ.get("ORCDBG_PYTHONPATH", "").split(os.pathsep))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in _HERE.parents[1:5]:
        if (folder / "orcdbg" / "embedding.py").is_file():
            yield str(folder)
        yield from (str(path) for path in (folder / ".venv" / "lib" / version / "site-packages",) if path.is_dir())


sys.path += [folder for folder in _python_folders() if folder not in sys.path]
try:
    from orcdbg.embedding import CallerFrame, EmbeddedKernel, OrcdbgError
except ImportError as error:
    raise gdb.GdbError(
        f"orcdbg cannot be loaded by gdb's Python {sys.version.split()[0]}: {error}. Set ORCDBG_PYTHONPATH to the folders"
        " that hold orcdbg and numpy for this Python, with colons between them"
    ) from None


def _read(address: int, size: int) -> bytes | None:
    """Memory as gdb sees it."""
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except gdb.MemoryError:
        return None


class _Kernel:
    """The kernel that gdb looks at, opened when it is first needed."""

    def __init__(self) -> None:
        self._kernel: EmbeddedKernel | None = None
        self._failed: str | None = None
        self.slide: int | None = None

    def close(self, *_: Any) -> None:
        """Another kernel may come."""
        self._kernel = self._failed = None

    def moved(self, *_: Any) -> None:
        """Nothing that was read holds any longer."""
        self._failed = None
        if self._kernel is not None:
            self._kernel.forget()

    def get(self) -> EmbeddedKernel:
        """The kernel; OrcdbgError where there is none."""
        if self._kernel is None:
            vmlinux = gdb.current_progspace().filename
            if not vmlinux:
                raise OrcdbgError("gdb has no vmlinux", "`file vmlinux`")
            core = re.search(
                r"(?m)^Local core dump file:\n\s*`(.*)', file type ", gdb.execute("info files", False, True)
            )
            if core:
                self._kernel = EmbeddedKernel.of_core(vmlinux, core[1])
            else:
                self._kernel = EmbeddedKernel.of_memory(vmlinux, _read, self.slide)
            _warn_of_slide(self._kernel)
        return self._kernel

    def find(self) -> EmbeddedKernel | None:
        """The kernel, or None; the reason is said once a stop."""
        if self._failed is None:
            try:
                return self.get()
            except OrcdbgError as error:
                self._failed = error.message
                gdb.write(f"orcdbg: {error.message}{f' ({error.hint})' if error.hint else ''}\n", gdb.STDERR)
        return None


def _warn_of_slide(kernel: EmbeddedKernel) -> None:
    """Says so when gdb has the kernel's symbols elsewhere than where it runs."""
    try:
        there = int(gdb.parse_and_eval("(unsigned long)&_text")) & _MASK
    except gdb.error:
        return  # no symbols, and so no wrong ones
    if there != kernel.run_time("_text"):
        gdb.write(
            f"orcdbg: the kernel runs {kernel.slide:#x} above its link addresses; for its names in gdb:"
            f" symbol-file -o {kernel.slide:#x} {gdb.current_progspace().filename}\n",
            gdb.STDERR,
        )


_KERNEL = _Kernel()


class _FrameId:
    """What names a frame to gdb: the CFA, and where its function begins."""

    def __init__(self, sp: gdb.Value, pc: gdb.Value) -> None:
        self.sp = sp
        self.pc = pc


def _registers(frame: Any) -> dict[str, int]:
    """A frame's registers that have a value, by name; `frame` is gdb's, or one that waits to be unwound."""
    found = {}
    for name in _NAMES:
        try:
            found[name] = int(frame.read_register(name)) & _MASK
        except (gdb.error, ValueError):
            continue  # not known in this frame, or not a register of this target
    return found


class OrcUnwinder(Unwinder):
    """Unwinds frames of kernel text; leaves all others to gdb."""

    def __init__(self) -> None:
        super().__init__("orcdbg")
        self._is_asking = False

    def __call__(self, pending: Any) -> Any:
        """The way to the caller, None for a frame that is not the kernel's."""
        if self._is_asking:
            return None
        self._is_asking = True  # gdb may look at frames while orcdbg reads memory through it
        try:
            return self._unwind(pending)
        except OrcdbgError as error:
            gdb.write(f"orcdbg: {error.message}\n", gdb.STDERR)
            return None
        finally:
            self._is_asking = False

    def _unwind(self, pending: Any) -> Any:
        registers = _registers(pending)
        if not {"rip", "rsp"} <= set(registers):
            return None
        level = pending.level()
        # The kernel's half of addresses; or a user's frame, which the kernel's own led to.
        if not registers["rip"] >> 63 and not level:
            return None
        kernel = _KERNEL.find()
        answer = None if kernel is None else kernel.frame(registers, level == 0)
        return None if answer is None else _info(pending, answer)


def _info(pending: Any, answer: CallerFrame) -> Any:
    """The answer as gdb takes it. A caller at 0 is where it ends a stack."""
    pc_type, sp_type = pending.read_register("rip").type, pending.read_register("rsp").type
    frame_id = _FrameId(gdb.Value(answer.place).cast(sp_type), gdb.Value(answer.function).cast(pc_type))
    info = pending.create_unwind_info(frame_id)
    # gdb itself wants a stack pointer of every caller.
    for name, value in (answer.caller or {"rip": 0, "rsp": answer.place}).items():
        try:
            kind = pending.read_register(name).type
        except (gdb.error, ValueError):
            continue
        info.add_saved_register(name, gdb.Value(value.to_bytes(8, "little")[: kind.sizeof], kind))
    return info


class _NamedFrame(FrameDecorator):
    """A frame whose name gdb would look up at the wrong address, or not find."""

    def __init__(self, frame: Any, name: str) -> None:
        super().__init__(frame)
        self._name = name

    def function(self) -> str:
        """The kernel's name."""
        return self._name


class Names:
    """A frame filter: an interrupted frame has the name of the ip itself, and the 0 that ends a stack is no frame."""

    name = "orcdbg"
    enabled = True
    priority = 100

    def __init__(self) -> None:
        gdb.frame_filters[self.name] = self

    def filter(self, frames: Iterable[Any]) -> Iterator[Any]:
        """The frames, some with their names put right."""
        for decorated in frames:
            frame = decorated.inferior_frame()
            if frame.level() and not frame.pc():
                return
            name = _name(frame) if frame.type() == gdb.NORMAL_FRAME else None
            yield decorated if name is None else _NamedFrame(decorated, name)


def _name(frame: gdb.Frame) -> str | None:
    """The name that gdb would not give a frame, None where its own is right."""
    function = frame.function()
    if function is not None and not (frame.level() and _starts(frame.pc())):
        return None
    kernel = _KERNEL.find()
    answer = None if kernel is None else kernel.frame(_registers(frame), frame.level() == 0)
    if answer is None or (function is not None and not answer.exact):
        return None
    return answer.symbol or "??"


def _starts(pc: int) -> bool:
    """Whether a function that gdb knows begins at an address."""
    block = gdb.block_for_pc(pc)
    while block is not None and block.function is None:
        block = block.superblock
    return block is not None and block.start == pc


def _innermost() -> dict[str, int]:
    return _registers(gdb.newest_frame())


class Orc(gdb.Command):
    """What orcdbg knows of the kernel that gdb looks at: `orc frame`, `orc patches`, `orc check`, `orc slide`."""

    def __init__(self) -> None:
        super().__init__("orc", gdb.COMMAND_STACK, prefix=True)


class _OrcCommand(gdb.Command, abc.ABC):
    """A command below `orc`; its docstring is gdb's help for it."""

    word = ""

    def __init__(self) -> None:
        super().__init__(f"orc {self.word}", gdb.COMMAND_STACK)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Runs it; errors become gdb's."""
        try:
            gdb.write(self.answer(argument))
        except OrcdbgError as error:
            raise gdb.GdbError(f"orcdbg: {error.message}{f' ({error.hint})' if error.hint else ''}") from None

    @abc.abstractmethod
    def answer(self, argument: str) -> str:
        """What is shown."""


class OrcFrame(_OrcCommand):
    """Everything behind the selected frame: its ORC row, the patches over it, and why the stack ends there if it does."""

    word = "frame"

    def answer(self, argument: str) -> str:
        """orcdbg's own view of the frame."""
        here = _registers(gdb.selected_frame())
        text = _KERNEL.get().frame_text(_innermost(), here["rip"], here["rsp"])
        found = _KERNEL.get().frame(here, False)
        return text + (f"the stack ends here: {found.why_ends}\n" if found is not None and found.why_ends else "")


class OrcPatches(_OrcCommand):
    """What the kernel wrote over its text at an address, the selected frame's ip without: orc patches [EXPRESSION]."""

    word = "patches"

    def answer(self, argument: str) -> str:
        """orcdbg's `patch at`."""
        address = int(gdb.parse_and_eval(argument)) & _MASK if argument else gdb.selected_frame().pc()
        return _KERNEL.get().patches_text(address)


class OrcCheck(_OrcCommand):
    """Boundaries in patched text where the kernel's own ORC rows do not hold."""

    word = "check"

    def answer(self, argument: str) -> str:
        """orcdbg's `patch check`."""
        return _KERNEL.get().command_text("patch check")


class OrcSlide(_OrcCommand):
    """How far above its link addresses the kernel runs; with a number, says it where memory does not: orc slide [NUMBER]."""

    word = "slide"

    def answer(self, argument: str) -> str:
        """The number."""
        if argument:
            _KERNEL.slide = int(gdb.parse_and_eval(argument)) & _MASK
            _KERNEL.close()
        return f"{_KERNEL.get().slide:#x}\n"


def _install() -> None:
    register_unwinder(None, OrcUnwinder(), True)
    Names()
    for command in (Orc, OrcFrame, OrcPatches, OrcCheck, OrcSlide):
        command()
    for event in (gdb.events.stop, gdb.events.cont, gdb.events.memory_changed, gdb.events.register_changed):
        event.connect(_KERNEL.moved)
    for event in (gdb.events.new_objfile, gdb.events.clear_objfiles, gdb.events.exited):
        event.connect(_KERNEL.close)
    gdb.invalidate_cached_frames()


_install()
