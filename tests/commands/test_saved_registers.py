"""bt --regs, -e, -E, -t, -T on the sample."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import RunProgram


def answer(program: RunProgram, command: str) -> Any:
    """The command's JSON result."""
    return json.loads(program("demo", "--format", "json", "-e", command)[1])["result"]


def test_a_walk_from_the_panics_registers_is_the_rest_of_its_stack(orcdbg_run: RunProgram) -> None:
    """The pt_regs that the NMI saved, by its address."""
    (whole,) = answer(orcdbg_run, "bt")["stacks"]
    number = next(f["index"] for f in whole["frames"][1:] if f["kind"] == "interrupt")
    at = int(whole["frames"][number - 1]["cfa"], 16)
    (rest,) = answer(orcdbg_run, f"bt --regs {at:#x}")["stacks"]
    assert rest["registers_from"] == f"pt_regs {at:#x}"
    assert [(f["ip"], f["sp"]) for f in rest["frames"]] == [(f["ip"], f["sp"]) for f in whole["frames"][number:]]
    assert rest["end"] == "user"


def test_what_is_no_pt_regs_is_refused(orcdbg_run: RunProgram) -> None:
    """By what makes it impossible."""
    status, _, errors = orcdbg_run("demo", "-e", "bt --regs linux_banner")
    assert status != 0
    assert "no pt_regs at" in errors


@pytest.mark.parametrize("option", ["-e", "-E"])
def test_saved_registers_are_found_and_are_guesses(orcdbg_run: RunProgram, option: str) -> None:
    """The user's at the top of the stack, and those of the NMI."""
    found = answer(orcdbg_run, f"bt {option}")["saved"]
    (whole,) = answer(orcdbg_run, "bt")["stacks"]
    places = {f["cfa"] for f in whole["frames"] if f["orc"] and f["orc"]["type"] == "regs"}
    assert places
    assert places <= {one["address"] for one in found}
    assert {one["reliable"] for one in found} == {False}
    assert {one["mode"] for one in found} == {"user", "kernel"}
    assert len({one["task"] for one in found}) > (2 if option == "-E" else 1)


@pytest.mark.parametrize("option", ["-t", "-T"])
def test_text_addresses_are_listed_and_are_guesses(orcdbg_run: RunProgram, option: str) -> None:
    """Every frame's return address is among them, with other things."""
    (whole,) = answer(orcdbg_run, "bt 1")["stacks"]
    (found,) = answer(orcdbg_run, f"bt {option} 1")["stacks"]
    assert {f["ip"] for f in whole["frames"] if f["kind"] == "call"} - {f["ip"] for f in found["frames"]} <= {
        whole["frames"][0]["ip"]
    }
    assert {(f["reliable"], f["source"]) for f in found["frames"]} == {(False, "scan")}
    assert found["end_reason"]
    text = orcdbg_run("demo", "-e", f"bt {option} 1")[1]
    assert "scan: text, behind a call" in text
    assert all(line.startswith("?#") for line in text.splitlines() if "scan: " in line)
