"""Which values were shown, and by which number can each be asked for again?"""

from __future__ import annotations

from orcdbg.base.errors import NotFound
from orcdbg.typed.objects import Object

# A script may print millions.
MAX_KEPT = 10_000


class ValueHistory:
    """Values in the order in which they were shown, as gdb counts them: the first is `$1`.

    Attributes:
        last_address: a pointer to what `x` showed last, which is `$_`; None before.
        following_address: a pointer behind that.
    """

    def __init__(self) -> None:
        self._values: dict[int, Object] = {}
        self._count = 0
        self.last_address: Object | None = None
        self.following_address: Object | None = None

    def add(self, value: Object) -> int:
        """Keeps a value; returns its number."""
        self._count += 1
        self._values[self._count] = value
        self._values.pop(self._count - MAX_KEPT, None)
        return self._count

    def recalled(self, word: str) -> Object:
        """The value of `$_`, `$` (the last), `$$` (the one before), `$$3` (three before the last) or `$3`.

        Raises:
            NotFound: there is none.
        """
        if word == "$_":
            if self.last_address is None:
                raise NotFound("address", "$_", "x/FMT sets it to what it showed last")
            return self.last_address
        digits = word.lstrip("$")
        back = len(word) - len(digits) - 1
        number = int(digits or 1) if back or digits else 0
        if back or not digits:
            number = self._count - number
        found = self._values.get(number)
        if found is None:
            raise NotFound(
                "value", word, "p numbers what it shows: $1, $2" if not self._count else f"the last is ${self._count}"
            )
        return found
