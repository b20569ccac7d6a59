"""The order of a reconcile as a program of effects: what is read, written and called, and after what.

Not for: doing any of it (`runtime.effects`, the tests' drivers), or what is decided (`core.decision.decide`). A
program is a generator: it yields an effect, is sent its answer, and ends with when to work the key again.
"""
