"""One object decided from end to end: held against what was seen, planned, told; and what the answer to a call means.

Not for: any single stage of that (the rooms below), or the effects around it (`core.program`).
"""
