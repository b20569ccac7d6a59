"""What was seen in one reconcile: of the cloud, of its clock, of its error codes, and of what others claim.

Not for: reading any of it (`cce`, `runtime`), or what becomes of servers by it (`core.servers`).
"""
