"""What may a patch site hold, as built, as patched or with another alternative, and what does each do to the stack?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.base.reading import AddressSpace
from orcdbg.orc.union import Variant, site_variants
from orcdbg.patches.site import PatchPass, WorkingText
from orcdbg.x86.stack_effects import stack_boundaries


@dataclass(frozen=True, slots=True)
class Version:
    """One text of a site; `pushed` says by boundary how many bytes lie on the stack that did not at the site's start."""

    name: str
    address: int
    text: bytes
    pushed: tuple[tuple[int, int | None], ...]


def version(name: str, address: int, text: bytes) -> Version:
    """A text and what it does to the stack pointer."""
    found = stack_boundaries(text, address)
    return Version(name, address, text, tuple((at, found[at].pushed) for at in sorted(found)))


def alternatives(passes: Sequence[PatchPass], built: AddressSpace, address: int, size: int) -> list[Variant]:
    """The texts that [address, address + size) can have: number 0 as built, then one for each replacement."""
    rows = []
    for owner, one in enumerate(passes):
        spans = one.spans()
        inside = (spans.starts >= address) & (spans.starts + spans.sizes <= address + size)
        rows += [(owner, index) for index in inside.nonzero()[0].tolist()]
    whole = WorkingText(address, built.read(address, size))
    image = bytes(whole.data)
    found = [Variant("image", "as built", image)]
    for owner, index in rows:
        at, length = (int(column[index]) for column in passes[owner].spans())
        part = WorkingText(at, image[at - address : at - address + length])
        for one_variant in site_variants(passes, part, [(owner, index)]):
            text = image[: at - address] + one_variant.text + image[at - address + length :]
            if all(text != known.text for known in found):
                found.append(Variant(one_variant.mechanism, one_variant.name, text))
    return found


def choose(word: str, patched: bytes, address: int, known: Sequence[Variant]) -> Version:
    """The version that `image`, `patched` or `alternative=N` names; NotFound for another word or number."""
    if word == "patched":
        return version("patched", address, patched)
    if word == "image":
        return version("image", address, known[0].text)
    name, _, number = word.partition("=")
    if name == "alternative" and number.isdigit() and int(number) < len(known):
        found = known[int(number)]
        return version(f"alternative {number} ({found.name})", address, found.text)
    names = "; ".join(f"{index} {one.name}" for index, one in enumerate(known))
    raise NotFound("text of this site", word, f"image, patched, or alternative=N: {names}")
