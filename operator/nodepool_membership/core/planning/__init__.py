"""Which call is made next and for whom, or what keeps it from being made.

Not for: making it (`core.program`), or what its answer means (`core.decision.record`).
"""
