"""What becomes of servers by what was seen: those of open adds and removals, and those that no call is about.

Not for: which call is made next (`core.planning`), or what people are told (`core.conditions`).
"""
