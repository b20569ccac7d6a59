"""The NodePoolMembership resource as Python types: spec, status, conditions, reasons.

Not for: I/O or decisions. The schema users see is `crds/nodepoolmemberships.yaml`; a test holds the two together.
"""
