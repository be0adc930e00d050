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

# A stub may describe registers without end, or documents that include each other.
MAX_DOCUMENTS = 32
MAX_REGISTERS = 4096
MAX_BITS = 4096
MAX_ARCHITECTURE = 64

_ARCHITECTURE = "i386:x86-64"
_NUMBER = re.compile("[0-9]{1,9}")
# What becomes part of a question to the stub.
_DOCUMENT = re.compile(r"[\w.-]{1,128}")
# What a CPU must have to be one of x86-64.
_NEEDED = {"rip", "rsp", "eflags", "cs"}


class RegisterPlace(NamedTuple):
    """A register in a `g` answer.

    Attributes:
        name: the stub's, such as `eflags`.
        offset: of its first byte.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


@dataclass(slots=True)
class _Description:
    """What the documents said so far.

    Attributes:
        registers: name and bytes of each register, by its number.
        architecture: the machine's; empty where none was named.
        documents: how many were included.
        next_number: the number of a register that names none.
    """

    registers: dict[int, tuple[str, int]] = field(default_factory=dict)
    architecture: str = ""
    documents: int = 0
    next_number: int = 0


def _attribute(attributes: dict[str, str], name: str, limit: int) -> int:
    """A number among an element's attributes; RemoteError where it is none, or above `limit`."""
    text = attributes.get(name, "")
    if not _NUMBER.fullmatch(text) or int(text) > limit:
        raise RemoteError(f"target description: {name}={text[:40]!r}")
    return int(text)


def _parse(document: bytes, description: _Description, fetch: Callable[[str], bytes]) -> None:
    """Reads a document and those that it includes.

    Args:
        document: the XML.
        description: to which it is added.
        fetch: as for `read_description`.
    """
    # UTF-8 whatever the document says: other encodings are Python's own, with errors of their own.
    parser = expat.ParserCreate("utf-8")
    includes: list[str] = []
    inside: list[str] = []

    def refuse(*_: object) -> None:
        raise RemoteError("target description: it declares an entity")

    def start(name: str, attributes: dict[str, str]) -> None:
        inside.append(name)
        if name == "xi:include":
            includes.append(attributes.get("href", ""))
        if name == "reg":
            _add_register(description, attributes)
        if len(includes) > MAX_DOCUMENTS:
            raise RemoteError("target description: too many includes")

    def text(data: str) -> None:
        if inside and inside[-1] == "architecture":
            description.architecture = (description.architecture + data.strip())[:MAX_ARCHITECTURE]

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: inside.pop() and None
    parser.CharacterDataHandler = text
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise RemoteError(f"target description: not XML: {error}") from error
    for name in includes:
        description.documents += 1
        if not _DOCUMENT.fullmatch(name) or description.documents > MAX_DOCUMENTS:
            raise RemoteError(f"target description: an include of {name[:40]!r}")
        _parse(fetch(name), description, fetch)


def _add_register(description: _Description, attributes: dict[str, str]) -> None:
    """Adds what an element `reg` says; RemoteError where that makes no sense."""
    number = description.next_number
    if "regnum" in attributes:
        number = _attribute(attributes, "regnum", MAX_REGISTERS)
    bits = _attribute(attributes, "bitsize", MAX_BITS)

    if number in description.registers or number > MAX_REGISTERS or bits % 8 or not bits:
        raise RemoteError(f"target description: register {number} of {bits} bits")
    description.registers[number] = attributes.get("name", ""), bits // 8
    description.next_number = number + 1


def read_description(fetch: Callable[[str], bytes]) -> list[RegisterPlace]:
    """The registers of a `g` answer, in its order.

    Args:
        fetch: gives one of the stub's documents by name.

    Raises:
        RemoteError: no description, or not one of an x86-64 machine.
    """
    description = _Description()
    _parse(fetch("target.xml"), description, fetch)
    if description.architecture not in ("", _ARCHITECTURE):
        raise RemoteError(f"the stub's machine is {description.architecture!r}, not x86-64")

    # A `g` answer has the registers one behind another in the order of their numbers.
    places = []
    offset = 0
    for _, (name, size) in sorted(description.registers.items()):
        places.append(RegisterPlace(name, offset, size))
        offset += size

    if not {place.name for place in places} >= _NEEDED:
        raise RemoteError("target description: no registers of an x86-64 machine in it")
    return places
