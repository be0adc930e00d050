"""How is a running machine opened through its GDB stub, and let run on when that fails?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orcdbg.gdb.endpoint import parse_endpoint
from orcdbg.gdb.guest import Guest
from orcdbg.image.vmlinux import open_image
from orcdbg.patches.kernel_patches import MakePasses
from orcdbg.target.session import Session

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import TypeOptions


def open_guest(
    image_path: str,
    remote: str,
    slide: int | None = None,
    phys_base: int | None = None,
    extra_passes: Sequence[MakePasses] = (),
    type_options: TypeOptions | None = None,
) -> tuple[Session, Guest]:
    """Opens an image and a running machine, which stops; closing the guest lets it run on.

    Args:
        image_path: the vmlinux.
        remote: where its GDB stub listens, `HOST:PORT` or `unix:PATH`.
        slide: as for `open_session`.
        phys_base: likewise.
        extra_passes: likewise.
        type_options: likewise.

    Raises:
        UsageError: the address is none of this machine's.
        RemoteError: nobody there can be worked with.
        OrcdbgError: as for `open_session`.
    """
    endpoint = parse_endpoint(remote)
    image = open_image(image_path)  # before the machine is stopped, since it may not exist
    guest = Guest(endpoint)
    try:
        session = Session(image, guest.snapshot(), slide, phys_base, extra_passes, type_options=type_options)
        return session, guest
    except BaseException:
        guest.close()
        raise
