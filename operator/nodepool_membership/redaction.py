"""The one place that knows every secret value in use, and takes them out of whatever text leaves the process.

Whoever gets or makes one (a key, a token, a signature) registers it; whatever writes for others (status, Events, logs,
CLI) passes its text through `redact`. A value is found as it is, in either case, percent-encoded, with the escapes of
JSON or HTML, in base64, any of these within one another, cut off behind its first 8 characters or later; and of a value
of up to 64 characters any piece of 24.

What somebody chose himself, such as a tenant the values of a Secret, is taken out of what is done for him, and of what
is done for nobody; not out of the texts of others, where a word that he chose would be missing.

Not for: secrets that nobody registered, but for the few that their label gives away; deciding who may see what.
State of the process, like the log handlers it serves: a text may leave by any thread.
"""

import base64
import binascii
import heapq
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeVar

from nodepool_membership.forms import LONGEST, PIECE, Forms, Pieces

REDACTED: Final = "<redacted>"
SHORTEST: Final = PIECE
"""Characters of the shortest value that can be taken out: shorter ones are parts of ordinary words."""
IN_USE_SECONDS: Final = 3600.0
"""How long a value is known after it was last registered: each use of a credential registers it again."""

_MAX_BYTES: Final = 8 << 20
_ROOM: Final = 0.9
"""Of the bound, what is left when it was reached: room is not made for one value at a time."""
_BASE64_HEAD: Final = 16
_BYTES_PER_GRAM: Final = 300
"""Measured: the index's key, slot and entry."""
_BYTES_PER_VALUE: Final = 300
_BYTES_PER_CHOICE: Final = 150
"""Of one piece, for each further one who chose the value."""
_LAYERS: Final = 3
"""Escapes within escapes that are looked through, such as a percent-encoded value in a JSON string in a JSON string."""
_NESTED: Final = 2
"""Base64 within base64."""

# A space is what a `+` becomes where a text was decoded once too often.
_FOLD: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ ", "abcdefghijklmnopqrstuvwxyz+")
_ESCAPE: Final = re.compile(
    r"%(?P<percent>[0-9A-Fa-f]{2})|\\u(?P<unicode>[0-9A-Fa-f]{4})|\\x(?P<hex>[0-9A-Fa-f]{2})|\\(?P<char>[^ux])"
    r"|&(?:#(?P<decimal>\d{1,6})|#x(?P<hexadecimal>[0-9A-Fa-f]{1,5})|(?P<entity>amp|lt|gt|quot|apos));"
    r"|(?P<break>\r?\n[ \t]*)"
)
_ENTITIES: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t"}
_BASE64_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_STANDARD: Final = str.maketrans("-_", "+/")
_REST: Final = re.compile(r"[A-Za-z0-9+/=_.~-]*")
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A status is full of them: ten thousand would take a third of a second."""
_LABELLED: Final = re.compile(
    r"((?:X-Auth-Token|X-Security-Token|X-Subject-Token)[\"']?\s*[:=|]\s*[\"']?|Authorization[\"']?\s*[:=|]\s*[\"']?"
    r"(?:Bearer\s+|Basic\s+)?|\bBearer\s+|\bSignature=|://(?=[^/\s@]*@))([^\s\"',;|@]{4,})",
    re.IGNORECASE,
)
"""What only a secret follows: the headers that carry one, a signature, the user in an address."""

Json = TypeVar("Json")
_done_for: Final[ContextVar[str | None]] = ContextVar("done_for", default=None)


@contextmanager
def done_for(whom: str) -> Iterator[None]:
    """What runs inside is done for somebody, and tasks that begin there: nobody else's choice is in its texts."""
    token = _done_for.set(whom)
    try:
        yield
    finally:
        _done_for.reset(token)


@dataclass(slots=True, eq=False)
class _Value(Forms):
    """One that is known: until when (seconds of the clock), and the bytes that it takes."""

    until: float
    size: int


