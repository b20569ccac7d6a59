"""What the bench prints: figures with their limits, and whether all were kept.

Not for: measuring.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Rule = Literal["at most", "exactly"]

_NAME: Final = 58
_VALUE: Final = 20


@dataclass(frozen=True, slots=True)
class Limit:
    """What a value is held to. `counted` limits decide always, others (times, memory) not with `--quick`."""

    value: float
    rule: Rule = "at most"
    counted: bool = False

    def holds(self, value: float) -> bool:
        return value == self.value if self.rule == "exactly" else value <= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One value with its unit, its limit if it has one, and a remark."""

    name: str
    value: float
    unit: str = ""
    limit: Limit | None = None
    remark: str = ""

    @property
    def is_kept(self) -> bool:
        return self.limit is None or self.limit.holds(self.value)

    def decides(self, *, counts_only: bool) -> bool:
        return self.limit is not None and (self.limit.counted or not counts_only)


@dataclass(frozen=True, slots=True)
class Section:
    """The figures of one load, and the settings they were measured with."""

    name: str
    settings: str
    figures: tuple[Figure, ...]


def is_over(figures: Iterable[Figure], *, counts_only: bool) -> bool:
    """Whether a figure that decides breaks its limit."""
    return any(not figure.is_kept for figure in figures if figure.decides(counts_only=counts_only))


def lines(section: Section, *, counts_only: bool) -> Iterator[str]:
    """The section as text: value, limit and verdict of each figure in columns."""
    yield section.name
    yield f"  with {section.settings}"
    for figure in section.figures:
        value = f"{_number(figure.value)} {figure.unit}".strip()
        columns = (f"  {figure.name:<{_NAME}}", f"{value:>{_VALUE}}", f"  {_verdict(figure, counts_only):<24}")
        yield f"{''.join(columns)} {figure.remark}".rstrip()


def _verdict(figure: Figure, counts_only: bool) -> str:
    if figure.limit is None:
        return ""
    limit = f"{figure.limit.rule} {_number(figure.limit.value)}"
    verdict = "ok" if figure.is_kept else "OVER"
    aside = "" if figure.decides(counts_only=counts_only) else " (not decisive)"
    return f"{limit}: {verdict}{aside}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
