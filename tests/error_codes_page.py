"""Prints docs/error-codes.md from the catalogue: `python -m error_codes_page > docs/error-codes.md` (`make pages`).

Not for: what the catalogue says (`core.observed.catalogue`); `unit/house/test_error_codes_page.py` holds that the
page is current.
"""

import sys
from collections.abc import Iterable, Sequence

from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.core.observed.catalogue import CODES, JOB_TEXTS, TEXTS, UNKNOWN_CODES, About, Entry

_INTRO = """# Error codes

What the operator knows of the cloud's refusals. This page is generated from
`operator/nodepool_membership/core/observed/catalogue.py` (`make pages`); a test holds that it is current.

Four questions are answered for each code: what it is about; whether it may be about one server among many; whether that
is certain; and what the operator does. Which of these codes the add call really gives is not documented
([assumptions](assumptions.md)), so where a code may mean one server or all, the operator finds out by asking
([rule P15](rules.md#p15-narrowing)).

- **narrows**: the servers that the text names are set apart; where it names none, the call is halved until they are
  found. Three single servers refused with one text, and none accepted in between: nobody is blamed, and it stops.
- **asks**: three servers from all over the list are asked for alone. One is accepted: it is about servers, and the rest
  is narrowed down. All are refused with one text: it is about all, and the call waits.
- **waits**: the same call is made again later, with growing waits. About the moment no attempt is used up, else one a
  call.
- **waits, blames nobody**: the same, at most once an hour in the end; no server is recorded as failed, no attempt is
  used up.
"""
_ABOUT = {
    About.SERVER: "servers of the call",
    About.POOL: "pool, cluster or its template",
    About.QUOTA: "a quota or stock",
    About.ACCOUNT: "account, key or rights",
    About.TRANSIENT: "the moment",
}


_PASSES = frozenset({Reason.LOCKED, Reason.POOL_NOT_READY})


def _one(entry: Entry) -> str:
    if entry.about is About.SERVER:
        return "yes"
    if entry.about is About.TRANSIENT and entry.reason in _PASSES:
        return "perhaps, while it is busy"
    return "perhaps" if entry.may_be_one else "no"


def _certain(entry: Entry) -> str:
    """A request that is called invalid may be so for the pool's sake."""
    return "no" if entry.may_be_one or entry.reason is FailureReason.REFUSED else "yes"


def _does(entry: Entry) -> str:
    if entry.about is About.SERVER:
        return "narrows"
    if entry.may_be_one:
        return "asks"
    return "waits" if entry.blames or entry.about is About.TRANSIENT else "waits, blames nobody"


def _reason(entry: Entry) -> str:
    reason = entry.condition.value if entry.about is not About.SERVER else entry.failure.value
    return f"[{reason}](reasons/{reason}.md)"


def _row(first: str, entry: Entry) -> Sequence[str]:
    return (first, _ABOUT[entry.about], _one(entry), _certain(entry), _does(entry), _reason(entry), entry.remedy)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


_HEADS = ("about", "may be one server", "certain", "the operator", "reason", "what to do")


def page() -> str:
    """The whole page."""
    by_entry: dict[Entry, list[str]] = {}
    for code, entry in CODES.items():
        by_entry.setdefault(entry, []).append(code)
    codes = (_row(", ".join(sorted(codes)), entry) for entry, codes in by_entry.items())
    unknown = (_row(f"any other with HTTP {status}", entry) for status, entry in UNKNOWN_CODES.items())
    texts = (_row(f"<code>{known.pattern}</code>", entry) for _, known, entry in TEXTS)
    jobs = (
        (
            f"<code>{known.pattern}</code>",
            _ABOUT[entry.about],
            f"[{entry.failure}](reasons/{entry.failure}.md)",
            entry.remedy,
        )
        for known, entry in JOB_TEXTS
    )
    return "\n".join(
        (
            _INTRO,
            "## Codes\n",
            _table(("code", *_HEADS), (*codes, *unknown)),
            "\n## Texts\n",
            "A code that is too general (an invalid request, a 403) is looked up by its text, in this order. Patterns",
            "ignore case.\n",
            _table(("text", *_HEADS), texts),
            "\n## Texts of jobs\n",
            "A job that failed tells of servers one by one, so each of these is recorded with the server it stands",
            "for. What it is about says who can help; the first pattern that fits counts.\n",
            _table(("text", "about", "reason", "what to do"), jobs),
            "",
        )
    )


if __name__ == "__main__":
    sys.stdout.write(page())
