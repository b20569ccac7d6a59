"""Which memberships changed since they were last read: what they name by now, the claims do not know (rule P18).

Not for: working them (`queue`), or what they claim (`claims`).
"""

from nodepool_membership.core.program.effects import Key


class Unread:
    """Keys by the newest change that the watch told of; one event loop, no locks."""

    def __init__(self) -> None:
        self._changes: dict[Key, int] = {}
        self._last = 0

    def changed(self, key: Key) -> None:
        """The watch told of a change."""
        self._last += 1
        self._changes[key] = self._last

    def change(self, key: Key) -> int | None:
        """The newest change that was not read yet; to be asked before a read begins, for `read`."""
        return self._changes.get(key)

    def read(self, key: Key, change: int | None) -> None:
        """What a read that began after this change has found is in the claims."""
        if change is not None and self._changes.get(key) == change:
            del self._changes[key]

    def others(self, key: Key) -> tuple[Key, ...]:
        """All that are unread but this one."""
        return tuple(other for other in self._changes if other != key)
