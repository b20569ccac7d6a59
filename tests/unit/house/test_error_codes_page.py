"""docs/error-codes.md is what the catalogue says now."""

from pathlib import Path

from error_codes_page import page

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "error-codes.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "make pages"
