"""Corners that cost a call or a diagnosis: copied errors, unset times, odd Secrets and hosts, seeded budgets.

Not for: the main behaviour of each module, which has a test file of its name.
"""

import copy
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.cce.budget import Taken, WriteBudget
from nodepool_membership.cce.credentials import CredentialsError, parse_credentials
from nodepool_membership.cce.endpoints import AllowList, EndpointNotAllowedError
from nodepool_membership.cce.errors import CloudError, RefusedError, ThrottledError
from nodepool_membership.cce.wire import parse_time


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("no", status=400, code="CCE.01400014", request_id="r"),
        ThrottledError("slower", status=429, code="APIGW.0308", retry_after=56.818),
    ],
)
def test_an_error_survives_copying(error: CloudError) -> None:
    # As pickle does: __reduce_ex__ says how the copy is made.
    twin = copy.deepcopy(error)
    assert type(twin) is type(error)
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)


@pytest.mark.parametrize("text", ["0001-01-01 00:00:00 +0000 UTC", "0001-01-01T00:00:00Z"])
def test_a_time_that_was_never_set_is_none(text: str) -> None:
    """Else the node of it would be 2,000 years late to join."""
    assert parse_time(text) is None


def test_a_token_beside_a_security_token_is_ambiguous() -> None:
    with pytest.raises(CredentialsError, match="both token and securityToken"):
        parse_credentials({"token": b"t", "securityToken": b"s"}, "ns")


@pytest.mark.parametrize("host", ["exa mple.com", "*.example.com", "ex%41mple.com", "b\u00fccher.example"])
def test_a_host_that_could_never_be_called_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(EndpointNotAllowedError, match="cannot be an endpoint"):
        AllowList.parse([f"https://{host}"])


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_budget_of_nothing_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WriteBudget(wrong, random=lambda: 0.0)


@given(
    limit=st.integers(1, 12),
    ages=st.lists(st.floats(-100, 200), max_size=30),
    waits=st.lists(st.floats(0, 90), max_size=40),
)
def test_writes_before_a_restart_count(limit: int, ages: list[float], waits: list[float]) -> None:
    """Rule P23: together with them never more than the limit in any 60 s, unless they alone were more."""
    now = 1000.0
    budget = WriteBudget(limit, random=lambda: 0.0)
    budget.seed(now, ages)
    before = [now - max(age, 0.0) for age in ages]
    taken = []
    for wait in waits:
        now += wait
        if isinstance(budget.try_take(now, "who", "ns"), Taken):
            taken.append(now)
            assert sum(1 for at in (*before, *taken) if at + 60.0 > now) <= limit


def test_after_too_many_the_wait_is_until_enough_have_left() -> None:
    budget = WriteBudget(2, random=lambda: 0.0)
    budget.seed(100.0, [50.0, 30.0, 10.0])
    assert budget.try_take(100.0, "who", "ns") == 30.0
    waits = [budget.try_take(now, "who", "ns") for now in (110.0, 120.0, 129.0)]
    assert all(isinstance(wait, float) and wait > 0 for wait in waits)
    assert all(isinstance(a, float) and isinstance(b, float) and a > b for a, b in pairwise(waits))
    assert isinstance(budget.try_take(130.0, "who", "ns"), Taken)


def test_a_write_from_the_future_counts_as_made_now() -> None:
    """Rule P21: else a clock that was set back would close the budget for as long."""
    budget = WriteBudget(1, random=lambda: 0.0)
    budget.seed(100.0, [-500.0])
    assert budget.try_take(100.0, "who", "ns") == 60.0
    assert isinstance(budget.try_take(160.0, "who", "ns"), Taken)
