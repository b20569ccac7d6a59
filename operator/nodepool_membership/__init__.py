"""The NodePoolMembership operator: makes listed servers members of a customized CCE node pool, each exactly once."""

__version__ = "0.1.0"
