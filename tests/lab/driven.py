"""What does the lab's own driver hold, by what it said in the guest's log before the snapshot?"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from tests.lab import scenes, scripts
from tests.lab.fetch import Kernel
from tests.lab.kbuild import NAME, built_driver, source_hash
from tests.lab.scenes import Scene

END = f"""
show_stacks 1; sleep 1; show_stacks 2; sleep 1
echo {scripts.READY}; sleep 5; show_stacks 3; echo {scripts.DONE}
while :; do sleep 100000; done
"""


def driver(kernel: str, seed: int = 0) -> Scene:
    """Return a scene of an idle guest with the lab's driver, whose values the seed chose.

    Raises:
        Unavailable: the kernel, its headers, their tools or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    built_driver(kernel)
    return scenes.cached(kernel, f"driver@{source_hash()[:8]}", seed, _make)


def _make(home: Path, kernel: Kernel, random: Random) -> Scene:
    values = {"count": random.randint(3, 12), "freed": random.randint(1, 4), "salt": random.randrange(1, 1 << 31)}
    words = " ".join(f"{name}={value}" for name, value in values.items())
    # Before the tasks, one of which may write the log to the console as well.
    load = f"echo DRIVER; insmod /driver/{NAME}.ko {words}; dmesg | grep ' {NAME}: '; echo DRIVEN\n"
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + load + scripts.write_tasks(random) + END
    file = built_driver(kernel.name).file
    initrd = scenes.write_initrd(home, kernel, init, random, {f"driver/{NAME}.ko": file.read_bytes()})
    return scenes.dump_when_ready(home, kernel, "driver", initrd, random)


def said(scene: Scene) -> dict[str, list[list[str]]]:
    """What the driver said: the words behind each key, line by line."""
    text = scene.serial.read_text("utf-8", "replace")
    text = text.partition("DRIVER")[2].partition("DRIVEN")[0]
    found: dict[str, list[list[str]]] = {}
    for key, words in re.findall(rf"{NAME}: (\w+) ([^\r\n]*)", text):
        found.setdefault(key, []).append(words.split(" ", 2))
    return found
