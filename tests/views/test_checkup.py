"""The account of files, in words."""

from __future__ import annotations

import pytest

from orcdbg.checkup.account import Checkup
from orcdbg.checkup.facts import Facts
from orcdbg.checkup.missing import Lack, Missing
from orcdbg.views.checkup import checkup_json, checkup_lines
from orcdbg.views.page import plain

NO_FACTS = Facts(None, None, None, None, False, None, None, None)


@pytest.mark.parametrize("lack", Lack)
def test_whatever_is_missing_has_a_name_and_a_cost(lack: Lack) -> None:
    """In JSON and in text, with its numbers put in, and the command that gets it."""
    result = Checkup((), NO_FACTS, [Missing(lack, "get it", 3, 8)], ())
    (missing,) = checkup_json(result)["missing"]
    assert missing["what"] and missing["cost"]
    assert not set("{}") & set(missing["what"] + missing["cost"])
    assert missing["command"] == "get it"

    text = plain(checkup_lines(result))
    assert f"missing: {missing['what']}: {missing['cost']}" in text
