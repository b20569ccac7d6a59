"""What is told: conditions, messages, Events and the next time; and whether the finalizer stays.

Not for: deciding anything else. Nobody reads it back.
"""
