"""What each release stored: its definition and its objects, which the next one has to read.

Not for: the order of an upgrade (docs/upgrade.md).
"""
