"""How does a record, whose fields the contract names, become JSON?"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection
from typing import Any

from orcdbg.views.view import Json, hexadecimal


def record(value: Any, addresses: Collection[str] = (), **more: Any) -> Json:
    """The fields of a dataclass by their names.

    Args:
        value: the record. Its fields hold numbers, text, enums and lists of those; what holds records is given in `more`.
        addresses: names of the fields that are addresses; 0 among them means that there is none.
        more: fields to add, or to put in the place of the record's own.
    """
    found: Json = {}
    for field in dataclasses.fields(value):
        if field.name in more:
            continue
        content = getattr(value, field.name)
        found[field.name] = hexadecimal(content or None) if field.name in addresses else _plain(content)
    return found | more


def _plain(content: Any) -> Any:
    if isinstance(content, enum.Enum):
        return content.value
    if isinstance(content, dict):
        # JSON's names are text.
        return {str(name): _plain(inner) for name, inner in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(inner) for inner in content]
    return content
