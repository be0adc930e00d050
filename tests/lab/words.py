"""How does a guest tell what its own /proc says of tasks, files, mounts and counts, before and after its snapshot?"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.scenes import Scene

# Mounts above each other, a bind mount, a file that is gone, a connection, signals that wait because their task is stopped.
SETTING = """
mkdir -p /tmp/deep/er; mount -t tmpfs -o nosuid,noexec inner /tmp/deep/er
mkdir /tmp/deep/er/bound; mount -o bind /bin /tmp/deep/er/bound; mount -o remount,bind,ro /tmp/deep/er/bound
(cd /tmp/deep/er; exec sleep 100000 3< /tmp/deep/er/bound/busybox 4> /tmp/deep/er/gone 5> "/tmp/two words") &
ifconfig lo 127.0.0.1 up
(nc -l -p 7100 < /dev/ttyS0) & usleep 500000; (nc 127.0.0.1 7100 < /dev/ttyS0) &
sh -c 'kill -STOP $$' & stopped=$!
usleep 500000; rm /tmp/deep/er/gone; kill -USR1 $stopped; kill -TERM $stopped

"""
# Files whose contents stay as they are while the guest is idle, and such as the snapshot must be in between of.
STILL = """
show() { echo "FILEBEGIN $1"; shift; "$@" 2>/dev/null; echo FILEEND; }
show_still() {
show fd ls -l /proc/[0-9]*/fd
show links ls -l /proc/[0-9]*/cwd /proc/[0-9]*/root
show maps grep "" /proc/[0-9]*/maps
show status grep -E "^(Name|PPid|VmSize|VmRSS|Threads|SigQ|ShdPnd|SigPnd|SigBlk|SigIgn|SigCgt)" /proc/[0-9]*/status
show mounts cat /proc/1/mountinfo
show devices cat /proc/devices
show partitions cat /proc/partitions
show cmdline cat /proc/cmdline
show tainted cat /proc/sys/kernel/tainted
show cpuinfo cat /proc/cpuinfo
show address ip addr
show arguments tr '\\0' '\\n' < /proc/1/cmdline
show iomem cat /sys/firmware/memmap/*/start
}
show_moving() {
show interrupts cat /proc/interrupts
show softirqs cat /proc/softirqs
show timers cat /proc/timer_list
show stat cat /proc/[0-9]*/stat
show uptime cat /proc/uptime
}
"""
END = f"""
show_still; show_stacks 1; sleep 1; show_stacks 2; show_moving; sleep 1
echo {scripts.READY}; sleep 5; show_moving; show_stacks 3; echo {scripts.DONE}
while :; do sleep 100000; done
"""


def words(kernel: str, seed: int = 0) -> Scene:
    """Return a scene of sleeping tasks whose files, mounts and counts the guest printed.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    return scenes.cached(kernel, "words", seed, _make)


def _make(home: Path, kernel: Kernel, random: Random) -> Scene:
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + scripts.write_tasks(random) + SETTING + STILL + END
    initrd = scenes.write_initrd(home, kernel, init, random)
    return scenes.dump_when_ready(home, kernel, "words", initrd, random)


def printed(scene: Scene) -> dict[str, list[str]]:
    """What the guest printed of each file: once, or before and after the snapshot."""
    text = scene.serial.read_text("utf-8", "replace").replace("\r", "")
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"(?ms)^FILEBEGIN (\w+)\n(.*?)^FILEEND$", text):
        found.setdefault(name, []).append(body)
    return found
