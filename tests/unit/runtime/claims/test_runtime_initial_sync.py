"""The census: nothing is added before every membership that was there at the start was read once (rule P16)."""

from collections.abc import Iterable

import pytest

from nodepool_membership.kube.errors import UnansweredError
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims import initial_sync as module
from nodepool_membership.runtime.claims.initial_sync import PATIENCE, InitialSync
from nodepool_membership.runtime.scheduling.queue import Key

A, B, NEW = ("ns", "a"), ("ns", "b"), ("ns", "new")


class There(Memberships):
    """Memberships that are there; the first lists fail."""

    def __init__(self, *keys: Key, failures: int = 0) -> None:
        self.there, self.failures, self.asked = set(keys), failures, 0

    async def keys(self, namespaces: Iterable[str]) -> dict[Key, str]:
        assert list(namespaces) == ["ns"]
        self.asked += 1
        if self.asked <= self.failures:
            raise UnansweredError("the API server is away")
        return {key: f"version-of-{key[1]}" for key in self.there}


class Scene:
    def __init__(self, there: Memberships) -> None:
        self.now = 0.0
        self.woken: list[Key] = []
        self.initial_sync = InitialSync(there, ["ns"], self.woken.append, clock=lambda: self.now)

    def is_complete(self) -> bool:
        return self.initial_sync.is_complete


async def test_it_is_complete_when_all_that_were_listed_were_read_or_are_gone() -> None:
    scene = Scene(There(A, B))
    scene.initial_sync.read(A)
    assert not scene.is_complete()
    await scene.initial_sync.take()
    assert scene.woken == [B]
    assert not scene.is_complete()
    scene.initial_sync.read(NEW)
    assert not scene.is_complete()
    scene.initial_sync.read(B)
    assert scene.is_complete()
    assert scene.initial_sync.wait_for_others(NEW) is None


async def test_the_first_read_may_be_as_old_as_the_list_and_a_second_one_may_not() -> None:
    scene = Scene(There(A, B))
    assert scene.initial_sync.take_version(A) == ""
    await scene.initial_sync.take()
    assert [scene.initial_sync.take_version(A) for _ in range(2)] == ["version-of-a", ""]
    assert not scene.is_complete()
    scene.initial_sync.read(A)
    assert [scene.initial_sync.take_version(key) for key in (A, NEW, B)] == ["", "", "version-of-b"]
    scene.initial_sync.read(B)
    assert scene.is_complete()


async def test_where_there_is_nothing_it_is_complete_once_that_is_known() -> None:
    scene = Scene(There())
    assert not scene.is_complete()
    await scene.initial_sync.take()
    assert scene.is_complete()


async def test_who_waits_is_woken_when_all_were_read() -> None:
    scene = Scene(There(A, B))
    await scene.initial_sync.take()
    scene.woken.clear()
    scene.initial_sync.read(A)
    assert scene.initial_sync.wait_for_others(A) == PATIENCE
    assert scene.woken == []
    scene.initial_sync.read(B)
    assert scene.woken == [A]


async def test_work_goes_on_without_the_others_when_they_get_no_further() -> None:
    scene = Scene(There(A, B, NEW))
    await scene.initial_sync.take()
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
    there = There(A, failures=3)
    scene = Scene(there)
    await scene.initial_sync.take()
    assert there.asked == 4
    assert caplog.text.count("the API server is away") == 3
    assert scene.woken == [A]
