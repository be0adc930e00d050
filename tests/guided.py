"""Does damage that is led by which code it reaches find what damage by chance does not?

    python -m tests.guided FORMAT|all --seconds 60

The formats are those of `tests.fuzz` and `tests.fuzz_images`; atheris (libFuzzer for Python) changes their files, and
keeps what leads into code of orcdbg's that no case reached before. It comes with `pip install orcdbg[fuzz]`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from orcdbg.base.errors import OrcdbgError
from tests.fuzz import make_formats
from tests.fuzz_case import MEMORY, SECONDS, Format, clock
from tests.fuzz_images import FORMATS

_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_COVERED = re.compile(r"cov: (\d+)")
_FAULT = "FAULT "
# atheris must be there before orcdbg, to load it so that it tells which code runs.
_CHILD = """
import sys, atheris
with atheris.instrument_imports(include=["orcdbg"]):
    import tests.guided
tests.guided.fuzz(sys.argv[1], int(sys.argv[2]), sys.argv[3])
"""


def all_formats() -> list[str]:
    """The names of all formats."""
    return [*make_formats(), *FORMATS]


def _format(name: str) -> Format:
    makers = {**make_formats(), **FORMATS}
    return makers[name]()


def fuzz(name: str, seconds: int, corpus: str) -> None:
    """Fuzzes in this process, which ends with it; each new fault is a line. orcdbg must be loaded by atheris."""
    import atheris  # an extra that only this needs

    form = _format(name)
    seen: set[str] = set()
    Path(corpus, "whole").write_bytes(form.whole)

    def attempt(data: bytes) -> None:
        try:
            with clock():
                form.attempt(data)
        except OrcdbgError:
            return
        except Exception as error:
            place = repr(traceback.extract_tb(error.__traceback__)[-1])
            if place not in seen:
                seen.add(place)
                sys.stderr.write(f"{_FAULT}{error!r} at {place}, of {data.hex()}\n")

    limits = [f"-max_total_time={seconds}", f"-timeout={6 * SECONDS}", f"-rss_limit_mb={MEMORY >> 20}"]
    atheris.Setup([sys.argv[0], *limits, f"-max_len={2 * len(form.whole)}", "-print_final_stats=0", corpus], attempt)
    atheris.Fuzz()


def run(name: str, seconds: int) -> list[str]:
    """Fuzzes one format in a process of its own and prints a line; the faults that were found."""
    with tempfile.TemporaryDirectory() as corpus:
        words = [sys.executable, "-c", _CHILD, name, str(seconds), corpus]
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    faults = [line.removeprefix(_FAULT) for line in lines if line.startswith(_FAULT)]
    ended = next(filter(None, map(_DONE.search, lines)), None)
    if ended is None:
        faults.append("\n".join(["it did not come to its end:", *lines[-20:]]))
    covered = [int(found[1]) for found in map(_COVERED.search, lines) if found]
    runs = ended[1] if ended else "?"
    print(f"{name:16} {runs} executions in {seconds} s, {covered[-1] if covered else '?'} places reached,", end=" ")
    print(f"{len(faults)} faults", flush=True)
    return faults


def main(words: Sequence[str] | None = None) -> int:
    """Runs what was asked for; status 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.guided", description=__doc__)
    parser.add_argument("format", choices=["all", *all_formats()])
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args(words)
    names = all_formats() if options.format == "all" else [options.format]
    faults = [fault for name in names for fault in run(name, options.seconds)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())
