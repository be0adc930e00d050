"""How often did a guest die in the emulator, and of what? Work on it begins anew, and the run's end says so."""

from __future__ import annotations

from collections.abc import Iterator

# Of this run. A death is no failure of the test: nothing that the guest had shown counts, and the work begins anew.
DEATHS: list[tuple[str, str]] = []
LONGEST = 300  # characters of a reason, which may quote a console


def note_death(guest: str, reason: str) -> None:
    """Keep for the run's end that a guest died, and print it beside the test.

    Args:
        guest: its kernel, and what it was to do.
        reason: its last words, or what it did not do.
    """
    DEATHS.append((guest, reason))
    print(f"{guest}: the guest died and is begun anew: {reason}")


def account_of_deaths() -> Iterator[str]:
    """The lines for the run's end: how many, and each reason."""
    yield f"{len(DEATHS)} guests died and were begun anew"
    for guest, reason in DEATHS:
        line = "".join(char if char.isprintable() else " " for char in reason)
        yield f"  {guest}: {line[:LONGEST]}"
