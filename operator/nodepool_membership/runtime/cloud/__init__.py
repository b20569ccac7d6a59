"""From a membership to the cloud: endpoint, keys, reads, a place for its calls, and what errors mean.

Not for: the wire (`cce`), or when anything is read (`core.program`).
"""
