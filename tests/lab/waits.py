"""Who waits for whom in the lab's guests, by what the threads that wait said before they did?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.guest import GuestError
from tests.lab.kbuild import ModuleSource, built_driver
from tests.lab.scenes import Scene

WAITS = ModuleSource(Path(__file__).parent / "waiting", "orcwaits")
_END = f"""
show_stacks 1; sleep 1; show_stacks 2; sleep 1
echo {scripts.READY}; sleep 5; show_stacks 3; echo {scripts.DONE}
while :; do sleep 100000; done
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a thread said that it is about to wait for; `holder` and `object` 0 where it does not know."""

    name: str
    waiter: int
    kind: str
    object: int
    holder: int
    certainty: str
    seconds: float


def waits(kernel: str, seed: int = 0) -> Scene:
    """Return a scene of threads that wait for each other.

    Raises:
        Unavailable: the kernel, its headers, their tools or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    built_driver(kernel, WAITS)
    return scenes.cached(kernel, f"waits@{WAITS.hash[:8]}", seed, _make)


def _make(home: Path, kernel: Kernel, random: Random) -> Scene:
    load = f"echo WAITS; insmod /driver/{WAITS.name}.ko; dmesg | grep ' {WAITS.name}: '; echo WAITED\n"
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + load + scripts.write_tasks(random) + _END
    file = built_driver(kernel.name, WAITS).file
    initrd = scenes.write_initrd(home, kernel, init, random, {f"driver/{WAITS.name}.ko": file.read_bytes()})
    return scenes.dump_when_ready(home, kernel, "driver", initrd, random)


def said(scene: Scene) -> list[Said]:
    """What the threads said, the worker of the flushed work put in its place; all of it, or GuestError."""
    text = scene.serial.read_text("utf-8", "replace").partition("WAITS")[2].partition("WAITED")[0]
    lines = re.findall(rf"\[ *([\d.]+)\] {WAITS.name}: (\w+) ([^\r\n]*)", text)
    told = {key: words for _, key, words in lines if key != "edge"}
    found = []
    for time, key, words in lines:
        if key != "edge":
            continue
        name, waiter, kind, thing, holder, certainty = words.split()
        if certainty == "worker":
            holder, certainty = told["worker"], "derived"
        found.append(Said(name, int(waiter, 16), kind, int(thing, 16), int(holder, 16), certainty, float(time)))
    if int(told.get("end", 0)) != len(found):
        raise GuestError(f"{len(found)} threads said what they wait for, of {told.get('end')}")
    return found
