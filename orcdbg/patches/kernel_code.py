"""What code does this stopped kernel have at an address, as built and as run, and what did it write over it?"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.formats.call_frame_row import Row
from orcdbg.kernel.exception_table import ExceptionTable
from orcdbg.kernel.generated_code import GeneratedCode
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Location, Names
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.image_code import ImageCode
from orcdbg.patches.kernel_patches import KernelPatches
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.text import CodePlaces, PatchedText
from orcdbg.x86.branches import LONGEST_CALL, direct_call_target, ends_with_call

if TYPE_CHECKING:
    from orcdbg.image.references import References


class KernelCode:
    """The code of one stopped kernel: the handle that everything above takes. See `Code` for what it answers.

    Args:
        image: the image's code.
        linux: the kernel's variables, over the memory in question.
        names: names of addresses.
        patches: what the kernel wrote over its text.
    """

    def __init__(self, image: ImageCode, linux: Linux, names: Names, patches: KernelPatches) -> None:
        self.image = image
        self.linux = linux
        self.names = names
        self.patches = patches
        self._places = CodePlaces(image, names)
        self.text = PatchedText(linux.memory, patches, image.built, self._places)

    @property
    def memory(self) -> AddressSpace:
        """Kernel memory, text included as it is."""
        return self.linux.memory

    @property
    def slide(self) -> int:
        """Run-time minus link addresses of the image."""
        return self.image.slide

    @property
    def built(self) -> BuiltText:
        """Text as built, relocated; of modules there is none."""
        return self.image.built

    @property
    def as_linked(self) -> AddressSpace:
        """Text as built, not relocated."""
        return self.image.as_linked

    @property
    def _ran(self) -> tuple[AddressSpace, ...]:
        """What holds text as it ran.

        In memory without an image init text is not told from what lies there now: the boot has given it back.
        """
        return () if self.image.image.is_memory else (self.memory,)

    @property
    def as_run(self) -> AddressSpace:
        """Text to judge calls by, as it is; as linked where memory alone does not tell which text was given back."""
        return self._ran[0] if self._ran else self.as_linked

    @functools.cached_property
    def faults(self) -> ExceptionTable:
        """Where faults that the kernel expects are continued."""
        return ExceptionTable(self.linux, (self.memory, self.as_linked))

    @functools.cached_property
    def references(self) -> References | None:
        """What the image's code is referred to by, at link addresses; see `Code`."""
        references = self.image.references_by(self.linux.symbols)
        return None if references is None or self._is_livepatched else references

    @property
    def _is_livepatched(self) -> bool:
        """Whether a livepatch is loaded: its relocations name any symbol, exported or not (klp_apply_section_relocs)."""
        types = self.linux.types
        if not types.has("module", "klp"):
            return False
        try:
            return any(self.linux.member("module", "klp", module.address) & 0xFF for module in self.names.modules)
        except MemoryFault:
            return True

    @property
    def are_patches_listed(self) -> bool:
        """False where nothing tells which places were patched."""
        return self.patches.are_listed

    def locate(self, address: int) -> Location | None:
        """The symbol that holds an address."""
        return self.names.at(address)

    def starts_of(self, name: str) -> list[int]:
        """Addresses of all functions of a name, those of modules last."""
        return self.names.starts_of(name)

    def is_image_text(self, address: int) -> bool:
        """True for an address in the image's code."""
        return self.image.holds(address)

    def is_text(self, address: int) -> bool:
        """True for an address in code: the image's, a module's, or code that the kernel made."""
        return self._places.holds(address)

    def is_lasting(self, address: int) -> bool:
        """True for an address in core text that the boot does not give back."""
        return self.image.is_lasting(address)

    def generated_at(self, address: int) -> GeneratedCode | None:
        """The code at an address that the kernel made while it ran."""
        return self.names.made.at(address)

    def follows_call(self, address: int) -> bool | None:
        """Whether a call instruction, as run or as built, ends at `address`; None where neither text is to be had."""
        answers = []
        for space in (self.as_linked, *self._ran):
            try:
                answers.append(ends_with_call(space.read(address - LONGEST_CALL, LONGEST_CALL)))
            except MemoryFault:
                continue
        return any(answers) if answers else None

    def call_target(self, address: int) -> int | None:
        """Where the direct call that ends at `address` goes; None where there is no such call."""
        return direct_call_target(self.text, address)

    def cluster(self, address: int) -> Cluster | None:
        """The patch sites that cover an address and may move the stack: of the image's text, or of a module's."""
        found = self.patches.stack_ledger.find(address)
        if found is not None or self.is_image_text(address):
            return found
        module = self.names.module_at(address)
        return None if module is None else self.patches.module_sites.find(module, address)

    def jumps_between(self, start: int, end: int) -> dict[int, int]:
        """Where jumps go that may be patched into [start, end), by where they are."""
        return self.patches.jumps_between(start, end)

    def call_frame(self, address: int) -> Row | None:
        """Call frame information for an address, None where there is none; UnsupportedFormat where it is not understood."""
        return self.image.call_frame(address)

    def over(self, memory: AddressSpace) -> KernelCode:
        """The same code over another memory, text included, such as that of an emulated CPU."""
        return _CodeElsewhere(self, memory)


class _CodeElsewhere(KernelCode):
    """Code over a memory that goes on from the snapshot's: names and patches are those of the snapshot."""

    def __init__(self, origin: KernelCode, memory: AddressSpace) -> None:
        linux = origin.linux
        super().__init__(
            origin.image, Linux(memory, linux.symbols, linux.types, linux.slide), origin.names, origin.patches
        )
        self.text = origin.text
        self._origin = origin

    @property
    def _ran(self) -> tuple[AddressSpace, ...]:
        # Frames that were there before this memory went its own way returned to the text of that time.
        return self.memory, *self._origin._ran
