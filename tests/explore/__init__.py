"""Every short history of a small world, breadth first, judged by physics alone.

Not for: long histories (`tests/property`) or the real wire (`tests/chaos`, `tests/cluster`).
"""
