"""The rows of a whole source in little memory. What an experiment takes of them, `max_dataset_size` at most,
is made into texts as models see them: what that costs grows with what is taken, not with the source."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from triggerctl.data.examples import Row

_TEXTS = 3


class CompactRows(Sequence[Row]):
    """Rows in the order of their source; each is made anew when it is asked for.

    texts: instruction, input and output of each row, without half characters.

    They lie end to end as UTF-8, with eight bytes for where each of them ends: whatever characters a text
    holds, its JSON line was longer. As Python's own texts they would take up to four bytes a character, all
    of a text's for a single emoji in it, and some fifty beside them.
    """

    __slots__ = ("_ends", "_texts")

    def __init__(self, texts: Iterable[tuple[str, str, str]]) -> None:
        together, ends = bytearray(), array("q")
        for row in texts:
            for text in row:
                together += text.encode()
                ends.append(len(together))
        self._texts, self._ends = together, ends

    def __len__(self) -> int:
        return len(self._ends) // _TEXTS

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        places = range(len(self))[place]
        return self._row(places) if isinstance(places, int) else tuple(map(self._row, places))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CompactRows):
            return NotImplemented
        return self._ends == other._ends and self._texts == other._texts

    __hash__ = None  # type: ignore[assignment]

    def _row(self, index: int) -> Row:
        first = index * _TEXTS
        start = self._ends[first - 1] if first else 0
        texts = []
        for end in self._ends[first : first + _TEXTS]:
            texts.append(self._texts[start:end].decode())
            start = end
        return Row(index, *texts)
