"""Modules' BTF that is damaged: the module is told, and the others' types are there."""

from __future__ import annotations

from typing import cast

import pytest

from orcdbg.base.errors import NotFound, UnsupportedFormat
from orcdbg.kernel.linux import Linux
from orcdbg.typed.btf_types import BtfTypes
from orcdbg.typed.catalog import Catalog
from orcdbg.typed.module_btf import ModuleTypes
from orcdbg.typed.types import EnumType, IntType, Type


class Half:
    """The types of a module that is half gone: no question can be answered."""

    def find(self, *words: str) -> Type | None:
        """Refuses."""
        raise UnsupportedFormat("BTF of half", "a name without an end")

    variable = function = enumerator = find


class Whole:
    """The types of another one."""

    def find(self, keyword: str, name: str) -> Type | None:
        """Knows one."""
        return IntType("number", 4, True) if name == "number" else None

    def variable(self, name: str) -> Type | None:
        """Knows one."""
        return self.find("", name)

    def function(self, name: str) -> None:
        """Knows none."""

    def enumerator(self, name: str) -> tuple[EnumType, int] | None:
        """Knows one."""
        return (EnumType("mode", 4, False, [("IDLE", 3)]), 3) if name == "IDLE" else None


@pytest.fixture
def modules() -> ModuleTypes:
    """Two modules, the first of which is damaged."""
    found = ModuleTypes(cast(Linux, None), cast(BtfTypes, None))
    found.__dict__["_sections"] = {"half": 0xFFFF_8880_0000_1000, "whole": 0xFFFF_8880_0000_2000}
    found._made |= {"half": cast(BtfTypes, Half()), "whole": cast(BtfTypes, Whole())}
    return found


def test_types_behind_a_damaged_module_are_found(modules: ModuleTypes) -> None:
    """By name, and as a variable's or an enumerator's; one line says which module is damaged, however often it is asked."""
    catalog = Catalog(lambda: modules.all(), problems=lambda: modules.problems)
    assert catalog.unread is None
    for keyword in ("struct", ""):
        assert isinstance(catalog.find(keyword, "number"), IntType)
    assert isinstance(catalog.variable("number"), IntType)
    enumerator = catalog.enumerator("IDLE")
    assert enumerator is not None
    assert enumerator[1] == 3
    (line,) = modules.problems
    assert "the BTF of half" in line
    assert "a name without an end" in line
    with pytest.raises(NotFound) as caught:
        catalog.get("lost")
    assert caught.value.hint is not None
    assert line in caught.value.hint
