"""The census: nothing is added before every membership that was there at the start was read once (rule P16)."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.kube.errors import UnansweredError
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims import initial_sync as module
from nodepool_membership.runtime.claims.initial_sync import PATIENCE, InitialSync
from nodepool_membership.runtime.scheduling.queue import Key
from unit.core_builders import a_spec, an_object

A, B, NEW = ("ns", "a"), ("ns", "b"), ("ns", "new")


class There(Memberships):
    """Memberships that are there; the first lists end with an error after the first of them."""

    def __init__(self, *keys: Key, failures: int = 0) -> None:
        self.there, self.failures, self.asked = keys, failures, 0

    async def all(self, namespaces: Iterable[str]) -> AsyncIterator[Membership]:
        assert list(namespaces) == ["ns"]
        self.asked += 1
        for namespace, name in self.there:
            made = an_object(a_spec())
            yield replace(made, metadata=replace(made.metadata, namespace=namespace, name=name))
            if self.asked <= self.failures:
                raise UnansweredError("the API server is away")


class Scene:
    def __init__(self, there: Memberships) -> None:
        self.now = 0.0
        self.woken: list[Key] = []
        self.noted: list[Key] = []
        self.initial_sync = InitialSync(there, ["ns"], self.woken.append, clock=lambda: self.now)

    def is_complete(self) -> bool:
        return self.initial_sync.is_complete

    async def take(self, *alone: Key) -> None:
        """List what is there, of which these are to be read by themselves."""

        def note(found: Membership | UnreadableStatus) -> None:
            key = (found.metadata.namespace, found.metadata.name)
            self.noted.append(key)
            if key not in alone:
                self.initial_sync.read(key)

        await self.initial_sync.take(note)


async def test_it_is_complete_when_all_that_are_there_were_listed() -> None:
    scene = Scene(There(A, B))
    scene.initial_sync.read(A)
    assert scene.initial_sync.wait_for_others(NEW) == PATIENCE
    await scene.take()
    assert scene.is_complete()
    assert scene.noted == [B]
    # Also what was not waited for: it may be gone since, which the watch did not see.
    assert sorted(scene.woken) == [B, NEW]
    assert scene.initial_sync.wait_for_others(NEW) is None


async def test_who_is_to_be_read_by_itself_is_read_at_once_and_the_others_wait_for_it() -> None:
    scene = Scene(There(A, B))
    assert scene.initial_sync.wait_for_others(A) == PATIENCE
    await scene.take(A)
    assert not scene.is_complete()
    assert scene.woken == [A]
    assert scene.initial_sync.wait_for_others(A) is None
    assert scene.initial_sync.wait_for_others(B) == PATIENCE
    scene.woken.clear()
    scene.initial_sync.read(NEW)
    assert not scene.is_complete()
    scene.initial_sync.read(A)
    assert scene.is_complete()
    assert sorted(scene.woken) == [A, B]


async def test_where_there_is_nothing_it_is_complete_once_that_is_known() -> None:
    scene = Scene(There())
    assert not scene.is_complete()
    await scene.take()
    assert scene.is_complete()


async def test_work_goes_on_without_the_others_when_they_get_no_further() -> None:
    scene = Scene(There(A, B, NEW))
    await scene.take(A, B)
    scene.now = 8
    scene.initial_sync.read(A)
    scene.now = 15
    assert scene.initial_sync.wait_for_others(A) == 3
    scene.now = 18
    assert scene.initial_sync.wait_for_others(A) is None
    assert not scene.is_complete()


async def test_the_list_is_tried_until_it_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.001)
    there = There(A, B, failures=3)
    scene = Scene(there)
    await scene.take()
    assert there.asked == 4
    assert caplog.text.count("the API server is away") == 3
    # Each once: whoever was read may have been written since.
    assert scene.noted == [A, B]
    assert scene.is_complete()
