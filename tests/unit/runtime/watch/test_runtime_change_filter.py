"""Which objects wake us, and how one that went unseen is found."""

from typing import cast

import kopf
import pytest

from nodepool_membership.api.names import (
    APPROVED_PLAN_ANNOTATION,
    PAUSED_ANNOTATION,
    RECONCILE_ANNOTATIONS,
    RESET_ANNOTATIONS,
)
from nodepool_membership.runtime.watch.change_filter import ChangeFilter, fingerprint_of, needed_of

A, B, C = ("ns", "a"), ("ns", "b"), ("other", "c")


def known(*keys: tuple[str, str]) -> ChangeFilter:
    marks = ChangeFilter()
    for key in keys:
        assert marks.changed(key, (1,))
    return marks


def test_only_a_changed_mark_wakes() -> None:
    marks = known(A)
    assert not marks.changed(A, (1,))
    assert marks.changed(A, (2,))
    marks.gone(A)
    assert marks.changed(A, (2,))


def test_the_first_list_leaves_nobody_out() -> None:
    marks = ChangeFilter()
    marks.begin_list(None)
    assert marks.changed(A, (1,))
    assert marks.end_list(None) == set()


def test_what_a_later_list_does_not_show_is_named_once() -> None:
    marks = known(A, B)
    marks.begin_list(None)
    assert marks.changed(A, (1,))
    assert marks.end_list(None) == {B}
    assert marks.end_list(None) == set()


def test_a_list_that_is_broken_off_and_begun_again_forgets_nobody() -> None:
    marks = known(A, B)
    marks.begin_list(None)
    assert marks.changed(A, (1,))
    marks.begin_list(None)
    assert marks.end_list(None) == {A, B}


def test_a_list_says_nothing_of_other_namespaces() -> None:
    marks = known(A, C)
    marks.begin_list("ns")
    assert not marks.changed(C, (1,))
    assert marks.end_list("other") == set()
    assert marks.end_list("ns") == {A}


def test_with_its_type_every_object_is_gone() -> None:
    marks = known(A, B, C)
    marks.begin_list("ns")
    assert marks.clear() == {A, B, C}
    assert marks.clear() == set()


WAKING = (*RECONCILE_ANNOTATIONS, *RESET_ANNOTATIONS, APPROVED_PLAN_ANNOTATION, PAUSED_ANNOTATION)


def mark(annotations: dict[str, str]) -> object:
    """That of an object of which the watch kept what it needs."""
    metadata = {"name": "a", "uid": "u", "generation": 1, "annotations": annotations}
    return fingerprint_of(kopf.Body(cast("kopf.RawBody", {"metadata": needed_of(metadata)})))


@pytest.mark.parametrize("name", WAKING)
def test_a_request_a_word_or_a_pause_wakes_when_it_comes_and_when_it_goes(name: str) -> None:
    marks = known()
    assert marks.changed(A, (mark({}),))
    assert marks.changed(A, (mark({name: "1"}),))
    assert not marks.changed(A, (mark({name: "1", "of.another/controller": "2"}),))
    assert marks.changed(A, (mark({}),))
