"""Which registers does a stub have, and in which order does it send them?

Reads a target description (gdb's gdbserver documents, "Target Descriptions"): XML from a stranger, so of bounded size,
with no entities, and with includes that name other documents of the stub only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

from orcdbg.base.errors import RemoteError

MAX_DOCUMENTS, MAX_REGISTERS, MAX_BITS = 32, 4096, 4096
_NUMBER = re.compile("[0-9]{1,9}")
_DOCUMENT = re.compile(r"[\w.-]{1,128}")


class RegisterPlace(NamedTuple):
    """A register in a `g` answer: where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


@dataclass(slots=True)
class _Found:
    registers: dict[int, tuple[str, int]] = field(default_factory=dict)
    architecture: str = ""
    documents: int = 0
    following: int = 0


def _attribute(attributes: dict[str, str], name: str, limit: int) -> int:
    text = attributes.get(name, "")
    if not _NUMBER.fullmatch(text) or int(text) > limit:
        raise RemoteError(f"target description: {name}={text[:40]!r}")
    return int(text)


def _parse(document: bytes, found: _Found, fetch: Callable[[str], bytes]) -> None:
    parser = expat.ParserCreate("utf-8")  # whatever the document says: other encodings are Python's, with its errors
    includes: list[str] = []
    inside: list[str] = []

    def refuse(*_: object) -> None:
        raise RemoteError("target description: it declares an entity")

    def start(name: str, attributes: dict[str, str]) -> None:
        inside.append(name)
        if name == "xi:include":
            includes.append(attributes.get("href", ""))
        if name == "reg":
            number = _attribute(attributes, "regnum", MAX_REGISTERS) if "regnum" in attributes else found.following
            bits = _attribute(attributes, "bitsize", MAX_BITS)
            if number in found.registers or number > MAX_REGISTERS or bits % 8 or not bits:
                raise RemoteError(f"target description: register {number} of {bits} bits")
            found.registers[number] = attributes.get("name", ""), bits // 8
            found.following = number + 1
        if len(includes) > MAX_DOCUMENTS:
            raise RemoteError("target description: too many includes")

    def text(data: str) -> None:
        if inside and inside[-1] == "architecture":
            found.architecture = (found.architecture + data.strip())[:64]

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: inside.pop() and None
    parser.CharacterDataHandler = text
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise RemoteError(f"target description: not XML: {error}") from error
    for name in includes:
        found.documents += 1
        if not _DOCUMENT.fullmatch(name) or found.documents > MAX_DOCUMENTS:
            raise RemoteError(f"target description: an include of {name[:40]!r}")
        _parse(fetch(name), found, fetch)


def read_description(fetch: Callable[[str], bytes]) -> list[RegisterPlace]:
    """The registers of a `g` answer, in its order.

    Args:
        fetch: gives one of the stub's documents by name.

    Raises:
        RemoteError: no description, or not one of an x86-64 machine.
    """
    found = _Found()
    _parse(fetch("target.xml"), found, fetch)
    if found.architecture not in ("", "i386:x86-64"):
        raise RemoteError(f"the stub's machine is {found.architecture!r}, not x86-64")
    places, offset = [], 0
    for number in sorted(found.registers):
        name, size = found.registers[number]
        places.append(RegisterPlace(name, offset, size))
        offset += size
    if not {"rip", "rsp", "eflags", "cs"} <= {place.name for place in places}:
        raise RemoteError("target description: no registers of an x86-64 machine in it")
    return places
