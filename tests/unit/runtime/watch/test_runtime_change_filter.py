"""Which objects wake us, and how one that went unseen is found."""

from nodepool_membership.runtime.watch.change_filter import ChangeFilter

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
