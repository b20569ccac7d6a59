"""What is known of a membership and outlives the process: its state, what people ask of it, the settings.

Not for: what was seen of the cloud (`core.observed`), or what follows from both (the rooms above).
"""
