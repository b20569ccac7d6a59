"""Values that begin alike, by the thousand: what they cost, and that each is still taken out whole and alone.

Not for: the forms of one value (`test_redaction`).
"""

import base64
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership import forms
from nodepool_membership.forms import Crowd, Forms, Pieces
from nodepool_membership.redaction import REDACTED, Redactor, done_for

FEW = 16
"""More forms than these with one piece are kept in order."""
HEAD = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW06"
TOKENS = [f"{HEAD}{number * 7919:040x}.c2ln{number:032x}" for number in range(100)]
"""Of one issuer: as all service tokens of a cluster are."""


def knowing(values: list[str], *, chosen_by: str | None = None) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.register(value, chosen_by=chosen_by)
    return redactor


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a form was compared with a text, and how often one was taken in hand to find which to compare."""
    counts: Counter[str] = Counter()
    for name in ("_alike", "_extended", "_ahead", "_back"):

        def counted(*args: object, name: str = name, inner: object = getattr(forms, name)) -> object:
            counts[name] += 1
            return inner(*args)  # type: ignore[operator]

        monkeypatch.setattr(forms, name, counted)
    return counts


@pytest.fixture(scope="module")
def flooded() -> Redactor:
    return knowing(["s" * 2000 + f"{number:08}" for number in range(950)], chosen_by="a")


@pytest.mark.parametrize(("whom", "left"), [("a", REDACTED), ("b", "s" * 1000), (None, REDACTED)])
def test_a_thousand_values_that_begin_alike_cost_what_a_few_do(
    flooded: Redactor, looks: Counter[str], whom: str | None, left: str
) -> None:
    if whom is None:
        assert flooded.redact("s" * 1000) == left
    else:
        with done_for(whom):
            assert flooded.redact("s" * 1000) == left
    assert looks.total() < 400


def test_what_is_looked_at_one_by_one_is_few() -> None:
    redactor = Redactor()
    for number in range(40):
        redactor.register("s" * 16 + f"{number:08}")
        buckets = redactor._index.values()
        assert all(len(bucket) <= FEW or isinstance(bucket, Crowd) for bucket in buckets)
        assert isinstance(redactor._index["ssssssss"], Crowd) == (number >= FEW)
    assert len(redactor._index["ssssssss"]) == 40


def test_knowing_and_forgetting_one_more_costs_what_a_few_do(flooded: Redactor, looks: Counter[str]) -> None:
    flooded.register("s" * 2000 + " one more", chosen_by="a")
    flooded._forget("s" * 2000 + " one more")
    assert looks.total() < 24 * 2 * 2 * 16, "24 places, in two orders, found by halves"


def test_many_short_finds_cost_by_the_length_of_a_text(flooded: Redactor, looks: Counter[str]) -> None:
    def total(times: int) -> int:
        looks.clear()
        assert flooded.redact("ssssssss." * times) == f"{REDACTED}." * times
        return looks.total()

    assert total(200) <= 2.2 * total(100)


def test_a_long_form_is_compared_in_whole_stretches() -> None:
    looked = 0

    class Watched(str):
        __slots__ = ()

        def __getitem__(self, at: object) -> str:
            nonlocal looked
            looked += 1
            return super().__getitem__(at)  # type: ignore[index]

    for same in (0, 1, 7, 1000, 1999, 2000):
        assert forms._alike(Watched("s" * same + "t" * (2000 - same)), "s" * 2000) == same
    assert looked <= 6 * 11


def test_each_token_of_an_issuer_is_taken_out_alone() -> None:
    redactor = knowing(TOKENS)
    for token in TOKENS:
        said = f'token="{token}" of x/{token}, (not {token[:70]}...): {token} \nis expired'
        assert (
            redactor.redact(said) == f'token="{REDACTED}" of x/{REDACTED}, (not {REDACTED}...): {REDACTED} \nis expired'
        )
        assert redactor.redact(f"b {base64.b64encode(token.encode()).decode()[:16]} e") == f"b {REDACTED} e"


def test_long_tokens_of_an_issuer_go_to_their_end() -> None:
    tokens = ["MIIE" * 10 + f"{number:08}" + "".join(f"{at * number:x}" for at in range(1500)) for number in range(20)]
    redactor = knowing(tokens)
    for token in tokens:
        assert redactor.redact(f"token {token} expired") == f"token {REDACTED} expired"
        assert redactor.redact(f"token {token[:2000]}, expired") == f"token {REDACTED}, expired"


def test_the_end_of_a_long_token_goes_on_to_its_end_whatever_else_has_its_piece() -> None:
    """One form is all that is kept of a longer value, the others end or go on otherwise where it ends."""
    end = "".join(f"{number:04x}" for number in range(448))
    kept, shorter, other = "p" * 256 + end + "rest", "q" * 16 + end, end + "another"
    crowd = [end[:8] + f"{number:08}" for number in range(20)]
    redactor = knowing([shorter, other, kept, *crowd])
    assert redactor.redact(f"token z{end}rest-and-more expired") == f"token z{REDACTED} expired"
    redactor._forget(kept[:2048])
    assert redactor.redact(f"token z{end}rest-and-more expired") == f"token z{REDACTED}rest-and-more expired"


@pytest.mark.parametrize("odd", [" ", '"', "'", "+", "\n"])
def test_values_of_a_crowd_may_have_any_character(odd: str) -> None:
    values = [f"a pass{odd}phrase{odd}of many{odd}words{odd}{number:03}" for number in range(50)]
    redactor = knowing(values)
    for value in values:
        assert redactor.redact(f"it says {value} to me") == f"it says {REDACTED} to me"


def test_a_short_value_within_a_piece_of_another_keeps_none_of_it() -> None:
    """What is before the short one belongs to the other, which is found behind it only."""
    long = "abcdefghijklmnopqrstuvwxyz0123456789ABCD"
    for piece in (long[1:25], long[17:]):
        assert knowing([long, piece[6:14]]).redact(f"ak {piece} no") == f"ak {REDACTED} no"


def test_a_crowd_is_missing_in_texts_of_those_who_chose_of_it() -> None:
    redactor = knowing(TOKENS, chosen_by="a")
    with done_for("b"):
        assert redactor.redact(TOKENS[3]) == TOKENS[3]
        redactor.register(TOKENS[3], chosen_by="b")
        assert redactor.redact(TOKENS[3]) == REDACTED
    redactor.register(TOKENS[4])
    with done_for("c"):
        assert redactor.redact(TOKENS[4]) == REDACTED
    for token in TOKENS[3:5]:
        redactor._forget(token)
    for whom in ("b", "c"):
        with done_for(whom):
            assert redactor.redact(TOKENS[3] + TOKENS[4]) == TOKENS[3] + TOKENS[4]
    with done_for("a"):
        assert redactor.redact(TOKENS[5]) == REDACTED


def test_nothing_is_left_of_a_crowd_that_is_forgotten() -> None:
    now = 0.0
    redactor = Redactor(clock=lambda: now)
    for value in [*TOKENS, *(token.lower() for token in TOKENS), *("s" * 100 + token for token in TOKENS)]:
        redactor.register(value, 1, chosen_by="a")
        redactor.register(value, 1, chosen_by="b")
    now = 2.0
    redactor._make_room()
    assert (redactor._values, redactor._index, redactor._bytes) == ({}, {}, 0)


def test_those_who_chose_a_value_are_counted_as_memory() -> None:
    redactor = Redactor(max_bytes=100_000)
    redactor.register(TOKENS[0], chosen_by="a")
    alone = redactor._bytes
    for number in range(1_000):
        redactor.register(TOKENS[0], chosen_by=f"namespace-{number}")
    chosen = redactor._bytes
    assert chosen - alone > 1_000 * 300
    redactor.register(TOKENS[0], chosen_by="namespace-1")
    assert redactor._bytes == chosen
    assert redactor._bytes == redactor._values[TOKENS[0]].size
    redactor.register("another one")
    assert list(redactor._values) == ["another one"]
    assert redactor._bytes == redactor._values["another one"].size


def test_of_an_infinite_time_outlast_a_flood_that_begins_alike() -> None:
    redactor = Redactor(max_bytes=100_000)
    redactor.register("s" * 50 + " for ever", math.inf)
    for number in range(500):
        redactor.register("s" * 50 + f"{number:08}", 3600)
    assert redactor.redact("x " + "s" * 50 + " for ever") == f"x {REDACTED}"
    assert redactor._bytes < 105_000


def few_letters(shortest: int, longest: int) -> st.SearchStrategy[str]:
    """Texts that have much in common."""
    return st.text("ab", min_size=shortest, max_size=longest)


middle_of_many = st.builds("{}cccccccc{}".format, few_letters(16, 16), few_letters(0, 6))


def walked(known: list[Forms], text: str, position: int) -> tuple[int, int] | None:
    """What comparing with every form character by character finds."""
    spans = []
    for piece, (form, offset) in (each for value in known for each in value.pieces()):
        if piece != text[position : position + 8]:
            continue
        start, stop = position, position + 8
        while start and offset - position + start and text[start - 1] == form[offset - position + start - 1]:
            start -= 1
        while text[stop : stop + 1] and text[stop] == form[offset - position + stop : offset - position + stop + 1]:
            stop += 1
        spans.append((start, stop))
    return (min(start for start, _ in spans), max(stop for _, stop in spans)) if spans else None


@given(st.lists(middle_of_many, min_size=20, max_size=60), few_letters(0, 20), few_letters(0, 8), st.data())
def test_a_crowd_finds_what_a_walk_over_all_of_it_finds(
    values: list[str], before: str, behind: str, data: st.DataObject
) -> None:
    known = [Forms((value[data.draw(st.sampled_from([0, 16])) :],), {"a"}) for value in values]
    index = Pieces()
    for value in known:
        index.enter(value)
    for value in data.draw(st.lists(st.sampled_from(known), unique_by=id)):
        index.leave(value)
        known.remove(value)
    if isinstance(crowd := index.get("cccccccc"), Crowd):
        places = [place for value in known for piece, place in value.pieces() if piece == "cccccccc"]
        assert sorted(crowd._ahead) == sorted(crowd._back) == sorted(places)
    text = f"{before}cccccccc{behind}"
    for position in range(len(text) - 7):
        span = index.span(text, position, "a")
        assert (span and span[:2]) == walked(known, text, position)
