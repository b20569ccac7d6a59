"""Keys that are ready, in the order in which they are taken: namespaces in turn, and new keys before all else.

Not for: what is ready (`queue`). Nobody waits for what another namespace has piled up, or for more than half of the
workers: one namespace has as many as are left for others.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable

Key = tuple[str, str]
"""Namespace and name."""


class _Rotation:
    """Keys by namespace; the oldest key of the namespace that has waited longest for its turn is next."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, OrderedDict[Key, float]] = OrderedDict()

    def put(self, key: Key, at: float) -> None:
        self._keys.setdefault(key[0], OrderedDict())[key] = at

    def take(self, may: Callable[[str], bool]) -> Key | None:
        namespace = next((namespace for namespace in self._keys if may(namespace)), None)
        if namespace is None:
            return None
        keys = self._keys[namespace]
        key, _ = keys.popitem(last=False)
        if keys:
            self._keys.move_to_end(namespace)
        else:
            del self._keys[namespace]
        return key


class FairOrder:
    """Ready keys, and how many of each namespace are being worked."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._ready: dict[Key, float] = {}
        self._new = _Rotation()
        self._known = _Rotation()
        self._new_next = True
        self._busy: Counter[str] = Counter()

    def __contains__(self, key: Key) -> bool:
        return key in self._ready

    def __len__(self) -> int:
        return len(self._ready)

    def put(self, key: Key, at: float, *, new: bool) -> None:
        """A key that is not ready yet is so since `at`; `new`: it was never worked."""
        self._ready[key] = at
        (self._new if new else self._known).put(key, at)

    def take(self) -> Key | None:
        """The next key that may be worked, None if there is none; `done` must follow.

        New keys come first every other time: those that somebody makes without end keep nobody else waiting.
        """
        first, second = (self._new, self._known) if self._new_next else (self._known, self._new)
        key = first.take(self._may) or second.take(self._may)
        if key is not None:
            self._new_next = not self._new_next
            del self._ready[key]
            self._busy[key[0]] += 1
        return key

    def done(self, key: Key) -> None:
        """A key that was taken has been worked."""
        self._busy[key[0]] -= 1
        if not self._busy[key[0]]:
            del self._busy[key[0]]

    def oldest(self) -> float | None:
        """Since when the first of the ready keys has waited."""
        # A copy, made in one step: the metrics are rendered in another thread.
        waiting = tuple(self._ready.values())
        return waiting[0] if waiting else None

    def _may(self, namespace: str) -> bool:
        busy = self._busy.get(namespace, 0)
        return self._workers is None or not busy or busy < self._workers - self._busy.total()
