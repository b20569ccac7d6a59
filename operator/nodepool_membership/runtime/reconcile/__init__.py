"""One reconcile as it is carried out: the program's effects, one after another, with all that they need.

Not for: their order (`core.program`), or what is decided (`core.decision.decide`).
"""
