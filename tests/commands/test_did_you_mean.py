"""A name that there is not is answered with those that may have been meant."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("bta", "did you mean bt?"),
        ("forech bt", "did you mean foreach?"),
        ("help forech", "did you mean foreach?"),
        ("sym init_tsk", "did you mean init_task?"),
        ("rd jiffie", "did you mean jiffies, jiffies_64 or jiffies_seq?"),
        ("dis schedul", "did you mean schedule, schedule_idle or schedule_tail?"),
        ("bt --has schedul", "did you mean schedule, schedule_idle or schedule_tail?"),
        ("break sys_clone", "did you mean __do_sys_clone or __x64_sys_clone?"),
        ("p init_tsk.pid", "did you mean init_task?"),
        ("p init_task.com", "did you mean comm?"),
        ("p init_task.se.lod", "did you mean load?"),
        ("struct task_struct.se.lod", "did you mean se.load?"),
        ("task -R com", "did you mean comm?"),
        ("struct tsk_struct", "did you mean tss_struct or task_struct?"),
        ("ptype struct tsk_struct", "did you mean tss_struct or task_struct?"),
        ("p (struct tsk_struct *)0", "did you mean tss_struct or task_struct?"),
        ("whatis fil_operations", "did you mean struct file_operations?"),
        ("p nosuch", "`sym -q` searches for names"),
        ("p dead", "a hexadecimal number begins with 0x: 0xdead"),
        ("sym nosuch_symbol", None),
    ],
)
def test_a_wrong_name_has_a_hint(debugger: Debugger, registry: Registry, line: str, hint: str | None) -> None:
    """In one line, of at most three names; none where none is near."""
    with pytest.raises(OrcdbgError) as refused:
        registry.run(debugger, line)
    assert refused.value.hint == hint
