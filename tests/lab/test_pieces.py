"""Do the parts of the lab hold that need neither network nor emulator: formats written, and text read back?"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab import initramfs, program, scripts
from tests.lab.apt import Unavailable, find_mirror, parse_deb822, parse_one_line

STANZAS = """# a comment
Types: deb deb-src
# URIs: http://commented.example/debian
URIs: http://one.example/debian
 http://two.example/debian
Suites: stable

Types: deb-src
URIs: http://sources.example/debian

Types: deb
Enabled: no
URIs: http://disabled.example/debian
"""
CONSOLE = """\r
ROUND 1\r
STACKBEGIN 7 7 a b\r
[<0>] f+0x1/0x2 [m]\r
[<0>] g+0x1/0x2\r
STACKEND\r
STACKBEGIN 8 9 sleep\r
[<0>] f+0x1/0x2\r
STACKEND\r
ROUNDEND\r
ROUND 2\r
STACKBEGIN 7 7 a b\r
[<0>] f+0x1/0x2 [m]\r
[<0>] g+0x1/0x2\r
STACKEND\r
STACKBEGIN 8 9 sleep\r
[<0>] h+0x1/0x2\r
STACKEND\r
ROUNDEND\r
ROUND 3\r
STACKBEGIN 7 7 a b\r
"""


def test_stanza_uris_are_those_of_enabled_binary_sources() -> None:
    """Comments, sources only and disabled stanzas name no mirror."""
    assert list(parse_deb822(STANZAS)) == ["http://one.example/debian", "http://two.example/debian"]


def test_one_line_uris_stand_after_options() -> None:
    """Options in brackets, source lines and comments are passed over."""
    text = "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian stable main\ndeb-src http://two.example/ x y\n#deb z"
    assert list(parse_one_line(text)) == ["http://one.example/debian"]


def test_the_mirror_is_a_debian_archive_of_this_machine(tmp_path: Path) -> None:
    """Third parties' sources, and the security archive, are not taken for the Debian archive."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://other.example/node_20.x x main\n")
    with pytest.raises(Unavailable):
        find_mirror(tmp_path)
    security = "deb http://one.example/debian-security x main\n"
    (tmp_path / "sources.list.d" / "a.list").write_text(security + "deb http://two.example/debian x main\n")
    assert find_mirror(tmp_path) == "http://two.example/debian"


def test_a_cpio_archive_has_every_name_and_every_byte() -> None:
    """Each member starts on a multiple of four, and the trailer ends the archive."""
    archive = initramfs.encode_cpio([initramfs.Entry("a/b", 0o100644, b"12345")])
    assert len(archive) % 4 == 0
    assert archive.count(b"070701") == 2
    assert archive[54:62] == b"00000005"
    assert archive[110:116] == b"a/b\0\0\0"
    assert archive[116:124] == b"12345\0\0\0"
    assert archive.endswith(b"TRAILER!!!\0\0\0\0")


def test_modules_load_after_what_they_need(tmp_path: Path) -> None:
    """Dependencies come from the modules themselves; an unknown name is left out."""
    (tmp_path / "a-b.ko").write_bytes(b"\0depends=c,d\0")
    (tmp_path / "c.ko").write_bytes(b"\0depends=d\0")
    (tmp_path / "d.ko").write_bytes(b"\0depends=\0")
    assert list(initramfs.load_order(tmp_path, ["a_b", "none"])) == ["d", "c", "a_b"]


def test_a_written_program_makes_its_calls(tmp_path: Path) -> None:
    """The second call gets the first one's result: dup(1) is exited with."""
    path = tmp_path / "program"
    path.write_bytes(program.build_program([(32, 1), (60, program.PREVIOUS)]))
    path.chmod(0o755)
    assert 3 <= subprocess.run([str(path)], stdout=subprocess.DEVNULL, timeout=10, check=False).returncode < 30


def test_only_tasks_that_stood_still_count() -> None:
    """A task seen at two places moved; an unfinished round is no round."""
    still, moved = scripts.still_and_moved(scripts.parse_rounds(CONSOLE), lambda comm: True)
    assert still[7].frames == ("f+0x1/0x2 [m]", "g+0x1/0x2")
    assert (list(still), list(moved), moved[9].comm) == ([7], [9], "sleep")
