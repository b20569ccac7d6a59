"""Whose turn it is: the queue of keys, the order in it, signs of life, and which replica leads.

Not for: the work itself (`runtime.process.workers`, `runtime.reconcile`).
"""
