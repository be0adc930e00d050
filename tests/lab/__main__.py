"""How a person makes a scene by hand: `python -m tests.lab KERNEL SCENE [--seed N]` prints where it lies."""

from __future__ import annotations

import sys

from tests.lab.crowd import crowd
from tests.lab.fetch import RELEASES
from tests.lab.scenes import SCENES


def main(words: list[str]) -> int:
    """Make the scene that `words` name and print its files."""
    scenes = {**SCENES, "crowd": crowd}
    seed = int(words[words.index("--seed") + 1]) if "--seed" in words else 0
    if len(words) < 2 or words[0] not in RELEASES or words[1] not in scenes:
        print(f"usage: python -m tests.lab {{{','.join(RELEASES)}}} {{{','.join(scenes)}}} [--seed N]", file=sys.stderr)
        return 2
    scene = scenes[words[1]](words[0], seed)
    for name in ("vmlinux", "snapshot", "serial", "kaslr"):
        print(f"{name:9} {getattr(scene, name)}")
    still, moved = len(scene.stacks), len(scene.moved)
    print(f"stacks    {still} stood still, {moved} moved")
    if scene.bp_address is not None:
        print(f"nmi at    {scene.bp_address:#x}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
