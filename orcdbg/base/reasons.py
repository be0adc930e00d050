"""What can be a reason: why something is believed, doubted, or at an end?

A reason is a small frozen value with the facts as fields. Code decides by its type and fields; the words are chosen where
it is shown (`views/reasons.py`), so that a sentence can be said better without changing what any walk does.
"""

from __future__ import annotations


class Reason:
    """Root of all reasons. Each leaf is a frozen dataclass; equal fields make equal reasons."""

    __slots__ = ()
