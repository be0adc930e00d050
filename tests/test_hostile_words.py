"""Whatever words memory holds, each command ends with an answer or one clear line; and the program that looks for it does."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from orcdbg.base.reading import I64Array, U64Array
from tests.hostile_words import HostileWords, TooMuch, faults_of, limited

ROUNDS = 150


class Zeros:
    """Memory without anything in it."""

    def read(self, address: int, size: int) -> bytes:
        """Zeros."""
        return bytes(size)

    def read_pieces(self, addresses: U64Array, sizes: I64Array) -> list[bytes | None]:
        """Zeros."""
        return [bytes(size) for size in sizes.tolist()]


def test_commands_on_damaged_words_of_the_sample_end_well() -> None:
    """A new seed in every run, which the program prints with all that fails."""
    seed = random.SystemRandom().randrange(1 << 32)
    words = [sys.executable, "-m", "tests.hostile_words", "--seed", str(seed), "--rounds", str(ROUNDS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[:6000] + done.stderr[-2000:]
    assert f"seed {seed}: {ROUNDS} rounds" in done.stdout


def test_a_word_is_another_in_every_read_that_has_some_of_it() -> None:
    """Reads that begin or end inside it too; what is next to it stays."""
    memory = HostileWords(Zeros())
    memory.words = {16: 0x8877665544332211}
    memory.reads = {}
    assert memory.read(8, 24) == bytes(8) + bytes.fromhex("1122334455667788") + bytes(8)
    assert memory.read(12, 6) == bytes(4) + b"\x11\x22"
    assert memory.read(20, 8) == b"\x55\x66\x77\x88" + bytes(4)
    assert memory.read(24, 8) == bytes(8)
    assert list(memory.reads) == [(8, 24), (12, 6), (20, 8), (24, 8)]


def test_what_is_wrong_with_an_output_is_found() -> None:
    """Control characters, JSON that is none, errors of several lines."""
    assert not list(faults_of("text", "answered", "a b\n"))
    assert list(faults_of("text", "answered", "a \x1b[2J\n"))
    assert list(faults_of("text", "error", "orcdbg: one\norcdbg: two\n"))
    assert not list(faults_of("text", "error", "orcdbg: one\nhint: two\n"))
    assert list(faults_of("json", "answered", "{"))
    with pytest.raises(TooMuch), limited(0.05):
        while True:
            time.process_time()
