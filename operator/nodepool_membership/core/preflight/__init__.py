"""Servers looked at before a call wipes them: what is read of them, and rule by rule what speaks against it.

Not for: reading them (`cce.servers`), or what follows for a membership (`core`). Pure: no I/O, no clock.
"""
