"""How the bundled sample came about: builds the small kernel, lets an NMI strike in lock_is_held_type, and dumps it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from samples.lock_is_held_type.cut import cut
from tests.lab import scripts
from tests.lab.fetch import ensure_source
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.initramfs import build_initramfs
from tests.lab.program import sleeper_programs
from tests.lab.scenes import BOOT_SECONDS
from tests.lab.strike import in_system_call, strike

SYMBOL = "lock_is_held_type"
FRAGMENT = HERE / f"{SYMBOL}.config"
# The banner of the kernel is part of the image: fixed, so that a second build differs from the first as little as can be.
IDENTITY = {
    "KBUILD_BUILD_USER": "orcdbg",
    "KBUILD_BUILD_HOST": "lab",
    "KBUILD_BUILD_VERSION": "1",
    "KBUILD_BUILD_TIMESTAMP": "2024-08-10 00:00:00 UTC",
}
NEEDED_SECTIONS = [".BTF", ".orc_unwind_ip", ".orc_unwind", ".altinstructions", ".altinstr_replacement"]
NEEDED_SECTIONS += [".parainstructions", ".smp_locks", ".symtab"]
ATTEMPTS = 8

# Tasks that sleep, each elsewhere, and one that never stops forking, piping, signalling and reading.
INIT = (
    scripts.SHOW_STACKS
    + scripts.write_symbols(["_text", SYMBOL])
    + f"""
sleep 100000 &
sleep 100000 | cat &
sh -c 'sleep 100000 & wait' &
mkfifo /tmp/open; cat /tmp/open &
yes | sleep 100000 &
cat /dev/ttyS0 &
sh -c 'kill -STOP $$' &
for program in s_futex s_poll s_epoll s_pause s_select s_sigwait s_vfork; do $program & done
usleep 500000
show_stacks 1; sleep 1; show_stacks 2
echo {scripts.BUSY}
while :; do
    echo words | cat > /dev/null
    sh -c 'trap : USR1; kill -USR1 $$'
    cat /proc/*/stat > /dev/null
    usleep 100
done
"""
)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command, showing its output, and end here if it fails."""
    print("+", *command, file=sys.stderr)
    subprocess.run(list(map(str, command)), cwd=cwd, env={**os.environ, **IDENTITY}, check=True)


def build(source: Path) -> None:
    """Unpack, configure and compile the kernel in `source`; what is there already is not made again."""
    if not (source / "Makefile").exists():
        source.mkdir(parents=True, exist_ok=True)
        run("tar", "-x", "-f", ensure_source("5.10"), "-C", source, "--strip-components=1")
    if not (source / "vmlinux").exists():
        run("make", "tinyconfig", cwd=source)
        run("scripts/kconfig/merge_config.sh", "-m", ".config", FRAGMENT, cwd=source)
        run("make", "olddefconfig", cwd=source)
        run("make", f"-j{os.cpu_count()}", "vmlinux", "bzImage", cwd=source)


def collect(source: Path, output: Path) -> None:
    """Copy out the bootable image, the configuration, and a vmlinux without DWARF and relocations."""
    shutil.copy(source / "arch/x86/boot/bzImage", output / "bzImage")
    shutil.copy(source / ".config", output / ".config")
    # The relocations only serve to move the kernel, and this one boots where it was linked.
    run("objcopy", "--strip-debug", "--remove-relocations=*", source / "vmlinux", output / "vmlinux")
    listed = subprocess.run(["readelf", "-SW", str(output / "vmlinux")], capture_output=True, text=True, check=True)
    missing = [name for name in NEEDED_SECTIONS if f" {name} " not in listed.stdout]
    if missing:
        raise SystemExit(f"vmlinux lost {missing}")


def make_snapshot(kernel: Path, output: Path, skipped: int) -> None:
    """Boot, let the NMI strike at the hit after `skipped` others, and dump.

    Raises:
        GuestError: it struck elsewhere, or not in a system call.
    """
    initrd = output / "initrd"
    initrd.write_bytes(build_initramfs(INIT, {}, sleeper_programs()))
    machine = Machine(kernel, initrd, "nokaslr unknown_nmi_panic panic=0", memory=128)
    with Guest(machine, output / "serial.log") as guest:
        start = scripts.parse_symbols(guest.wait_for(scripts.BUSY, BOOT_SECONDS))[SYMBOL]
        strike(guest, SYMBOL, start, None, in_system_call, skipped)
        check_trace(guest.console())
        guest.dump(output / "full.core")
    initrd.unlink()


def check_trace(console: str) -> None:
    """Check the kernel's own trace: a system call below the NMI, and no interrupt in between.

    Raises:
        GuestError: it is otherwise.
    """
    trace = console[console.index("Kernel panic") :]
    if "entry_SYSCALL_64" not in trace or re.search(r"<IRQ>|asm_\w*(interrupt|sysvec)", trace):
        raise GuestError("the NMI did not strike in a plain system call")


def main(words: list[str]) -> int:
    """Make the sample in the folder named first; a second one names a kernel tree to build in, or built already."""
    if not 1 <= len(words) <= 2:
        print("usage: make.py OUTDIR [KERNEL-TREE]", file=sys.stderr)
        return 2
    output = Path(words[0]).resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="orcdbg-sample-") as scratch:
        source = Path(words[1] if len(words) > 1 else scratch).resolve()
        build(source)
        collect(source, output)
    for attempt in range(ATTEMPTS):
        try:
            make_snapshot(output / "bzImage", output, skipped=10 + 7 * attempt)
            cut(output / "vmlinux", output / "full.core", output)
            return 0
        except GuestError as error:
            print(f"attempt {attempt + 1}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
