"""Holds the rules and the dashboard of `deploy/components/monitoring` against the metrics of the code."""
