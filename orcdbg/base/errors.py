"""Which ways can a question to a stopped kernel fail, and what does the user do next?

One root, `OrcdbgError`; each leaf carries its facts as fields, a word for scripts (`kind`), the process exit status
that goes with it, an optional hint, and an optional reason that the views put behind the message. Nothing in the program
tells errors apart by their text.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import NamedTuple

from orcdbg.base.exit_status import ExitStatus
from orcdbg.base.reasons import Reason

Hint = str | Callable[[], str | None]
"""What the user does next, or what finds that out: many errors are caught and forgotten, and cost no search then."""


class OrcdbgError(Exception):
    """Root of all errors that orcdbg raises on purpose."""

    kind = "error"
    exit_status = ExitStatus.FAILED

    def __init__(self, message: str, hint: Hint | None = None, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self._hint = hint
        self.reason = reason

    @property
    def hint(self) -> str | None:
        """What the user does next; None where nothing is known to help."""
        if callable(self._hint):
            try:
                self._hint = self._hint()
            except OrcdbgError:
                self._hint = None  # names cannot be read either, and the error is said all the same
        return self._hint


class WordPlace(NamedTuple):
    """What is wrong in a text that the user typed: `length` characters from `start` on; `start` may be its end."""

    text: str
    start: int
    length: int = 1

    def within(self, line: str) -> WordPlace:
        """The same place in a line that has the text in it; the place itself where the line has not."""
        begin = line.rfind(self.text)
        return self if begin < 0 else WordPlace(line, begin + self.start, self.length)


class UsageError(OrcdbgError):
    """The user's words do not form a command.

    `word` is the one that is wrong, where it is one; `place` says where it stands.
    """

    kind = "usage"
    exit_status = ExitStatus.USAGE

    def __init__(
        self,
        message: str,
        hint: Hint | None = None,
        reason: Reason | None = None,
        *,
        word: str | None = None,
        place: WordPlace | None = None,
    ) -> None:
        super().__init__(message, hint, reason)
        self.word = word
        self.place = place

    def locate(self, line: str) -> None:
        """Finds the place in the line that was typed: that of `word`, the last time that it stands there."""
        if self.place is not None:
            self.place = self.place.within(line)
        elif self.word:
            alone = [found.start() for found in re.finditer(rf"(?<!\S){re.escape(self.word)}(?!\S)", line)]
            start = alone[-1] if alone else line.rfind(self.word)
            self.place = WordPlace(line, start, len(self.word)) if start >= 0 else None


class UnsupportedFormat(OrcdbgError):
    """A file, or a table inside it, is not what its place says it is."""

    kind = "unsupported-format"
    exit_status = ExitStatus.UNSUPPORTED

    def __init__(self, path: str, what: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {what}", hint)
        self.path = path
        self.what = what


class Mismatch(OrcdbgError):
    """The image and the snapshot are of different kernels."""

    kind = "mismatch"
    exit_status = ExitStatus.MISMATCH

    def __init__(self, what: str, image_id: str, snapshot_id: str, hint: str | None = None) -> None:
        super().__init__(
            f"image and snapshot do not belong together: {what} of the image is {image_id}, "
            f"of the snapshot {snapshot_id}",
            hint,
        )
        self.image_id = image_id
        self.snapshot_id = snapshot_id


class OtherTypes(OrcdbgError):
    """Types that were given for a kernel are another kernel's."""

    kind = "mismatch"
    exit_status = ExitStatus.MISMATCH

    def __init__(self, path: str, what: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: the types of another kernel: {what}", hint)
        self.path = path
        self.what = what


class MemoryFault(OrcdbgError):
    """Bytes that were asked for cannot be had; `address` is the first one that is missing."""

    kind = "fault"

    def __init__(self, space: str, address: int, size: int, why: str) -> None:
        super().__init__(f"{why}: {space} address {address:#x} ({size} bytes)")
        self.space = space
        self.address = address
        self.size = size


class Absence(enum.Enum):
    """How memory comes to be missing from a snapshot; the values are the JSON contract's words."""

    ABSENT = "absent"
    """The file does not name the address at all: a hole in physical memory."""

    EXCLUDED = "excluded"
    """makedumpfile left the page out: of zeros, cache, user memory, or free."""

    ZERO_FILLED = "zero-filled"
    """An ELF segment is longer in memory than in the file. ELF reads the rest as zeros, makedumpfile means pages that it left
    out; so no byte of it is taken for what was there."""

    CUT_OFF = "cut off"
    """The file ends before the page, or the dump was stopped half-way."""

    DAMAGED = "damaged"
    """The page's data do not unpack to a page."""

    TRIMMED = "trimmed"
    """`orcdbg trim` left it out."""


class NotInSnapshot(MemoryFault):
    """The address is good but its memory was not saved; `state` says how it comes to be missing."""

    kind = "not-in-snapshot"

    def __init__(self, space: str, address: int, size: int, state: Absence | str = Absence.ABSENT) -> None:
        self.state = Absence(state)  # a reader of a plug-in has the words alone
        super().__init__(space, address, size, f"not in the snapshot ({self.state.value})")


class BadAddress(MemoryFault):
    """Nothing is mapped at the address."""

    kind = "bad-address"

    def __init__(self, space: str, address: int, size: int) -> None:
        super().__init__(space, address, size, "not mapped")


class NotFound(OrcdbgError):
    """A name, task or thing that was asked for does not exist here."""

    kind = "not-found"

    def __init__(self, what: str, name: str, hint: Hint | None = None) -> None:
        super().__init__(f"no such {what}: {name}", hint)
        self.what = what
        self.name = name


class Corrupt(OrcdbgError):
    """A structure in the snapshot contradicts itself or exceeds every sane bound."""

    kind = "corrupt"


NO_MEMORY = "not enough memory"


def failure_of(error: OSError) -> OrcdbgError:
    """What the system refused, as an error of ours: of a file that it names, else of writing the answer."""
    why = error.strerror or str(error)
    if error.filename is None:
        return OrcdbgError(f"the answer cannot be written: {why}")
    name = error.filename if isinstance(error.filename, str) else repr(error.filename)
    return UnsupportedFormat(name, f"cannot be opened: {why}")


class RemoteError(OrcdbgError):
    """The peer of a debugging connection breaks the protocol, does not answer, refuses, or went away."""

    kind = "remote"
