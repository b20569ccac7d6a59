"""Fault rules: which calls go wrong, and how.

Not for: what a server does wrong (config.BadServer) nor for the cloud's ordinary refusals (world).

A rule matches calls by method, route, cluster, pool, server and access key; the first `skip` matching calls are left
alone, then `times` calls are hit (absent: all). A call is hit by at most one rule: the first in order that matches and
is not used up; rules behind it do not count that call. The fields of FaultRule are the JSON of `faults` in the
configuration and of `POST /_sim/faults`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cce_simulator.model import ConfigError, Record

Seconds = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]

HTML_PAGE = "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>\n"


class Answer(Record):
    """A canned answer. At most one of `error_code`, `html` and `body` fills its body; none of them: empty."""

    status: int = Field(ge=200, le=599)
    error_code: str | None = None  # APIGW.* in the gateway's form, anything else in CCE's
    message: str = "injected fault"
    html: bool = False
    body: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if (self.error_code is not None) + self.html + (self.body is not None) > 1:
            raise ValueError("give only one of errorCode, html and body")
        return self


class FaultRule(Record):
    """One rule; see the module docstring for matching, the comments for what each action does."""

    name: str = "fault"
    # Match: absent = any.
    method: Literal["GET", "POST", "PUT", "DELETE"] | None = None
    route: str | None = None  # a name of routes.ROUTES: addNodes, getJob, listNodes, ...
    cluster_id: str | None = None
    node_pool_id: str | None = None
    server_id: str | None = None  # named in the body of an add; either case
    access_key: str | None = None  # as in the Authorization header, unverified
    skip: int = Field(default=0, ge=0)
    times: int | None = Field(default=None, ge=1)
    # Act on the transport. "before": instead of handling the call; "after": the call is handled, its answer lost.
    when: Literal["before", "after"] = "before"
    answer: Answer | None = None
    drop: bool = False  # close the connection without an answer
    cut_body: bool = False  # send half of the answer's body, then close
    delay_seconds: Seconds = 0  # before the call is looked at, as if it were held up on its way
    answer_delay_seconds: Seconds = 0  # after it was handled
    date_skew_seconds: float = Field(default=0, allow_inf_nan=False)  # of the Date header of this answer
    # Act on an accepted add.
    job_phase: str | None = None  # how the job ends, whatever became of its servers: "Failed", "Paused", ...
    job_never_ends: bool = False
    job_seconds: Seconds | None = None  # instead of behaviour.jobSeconds
    node_phase: str | None = None  # where all its nodes end up: "Abnormal", "Error"; "Installing" = stuck
    visible_after_seconds: Seconds | None = None  # when its nodes first show, counted from acceptance
    # Act on a listing of nodes.
    hide_servers: tuple[str, ...] = ()  # leave these nodes out; "*" = all
    omit_next_marker: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.answer is not None and self.drop:
            raise ValueError("give only one of answer and drop")
        if self.model_dump(by_alias=False, exclude_defaults=True).keys() <= _MATCH_FIELDS:
            raise ValueError("the rule does nothing: give it an action, e.g. answer, drop or delaySeconds")
        return self


_MATCH_FIELDS = frozenset(
    {"name", "method", "route", "cluster_id", "node_pool_id", "server_id", "access_key", "skip", "times", "when"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a rule may match on: a call before it is authenticated."""

    method: str
    route: str
    cluster_id: str
    node_pool_id: str
    access_key: str
    server_ids: frozenset[str]  # lower case


@dataclass(slots=True)
class _Active:
    rule: FaultRule
    seen: int = 0
    hits: int = 0


class Faults:
    """The rules in force, in order."""

    def __init__(self, rules: Iterable[FaultRule] = ()) -> None:
        self._active = [_Active(rule) for rule in rules]

    def add(self, *rules: FaultRule) -> None:
        """Append rules; they count calls from now on."""
        self._active.extend(_Active(rule) for rule in rules)

    def clear(self, name: str | None = None) -> int:
        """Take away the rules of that name (None: all); the number taken away."""
        kept = [a for a in self._active if name is not None and a.rule.name != name]
        gone = len(self._active) - len(kept)
        self._active = kept
        return gone

    def hits(self, name: str) -> int:
        """How many calls the rules of that name have hit. Raises ConfigError if there is none."""
        found = [a.hits for a in self._active if a.rule.name == name]
        if not found:
            raise ConfigError(f"no fault rule named {name!r}; there are: {[a.rule.name for a in self._active]}")
        return sum(found)

    def to_json(self) -> list[dict[str, object]]:
        return [{"rule": a.rule.to_json(), "seen": a.seen, "hits": a.hits} for a in self._active]

    def pick(self, target: Target) -> FaultRule | None:
        """The rule that hits this call, counted."""
        for active in self._active:
            rule = active.rule
            if (rule.times is not None and active.hits >= rule.times) or not _matches(rule, target):
                continue
            active.seen += 1
            if active.seen > rule.skip:
                active.hits += 1
                return rule
        return None


def _matches(rule: FaultRule, target: Target) -> bool:
    wanted = (
        (rule.method, target.method),
        (rule.route, target.route),
        (rule.cluster_id, target.cluster_id),
        (rule.node_pool_id, target.node_pool_id),
        (rule.access_key, target.access_key),
    )
    if any(want is not None and want != got for want, got in wanted):
        return False
    return rule.server_id is None or rule.server_id.lower() in target.server_ids


def throttled(*, retry_after: str | None = None, name: str = "throttled", times: int | None = 1) -> FaultRule:
    """429 APIGW.0308 for writes, with `Retry-After` as given (int, float, HTTP date or nonsense)."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    answer = Answer(
        status=429,
        error_code="APIGW.0308",
        message="The throttling threshold has been reached: policy user over ratelimit,limit:10,time:1 minute",
        headers=headers,
    )
    return FaultRule(name=name, method="POST", times=times, answer=answer)


def lost_answer(*, route: str = "addNodes", status: int | None = None, times: int | None = 1) -> FaultRule:
    """The call takes effect, its answer is lost: an HTML page of that status, or (None) a dropped connection."""
    if status is None:
        return FaultRule(name="lost-answer", route=route, times=times, when="after", drop=True)
    page = Answer(status=status, html=True)
    return FaultRule(name="lost-answer", route=route, times=times, when="after", answer=page)
