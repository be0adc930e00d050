"""A kernel in miniature for rules: text, variables and symbols that a test chooses."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from orcdbg.base.errors import NotFound, NotInSnapshot
from orcdbg.base.reading import AddressSpace, BytesSpace
from orcdbg.patches.site import WorkingText
from orcdbg.patches.state.mitigations import Mitigations

TEXT = 0xFFFF_FFFF_8100_0000
DATA = 0xFFFF_FFFF_8200_0000
THUNKS = TEXT + 0x8000
RETURN_THUNK = TEXT + 0x9000


class Symbol:
    """What rules ask of a symbol."""

    def __init__(self, name: str, address: int) -> None:
        self.name = name
        self.address = address


class Found:
    """What a look-up by address answers."""

    def __init__(self, symbol: Symbol) -> None:
        self.symbol = symbol


class Symbols:
    """Names and addresses, and nothing in between."""

    def __init__(self, names: dict[str, int]) -> None:
        self._names = names

    def find(self, name: str) -> Symbol | None:
        """The symbol of that name."""
        return Symbol(name, self._names[name]) if name in self._names else None

    def at(self, address: int) -> Found | None:
        """The symbol at exactly that address."""
        return next((Found(Symbol(name, at)) for name, at in self._names.items() if at == address), None)


class Variables(AddressSpace):
    """Memory of eight-byte variables."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def read(self, address: int, size: int) -> bytes:
        """The beginning of a variable, or of several that follow each other."""
        out = b""
        while len(out) < size:
            at = address + len(out)
            if at not in self.words:
                raise NotInSnapshot("virtual", at, size)
            out += self.words[at].to_bytes(8, "little")
        return out[:size]


class MiniLinux:
    """What rules ask of a kernel."""

    slide = 0

    def __init__(self, names: dict[str, int], words: dict[int, int]) -> None:
        self.symbols = Symbols(names)
        self.memory = Variables(words)
        self._names = names

    def find_address(self, name: str) -> int | None:
        """A symbol's address."""
        return self._names.get(name)

    def address(self, name: str) -> int:
        """A symbol's address."""
        if name not in self._names:
            raise NotFound("symbol", name)
        return self._names[name]


class MiniFeatures:
    """Feature bits that a test chose; every other one is clear, and without a set none is known."""

    def __init__(self, bits: set[int] | None) -> None:
        self._bits = bits

    def has(self, number: int) -> bool | None:
        """Whether it is set."""
        return None if self._bits is None else number in self._bits

    def retpoline(self, number: int) -> int:
        """The numbers since 5.19."""
        return number

    def name(self, number: int) -> str:
        """A name."""
        return f"feature {number}"


def rows(count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """All places of a pass."""
    return np.arange(count, dtype=np.intp)


def branch(opcode: bytes, at: int, target: int) -> bytes:
    """A branch with a four-byte distance."""
    return opcode + (target - at - len(opcode) - 4 & 0xFFFF_FFFF).to_bytes(4, "little")


def text_of(pieces: dict[int, bytes], size: int = 0x200) -> WorkingText:
    """Text of INT3 with some pieces in it, by offset."""
    data = bytearray(b"\xcc" * size)
    for at, piece in pieces.items():
        data[at : at + len(piece)] = piece
    return WorkingText(TEXT, data)


NAMES = {
    "__x86_indirect_thunk_array": THUNKS,
    "__x86_return_thunk": RETURN_THUNK,
    "x86_return_thunk": DATA,
    "its_return_thunk": RETURN_THUNK + 0x100,
    "srso_return_thunk": RETURN_THUNK + 0x200,
    "uniproc_patched": DATA + 8,
}


def machine(bits: set[int] | None, thunk: int = RETURN_THUNK, one_cpu: int = 0) -> tuple[Any, Mitigations]:
    """A kernel with those features and that return thunk."""
    linux = cast("Any", MiniLinux(NAMES, {DATA: thunk, DATA + 8: one_cpu}))
    return linux, Mitigations(linux, cast("Any", MiniFeatures(bits)))


def image_of(text: WorkingText) -> Any:
    """The text as an image, link addresses being run-time addresses."""
    return BytesSpace(TEXT, bytes(text.data), lambda address, size: NotInSnapshot("image", address, size))
