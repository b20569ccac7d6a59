"""What bounds a call that waits for temporary keys, taken out piece by piece.

Not for: the rules themselves, of which each has one mutant (`rules`).
"""

from typing import Final

from mutants.run import Edit, Mutant

_ON_ITS_WAY: Final = ("tests/explore/test_explore.py::test_no_call_is_made_later_than_its_intent_or_its_keys_allow",)

KEYS: Final = (
    Mutant(
        "fence",
        "the look at time and lease when the bytes of a call leave",
        (
            Edit(
                "cce/calls.py",
                "        if (reason := self._fence()) is not None:",
                "        if (reason := self._fence()) is not None and not self._begun:",
            ),
        ),
        _ON_ITS_WAY,
    ),
    Mutant(
        "stored-time",
        "the time of the intent in the signature of its call",
        (
            Edit(
                "cce/calls.py",
                "        dated = {} if wanted.signed_at is None else {DATE_HEADER: sdk_date(wanted.signed_at)}",
                "        dated = {} if wanted.signed_at is None else {DATE_HEADER: sdk_date(self._now())}",
            ),
        ),
        _ON_ITS_WAY,
    ),
    Mutant(
        "sent-once",
        "the end of a call whose keys had ended",
        (
            Edit(
                "cce/calls.py",
                """                    if method != "GET":
                        raise EndedKeyError.of(error) from None
""",
                "",
            ),
        ),
        _ON_ITS_WAY,
    ),
)
