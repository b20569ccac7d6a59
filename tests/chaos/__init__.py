"""Chaos: the operator stopped at every boundary, and killed at random on the real control plane; what must hold holds.

Not for: single failures with a name of their own (`tests/cluster`), or the decisions by themselves (`tests/property`).
"""
