"""Pages and files that are generated from the code: `python -m pages` writes them, a test holds that they are current.

Not for: pages that people write.
"""
