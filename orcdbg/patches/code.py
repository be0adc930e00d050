"""What does whoever follows code ask of a kernel?

`Code` is the handle that goes down from the session as one argument: rules, walks and judges take it and nothing else of
the kernel. `KernelCode` is the one of a snapshot; tests bring stand-ins of functions that they made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from orcdbg.base.reading import AddressSpace
from orcdbg.formats.call_frame_row import Row
from orcdbg.kernel.exception_table import ExceptionTable
from orcdbg.kernel.generated_code import GeneratedCode
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Location
from orcdbg.patches.ledger import Cluster

if TYPE_CHECKING:
    from orcdbg.image.references import References


class Code(Protocol):
    """The code of a kernel, and the memory that it runs on. All addresses are run-time addresses.

    Text can be asked for in five ways:

    | name        | patches are in it | relocated | where memory is not in the snapshot                |
    |-------------|-------------------|-----------|----------------------------------------------------|
    | `memory`    | yes               | yes       | MemoryFault                                        |
    | `text`      | yes               | yes       | the replay of all patches                          |
    | `built`     | no                | yes       | the image, which is always there                   |
    | `as_run`    | yes               | yes       | MemoryFault                                        |
    | `as_linked` | no                | no        | the image, which is always there                   |

    Without an image, memory does not tell init text from what lies there now, and `as_run` is `as_linked`.

    `built` and `as_linked` know the image's text only: of modules there is none as built.
    """

    @property
    def linux(self) -> Linux:
        """Variables and members by name."""

    @property
    def memory(self) -> AddressSpace:
        """Kernel memory, text included as it is."""

    @property
    def text(self) -> AddressSpace:
        """Text as it ran: memory, or the replay of all patches where memory is not in the snapshot."""

    @property
    def built(self) -> AddressSpace:
        """Text as built, relocated; of modules there is none."""

    @property
    def as_run(self) -> AddressSpace:
        """Text to judge calls by, as it is."""

    @property
    def as_linked(self) -> AddressSpace:
        """Text to judge calls by, as built, not relocated: that is cheaper, and branches are the same."""

    @property
    def slide(self) -> int:
        """Run-time minus link addresses of the image."""

    @property
    def faults(self) -> ExceptionTable:
        """Where faults that the kernel expects are continued."""

    @property
    def references(self) -> References | None:
        """What the image's code is referred to by, at link addresses.

        None without an image, and where livepatches are loaded, which refer to any symbol.
        """

    @property
    def are_patches_listed(self) -> bool:
        """False where nothing tells which places were patched."""

    def locate(self, address: int) -> Location | None:
        """The symbol that holds an address."""

    def starts_of(self, name: str) -> list[int]:
        """Addresses of all functions of a name."""

    def is_text(self, address: int) -> bool:
        """True for an address in code: the image's, a module's, or code that the kernel made."""

    def is_lasting(self, address: int) -> bool:
        """True for an address in core text that the boot does not give back."""

    def generated_at(self, address: int) -> GeneratedCode | None:
        """The code at an address that the kernel made while it ran."""

    def follows_call(self, address: int) -> bool | None:
        """Whether a call instruction, as run or as built, ends at `address`; None where neither text is to be had."""

    def call_target(self, address: int) -> int | None:
        """Where the direct call that ends at `address` goes; None where there is no such call."""

    def cluster(self, address: int) -> Cluster | None:
        """The patch sites that cover an address and may move the stack: of the image's text, or of a module's."""

    def jumps_between(self, start: int, end: int) -> dict[int, int]:
        """Where jumps go that may be patched into [start, end), by where they are."""

    def call_frame(self, address: int) -> Row | None:
        """Call frame information for an address, None where there is none; UnsupportedFormat where it is not understood."""
