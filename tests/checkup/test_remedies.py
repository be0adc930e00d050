"""The commands that get what is missing."""

from __future__ import annotations

import pytest

from orcdbg.checkup.remedies import command_for_image, command_for_modules


@pytest.mark.parametrize(
    ("release", "build_id", "command"),
    [
        ("6.1.0-50-cloud-amd64", "ab" * 20, "apt install linux-image-6.1.0-50-cloud-amd64-dbg"),
        ("6.8.0-31-generic", None, "apt install linux-image-unsigned-6.8.0-31-generic-dbgsym"),
        ("5.14.0-427.el9.x86_64", None, "debuginfo-install kernel-5.14.0-427.el9.x86_64"),
        ("6.9.5-200.fc40.x86_64", None, "debuginfo-install kernel-6.9.5-200.fc40.x86_64"),
        ("6.9.5-arch1-1", "ab" * 20, f"debuginfod-find debuginfo {'ab' * 20}"),
        ("6.9.5-arch1-1", None, None),
        ("6.1-amd64; reboot", "ab" * 20, f"debuginfod-find debuginfo {'ab' * 20}"),
        ("5.fc40$(reboot)", "ab; reboot", None),
        ("-o.el9", None, None),
        (None, None, None),
    ],
)
def test_the_one_command(release: str | None, build_id: str | None, command: str | None) -> None:
    """It fits the distribution, and nothing that a snapshot says gets a word of its own into it."""
    assert command_for_image(release, build_id) == command


@pytest.mark.parametrize("release", [None, "6.1; reboot", "$(reboot)", "../../home", "a" * 65, ""])
def test_a_folder_of_modules_has_no_words_of_a_snapshot(release: str | None) -> None:
    """Only a release that is one safe word becomes a part of the path."""
    assert command_for_modules(release) == "patch audit --modules DIR"


def test_a_folder_of_modules_is_that_of_the_release() -> None:
    """Where the release has nothing that a shell would take for more."""
    assert command_for_modules("6.1.0-50-cloud-amd64") == "patch audit --modules /usr/lib/modules/6.1.0-50-cloud-amd64"
