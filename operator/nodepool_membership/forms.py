"""The forms that secret values have in texts, and how far a text goes on like one of them.

They are found by pieces of eight characters. A text costs much the same whether few forms have a piece or thousands:
somebody may have made up values that begin alike.
Not for: which forms a value has, how long it is known (`redaction`).
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

PIECE: Final = 8
"""Characters by which a form is found."""
LONGEST: Final = 2048
"""Characters that are kept of a form."""

_FEW: Final = 16
"""Forms with one piece that are compared one by one. Most pieces have one; keeping them in order takes more memory."""
_STRIDE: Final = 16
_DENSE: Final = 64
_SPARSE_STRIDE: Final = 256

Place = tuple[str, int]
"""A form, and where in it a piece is."""
Order = tuple[str | int, ...]


@dataclass(slots=True, eq=False)
class Forms:
    """Those of one value, and who chose it."""

    forms: tuple[str, ...]
    chosen_by: set[str | None]
    """None: nobody chose it, so that it may be in any text."""

    def may_be_in_texts_of(self, whom: str | None) -> bool:
        return whom is None or None in self.chosen_by or whom in self.chosen_by

    def pieces(self) -> Iterator[tuple[str, Place]]:
        """Those that its forms are found by."""
        for form in self.forms:
            last = len(form) - PIECE
            for offset in (*range(0, min(last, _DENSE) + 1, _STRIDE), *range(_SPARSE_STRIDE, last + 1, _SPARSE_STRIDE)):
                yield form[offset : offset + PIECE], (form, offset)


class Crowd:
    """The forms with one piece where they are many, in order: beside a text stands what goes on like it for longest."""

    __slots__ = ("_ahead", "_back", "_choices")

    def __init__(self, places: Iterable[tuple[str, int, Forms]]) -> None:
        self._ahead: list[Place] = []
        self._back: list[Place] = []
        self._choices: Counter[str | None] = Counter()
        """How many of the forms who chose."""
        for form, offset, known in places:
            self.enter((form, offset), known)

    def __len__(self) -> int:
        return len(self._ahead)

    def enter(self, place: Place, known: Forms) -> None:
        insort(self._ahead, place, key=_ahead)
        insort(self._back, place, key=_back)
        self._choices.update(known.chosen_by)

    def leave(self, place: Place, known: Forms) -> None:
        del self._ahead[bisect_left(self._ahead, _ahead(place), key=_ahead)]
        del self._back[bisect_left(self._back, _back(place), key=_back)]
        self._choices.subtract(known.chosen_by)
        for whom in known.chosen_by:
            if not self._choices[whom]:
                del self._choices[whom]

    def choose(self, whom: str | None) -> None:
        """One of the forms is chosen by somebody else, too."""
        self._choices[whom] += 1

    def may_be_in_texts_of(self, whom: str | None) -> bool:
        """Any of them: where one may be, a text is held against all."""
        return whom is None or None in self._choices or whom in self._choices

    def nearest(self, text: str, position: int) -> list[Place]:
        """Among these few are the form that goes on like the text for longest, and the one that does so backwards."""
        ahead = text[position : position + LONGEST]
        at = _first(self._ahead, ahead, _ahead)
        near = self._ahead[max(at - 1, 0) : at + 1]
        alike = max(_alike(ahead, form[offset:]) for form, offset in near)
        # Of those that end right there, the longest one: no more may be kept of its value.
        at = _first(self._ahead, ahead[:alike], _ahead)
        near += self._ahead[at : at + 1]
        at = _first(self._back, text[max(position - LONGEST, 0) : position][::-1], _back)
        return near + self._back[max(at - 1, 0) : at + 1]


def _ahead(place: Place) -> Order:
    form, offset = place
    return form[offset:], -offset, form


def _back(place: Place) -> Order:
    form, offset = place
    return form[:offset][::-1], form


def _first(places: list[Place], text: str, order: Callable[[Place], Order]) -> int:
    """Where the first of those is that do not stand before a text."""
    wanted: Order = (text,)
    return bisect_left(places, wanted, key=order)


class Pieces(dict[str, tuple[tuple[str, int, Forms], ...] | Crowd]):
    """Those by which forms are found, each with the forms that have it. For one thread at a time, but for `in`."""

    def enter(self, known: Forms) -> None:
        for piece, place in known.pieces():
            bucket = self.get(piece, ())
            if not isinstance(bucket, Crowd) and len(bucket) < _FEW:
                self[piece] = (*bucket, (*place, known))
                continue
            crowd = bucket if isinstance(bucket, Crowd) else Crowd(bucket)
            crowd.enter(place, known)
            self[piece] = crowd

    def leave(self, known: Forms) -> None:
        """Undo `enter`."""
        for piece, place in known.pieces():
            bucket = self[piece]
            if isinstance(bucket, Crowd):
                bucket.leave(place, known)
            else:
                left = list(bucket)
                left.remove((*place, known))
                bucket = self[piece] = tuple(left)
            if not bucket:
                del self[piece]

    def choose(self, known: Forms, whom: str | None) -> bool:
        """A value that was entered is chosen by this one, too; whether that is new."""
        if whom in known.chosen_by:
            return False
        known.chosen_by.add(whom)
        for piece, _ in known.pieces():
            if isinstance(bucket := self[piece], Crowd):
                bucket.choose(whom)
        return True

    def span(self, text: str, position: int, whom: str | None) -> tuple[int, int, bool] | None:
        """From where to where a text is like any form with the piece that begins here, of what may be in texts of this
        one; and whether it stops only because no more of the value is kept.
        """
        bucket = self.get(text[position : position + PIECE], ())
        if not isinstance(bucket, Crowd):
            places = [(form, offset) for form, offset, known in bucket if known.may_be_in_texts_of(whom)]
        else:
            places = bucket.nearest(text, position) if bucket.may_be_in_texts_of(whom) else []
        if not places:
            return None
        spans = [_extended(text, position, place) for place in places]
        return min(span[0] for span in spans), *max(span[1:] for span in spans)


def _extended(text: str, position: int, place: Place) -> tuple[int, int, bool]:
    """How far a text is like a form to both sides of a piece, and whether all that is kept of a longer value is there.

    It compares no more than the form is long, and whole stretches at once: many short finds take no time.
    """
    form, offset = place
    back = _alike(text[max(position - offset, 0) : position][::-1], form[:offset][::-1])
    ahead = _alike(text[position : position + len(form) - offset], form[offset:])
    return position - back, position + ahead, offset + ahead == len(form) == LONGEST


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    alike, end = 0, min(len(one), len(other))
    while alike < end:
        middle = (alike + end + 1) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            end = middle - 1
    return alike