class Redactor:
    """Registered values and the search for them; the process has one (`register`, `redact`), tests have their own."""

    def __init__(self, *, clock: Callable[[], float] = monotonic, max_bytes: int = _MAX_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._values: OrderedDict[str, _Value] = OrderedDict()
        """Those used last at the end."""
        self._ends: list[tuple[float, str]] = []
        """A heap of when values end, at the earliest: a use moves the end without a new entry."""
        self._index = Pieces()
        self._bytes = 0
        self._lock = threading.RLock()
        """The same thread may come back: what is collected as garbage meanwhile may write to the log."""

    def register(self, value: str, seconds: float = IN_USE_SECONDS, *, chosen_by: str | None = None) -> None:
        """Know this value for so many seconds from now; one that is known already is known for longer.

        `chosen_by`: who could have made it any word (`done_for`); None: nobody, as with what a service issues.
        Values of fewer than `SHORTEST` characters are not taken. Beyond 8 MiB those that were used last are kept, and
        those of an infinite time.
        """
        if len(value) < SHORTEST:
            return
        key = value[:LONGEST]
        with self._lock:
            until = self._clock() + seconds
            if (known := self._values.get(key)) is not None:
                known.until = max(known.until, until)
                if self._index.choose(known, chosen_by):
                    self._count(known, _BYTES_PER_CHOICE * sum(1 for _ in known.pieces()))
                self._values.move_to_end(key)
                return
            self._make_room()
            forms = (key.translate(_FOLD), _base64_head(key).translate(_FOLD))
            new = self._values[key] = _Value(forms, {chosen_by}, until, 0)
            size = _BYTES_PER_VALUE + len(key) + sum(map(len, forms))
            self._count(new, size + _BYTES_PER_GRAM * sum(1 for _ in new.pieces()))
            self._index.enter(new)
            heapq.heappush(self._ends, (until, key))

    def _count(self, value: _Value, size: int) -> None:
        value.size += size
        self._bytes += size

    def _make_room(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            value = self._values.get(key)
            if value is not None and value.until > now:
                heapq.heappush(self._ends, (value.until, key))
            elif value is not None:
                self._forget(key)
        if self._bytes > self._max_bytes:
            for key in [key for key, value in self._values.items() if value.until < math.inf]:
                self._forget(key)
                if self._bytes <= self._max_bytes * _ROOM:
                    return

    def _forget(self, key: str) -> None:
        value = self._values.pop(key)
        self._bytes -= value.size
        self._index.leave(value)

    def redact(self, text: str) -> str:
        """The text without any of the values that are known, in whatever form; each leaves a `<redacted>`."""
        if len(text) < SHORTEST or (_ID.fullmatch(text) and text not in self._values):
            return text
        cleaned, end = [], 0
        for start, stop in _merged(self._found(text, _NESTED)):
            cleaned += [text[end:start], REDACTED]
            end = stop
        text = "".join((*cleaned, text[end:]))
        return _LABELLED.sub(rf"\1{REDACTED}", text)

    def redact_json(self, document: Json) -> Json:
        """A copy of a JSON document with every string in it redacted, names of fields too."""
        return self._cleaned(document)  # type: ignore[return-value]

    def _cleaned(self, part: object) -> object:
        match part:
            case str():
                return self.redact(part)
            case Mapping():
                return {self.redact(str(name)): self._cleaned(value) for name, value in part.items()}
            case list() | tuple():
                return [self._cleaned(value) for value in part]
            case _:
                return part

    def _found(self, text: str, nested: int) -> Iterator[tuple[int, int]]:
        view, at = text, range(len(text) + 1)  # type: tuple[str, Sequence[int]]
        for _ in range(_LAYERS):
            for start, stop in (*self._plain(view), *self._in_base64(view, nested)):
                yield at[start], at[stop]
            if _ESCAPE.search(view) is None:
                return
            view, at = _unescaped(view, at)

    def _plain(self, view: str) -> Iterator[tuple[int, int]]:
        folded, whom = view.translate(_FOLD), _done_for.get()
        position = 0
        while position <= len(folded) - SHORTEST:
            if folded[position : position + PIECE] not in self._index:
                position += 1
                continue
            with self._lock:
                found = self._index.span(folded, position, whom)
            if found is None:
                position += 1
                continue
            start, stop, is_cut = found
            if is_cut and (rest := _REST.match(view, stop)) is not None:
                stop = rest.end()
            yield start, stop
            position = max(stop, position + 1)

    def _in_base64(self, view: str, nested: int) -> Iterator[tuple[int, int]]:
        if not nested:
            return
        for run in _BASE64_RUN.finditer(view):
            digits = run[0].rstrip("=").translate(_STANDARD)
            # What stands before a value may be of the same alphabet, so it may begin at any of four digits.
            if any(next(self._found(_decoded(digits[skip:]), nested - 1), None) for skip in range(4)):
                yield run.span()


def _base64_head(value: str) -> str:
    """What a base64 form that is cut off early is told by; a longer piece is decoded."""
    return base64.b64encode(value.encode()).decode().rstrip("=")[:_BASE64_HEAD]


def _unescaped(text: str, at: Sequence[int]) -> tuple[str, list[int]]:
    """The text with one layer of escapes undone and lines joined, and where each of its characters was."""
    pieces: list[str] = []
    positions: list[int] = []
    end = 0
    for escape in _ESCAPE.finditer(text):
        pieces.append(text[end : escape.start()])
        positions.extend(at[end : escape.start()])
        if character := _meaning(escape):
            pieces.append(character)
            positions.append(at[escape.start()])
        end = escape.end()
    positions.extend(at[end:])
    return "".join((*pieces, text[end:])), positions


def _meaning(escape: "re.Match[str]") -> str:
    kind, value = str(escape.lastgroup), escape[str(escape.lastgroup)]
    match kind:
        case "break":
            return ""
        case "entity":
            return _ENTITIES[value]
        case "char":
            return _ESCAPED.get(value, value)
        case "decimal":
            return chr(int(value))
        case _:
            return chr(int(value, 16))


def _decoded(digits: str) -> str:
    whole = len(digits) - (1 if len(digits) % 4 == 1 else 0)
    try:
        return base64.b64decode(digits[:whole] + "=" * (-whole % 4)).decode("latin-1")
    except binascii.Error:
        return ""


def _merged(spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current: tuple[int, int] | None = None
    for start, stop in sorted(spans):
        if current is None or start > current[1]:
            if current is not None:
                yield current
            current = (start, stop)
        else:
            current = (current[0], max(current[1], stop))
    if current is not None:
        yield current


_PROCESS: Final = Redactor()
register: Final = _PROCESS.register
redact: Final = _PROCESS.redact
redact_json: Final = _PROCESS.redact_json


def register_token(token: str, *, chosen_by: str | None = None) -> None:
    """Know a token of a service account, and its signature by itself: what stands before that can be guessed."""
    register(token, chosen_by=chosen_by)
    head, _, signature = token.rpartition(".")
    if "." in head:
        register(signature, chosen_by=chosen_by)
