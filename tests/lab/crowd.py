"""How does a guest get thousands of threads that sleep in four places, and a snapshot of them all?"""

from __future__ import annotations

import dataclasses
import shutil
import struct
import time
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.guest import Guest, Machine
from tests.lab.initramfs import build_initramfs, load_order
from tests.lab.program import SCRATCH, Call, encode_calls, executable
from tests.lab.scenes import Scene

THREADS = 20_000
SECONDS = 180.0
_STACK = SCRATCH + 0x800  # all threads of a program share it: they make system calls and touch no memory
# CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD, _SYSVSEM (include/uapi/linux/sched.h).
_CLONE = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
_LONG = SCRATCH + 0x100  # a struct timespec
_PIPE = SCRATCH + 0x200

# Each puts its threads to sleep in its own part of the kernel: what the program does first, and what each thread does.
PLACES: dict[str, tuple[list[Call], list[Call]]] = {
    "c_futex": ([], [(202, SCRATCH, 0, 0, 0)]),
    "c_nanosleep": ([], [(35, _LONG, 0)]),
    "c_read": ([(22, _PIPE)], [(0, 3, _PIPE + 16, 8)]),
    "c_poll": ([], [(7, 0, 0, -1)]),
}


def crowd_program(before: list[Call], calls: list[Call], threads: int) -> bytes:
    """Return a static executable that makes the calls `before`, then `threads` threads that each make `calls`."""
    child = encode_calls(calls)
    clone = b"\xb8" + struct.pack("<I", 56) + b"\xbf" + struct.pack("<I", _CLONE) + b"\xbe" + struct.pack("<I", _STACK)
    clone += b"\x31\xd2\x4d\x31\xd2\x4d\x31\xc0\x0f\x05"  # xor edx, r10, r8; syscall
    parent = encode_calls([])
    # test eax,eax; jz child; dec ebx; jnz clone; the parent's end
    loop = clone + b"\x85\xc0\x0f\x84" + struct.pack("<i", 2 + 6 + len(parent)) + b"\xff\xcb"
    loop += b"\x0f\x85" + struct.pack("<i", -len(loop) - 6)
    code = encode_calls(before, ends=False) + _store(_LONG, 1_000_000) + b"\xbb" + struct.pack("<I", threads)
    return executable(code + loop + parent + child)


def _store(address: int, value: int) -> bytes:
    """Machine code that writes a 32-bit number."""
    return b"\xc7\x04\x25" + struct.pack("<II", address, value)


def choose_counts(random: Random, threads: int) -> dict[str, int]:
    """Return how many threads sleep in each place: about a quarter each."""
    counts = [threads // 4 + random.randint(-threads // 20, threads // 20) for _ in range(3)]
    return dict(zip(PLACES, [*counts, threads - sum(counts)], strict=True))


def write_init(random: Random, counts: dict[str, int]) -> str:
    """Return an init that starts the crowd, waits until all are there, and prints one stack in some hundred."""
    starts = "\n".join(f"{name} &" for name in random.sample(list(counts), len(counts)))
    some = f"*{random.randint(0, 9)}{random.randint(0, 9)}"
    total = sum(counts.values())
    show = scripts.SHOW_STACKS.replace("/task/[0-9]*", f"/task/{some}")
    assert show != scripts.SHOW_STACKS
    return f"""
echo 65536 > /proc/sys/kernel/threads-max; echo 131072 > /proc/sys/kernel/pid_max
{show}{scripts.write_symbols(["_text"])}
{starts}
while read -r a b c entities rest < /proc/loadavg; [ ${{entities#*/}} -lt {total} ]; do sleep 1; done
while read -r a b c entities rest < /proc/loadavg; [ ${{entities%/*}} -gt 1 ]; do sleep 1; done
show_stacks 1; echo {scripts.READY}; sleep 2; show_stacks 2; echo {scripts.DONE}
while :; do sleep 100000; done
"""


def crowd(kernel: str, seed: int = 0, threads: int = THREADS) -> Scene:
    """Return a scene of `threads` threads that sleep in four system calls, 2 GB of memory for 20,000.

    Raises:
        Unavailable: the kernel or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """

    def make(home: Path, found: Kernel, random: Random) -> Scene:
        for old in home.parent.glob("*-crowd*"):
            shutil.rmtree(old)  # of such scenes one stays in the cache: it takes 2 GB
        return _make(home, found, random, threads)

    return scenes.cached(kernel, f"crowd{threads}", seed, make)


def _make(home: Path, kernel: Kernel, random: Random, threads: int) -> Scene:
    counts = choose_counts(random, threads)
    programs = {name: crowd_program(*PLACES[name], counts[name]) for name in counts}
    modules = load_order(kernel.modules, ["qemu_fw_cfg"])
    (home / "initrd").write_bytes(build_initramfs(write_init(random, counts), modules, programs))
    memory = 2048 if threads > 10_000 else 512
    with Guest(
        Machine(kernel.vmlinuz, home / "initrd", "panic=-1", smp=2, memory=memory), home / "serial.log"
    ) as guest:
        guest.wait_for(scripts.READY, SECONDS)
        time.sleep(0.5)
        guest.dump(home / "core")
        guest.resume()
        console = guest.wait_for(scripts.DONE, SECONDS)
    return dataclasses.replace(scenes.describe(home, kernel, f"crowd{threads}", console, kaslr=True), counts=counts)
