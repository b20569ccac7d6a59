"""The process as a whole: its parts put together, its workers, its probes, its end.

Not for: one reconcile (`runtime.reconcile`).
"""
