"""Which snapshot formats are read without a plug-in?"""

from __future__ import annotations

from orcdbg.snapshot.readers import elf_core, kdump, lime, raw, vmware
from orcdbg.snapshot.readers.reader import SnapshotReader

# A reader is asked whether a file is its own only after all before it said no. The order matters only where two readers would
# take one file: then the one that looks at more of it comes first. No two of these would (`tests/snapshot/test_opening.py`
# holds them to it), and a new one may stand anywhere before `raw`. The order below keeps chance away as well: a longer magic
# number comes before a shorter one.
READERS: tuple[SnapshotReader, ...] = (
    kdump.READER,  # 8 bytes, which spell KDUMP
    elf_core.READER,  # 4 bytes that every ELF file begins with, and the type of the file behind them
    lime.READER,  # 4 bytes, either of two
    vmware.READER,  # 4 bytes, any of four, none of them readable: the likeliest to be met by chance
    vmware.GUEST_READER,  # no magic number, but several numbers that have to agree
    raw.READER,  # last: it has no magic number, and knows a file only by how its name was given
)
