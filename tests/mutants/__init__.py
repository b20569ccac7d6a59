"""Programs with one safety rule taken out, and the tests that must notice: `python -m mutants`.

Not for: the tests themselves. A rule whose absence no test notices is not kept.
"""
