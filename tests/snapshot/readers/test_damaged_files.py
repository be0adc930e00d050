"""Damaged snapshot files, of every format that is not tested for it by itself.

Crosses the readers: one kind of damage is tried on each.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import BytesSource
from orcdbg.snapshot.readers.elf_core import open_elf_core
from orcdbg.snapshot.readers.lime import open_lime
from orcdbg.snapshot.readers.vmware import open_vmware
from tests.build.elf import Load, core, prstatus
from tests.build.memory_files import avml, lime, vmss
from tests.snapshot.two_ranges import HIGH


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_files_give_memory_or_named_errors(data: st.DataObject) -> None:
    """Any bytes in headers, tags and streams: an OrcdbgError or an answer."""
    small = {0x1000: HIGH[:300] + bytes(5000), 0x9000: bytes(70000)}
    opener, whole = data.draw(
        st.sampled_from(
            [
                (open_lime, lime(small)),
                (open_lime, avml(small)),
                (open_vmware, vmss(HIGH, [(0, 1, 2), (2, 9, 3)], [{"rip": 1, "rsp": 2}])),
                (open_elf_core, core([Load(0x1000, HIGH)], prstatus({}, 1))),
            ]
        )
    )
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 800)))
        raw[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\xff", b"\0", b"\x80", b"\1\0\0\0"]))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        snapshot = opener(BytesSource("file", bytes(raw)))
    except OrcdbgError:
        return
    for address in (0, 0x1000, 0x2000, 0x9000, 0x19000, (1 << 64) - 1):
        try:
            assert len(snapshot.physical.read(address, 600)) == 600
        except OrcdbgError:
            continue
