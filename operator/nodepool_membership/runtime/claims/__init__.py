"""Who names which server, over all memberships of the process.

Not for: what a conflict means for one of them (`core.observed.rivals`).
"""
