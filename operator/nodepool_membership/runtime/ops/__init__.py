"""What an administrator sets and reads: options, logs, metrics.

Not for: serving metrics (`runtime.process.health`), or the command line (`cli`).
"""
