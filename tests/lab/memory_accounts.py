"""How does a guest tell what its own /proc says of its memory: slabs, vmalloc areas, totals, pages, tracks, cgroups?"""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.guest import Guest, Machine
from tests.lab.program import Call, build_program
from tests.lab.scenes import BOOT_SECONDS, Scene

# A cache that no program adds to or takes from: one node for each file of sysfs.
TRACKED = "kernfs_node_cache"
GROUP, GROUP_HIGH, GROUP_MAX = "box", 6 << 20, 8 << 20

_PAGE = 4096
_MMAP, _MPROTECT, _MADVISE = 9, 10, 28
_READ, _READ_WRITE = 1, 3
_PRIVATE_ANONYMOUS, _FIXED, _POPULATE = 0x22, 0x10, 0x8000
_PAGEOUT, _GUARD_INSTALL = 21, 102
_TOUCHED = _PRIVATE_ANONYMOUS | _FIXED | _POPULATE
SWAPPED, ZEROS, NO_ACCESS, UNTOUCHED, LARGE, GUARDED = (0x1000_0000 * number for number in range(1, 7))
AREA = 16 * _PAGE


def _map(address: int, size: int, protection: int, flags: int) -> Call:
    return (_MMAP, address, size, protection, flags, -1, 0)


# Pages in all states that a program can bring its own into. Kernels before 6.13 refuse the guard, and its pages stay.
CALLS: list[Call] = [
    _map(SWAPPED, 4 * AREA, _READ_WRITE, _TOUCHED),
    (_MADVISE, SWAPPED, 2 * AREA, _PAGEOUT),
    _map(ZEROS, AREA, _READ, _TOUCHED),
    _map(NO_ACCESS, AREA, _READ_WRITE, _TOUCHED),
    (_MPROTECT, NO_ACCESS, AREA, 0),
    _map(UNTOUCHED, AREA, _READ_WRITE, _PRIVATE_ANONYMOUS | _FIXED),
    _map(LARGE, 4 << 20, _READ_WRITE, _TOUCHED),
    _map(GUARDED, AREA, _READ_WRITE, _TOUCHED),
    (_MADVISE, GUARDED, AREA, _GUARD_INSTALL),
]
# To root, kptr_restrict 1 shows addresses, which 0 hashes (5.10).
SETTING = f"""
echo 1 > /proc/sys/kernel/kptr_restrict
mount -t debugfs debug /sys/kernel/debug
mkdir /cg; mount -t cgroup2 cgroup /cg; echo +memory > /cg/cgroup.subtree_control; mkdir /cg/{GROUP}
echo {GROUP_HIGH} > /cg/{GROUP}/memory.high; echo {GROUP_MAX} > /cg/{GROUP}/memory.max
(echo 0 > /cg/{GROUP}/cgroup.procs; exec sleep 100000) &
dd if=/dev/zero of=/tmp/swap bs=1M count=8; losetup /dev/loop7 /tmp/swap || losetup /dev/loop0 /tmp/swap
mkswap /dev/loop7 || mkswap /dev/loop0; swapon /dev/loop7 || swapon /dev/loop0
m_pages & pages=$!
usleep 1500000
"""
SHOW = f"""
show() {{ echo "FILEBEGIN $1"; shift; "$@" 2>/dev/null; echo FILEEND; }}
show_pages() {{
    while read -r range rest; do
        start=${{range%%-*}}; end=${{range##*-}}
        [ "$start" = ffffffffff600000 ] && continue
        echo "AREA $start"
        count=$(((0x$end - 0x$start) / 4096))
        dd if=/proc/$1/pagemap bs=8 skip=$((0x$start / 4096)) count=$count | hexdump -v -e '2/4 "%08x " "\\n"'
    done < /proc/$1/maps
}}
show_all() {{
show slabinfo cat /proc/slabinfo
show vmallocinfo cat /proc/vmallocinfo
show meminfo cat /proc/meminfo
show buddyinfo cat /proc/buddyinfo
show zoneinfo cat /proc/zoneinfo
show swaps cat /proc/swaps
show pages show_pages $pages
show group grep "" /cg/{GROUP}/memory.current /cg/{GROUP}/memory.high /cg/{GROUP}/memory.max
show tracks grep -E "^ *[0-9]+ [a-z_]" /sys/kernel/debug/slab/{TRACKED}/alloc_traces /sys/kernel/slab/{TRACKED}/alloc_calls
echo "PAGES_PID $pages"
}}
"""
END = f"""
show_all; show_stacks 1; sleep 1; show_stacks 2; sleep 1
show_all
echo {scripts.READY}; sleep 5; show_all; show_stacks 3; echo {scripts.DONE}
while :; do sleep 100000; done
"""


def memory_accounts(kernel: str, seed: int = 0) -> Scene:
    """Return a scene of an idle guest that printed its accounts of memory before and after its snapshot.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    return scenes.cached(kernel, "memory", seed, _make)


def _make(home: Path, kernel: Kernel, random: Random) -> Scene:
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + scripts.write_tasks(random) + SETTING + SHOW + END
    initrd = scenes.write_initrd(home, kernel, init, random, {"bin/m_pages": build_program(CALLS)})
    append = f"slub_debug=FZPU,{TRACKED}"
    machine = Machine(kernel.vmlinuz, initrd, append, smp=2, memory=random.randint(224, 320))
    with Guest(machine, home / "serial.log") as guest:
        guest.wait_for(scripts.READY, BOOT_SECONDS)
        time.sleep(0.5)
        guest.dump(home / "core")
        guest.resume()
        console = guest.wait_for(scripts.DONE, BOOT_SECONDS)
    return scenes.describe(home, kernel, "memory", console, kaslr=True)


def printed(scene: Scene) -> dict[str, list[str]]:
    """What the guest printed of each file: twice before the snapshot, and once after it."""
    text = scene.serial.read_text("utf-8", "replace").replace("\r", "")
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"(?ms)^FILEBEGIN (\w+)\n(.*?)^FILEEND$", text):
        found.setdefault(name, []).append(body)
    return found


def pid_with_pages(scene: Scene) -> int:
    """The pid of the program with pages in all states."""
    text = scene.serial.read_text("utf-8", "replace")
    found = re.search(r"(?m)^PAGES_PID (\d+)", text)
    assert found is not None
    return int(found.group(1))
