"""Worked examples: heads of other tasks on the features of a network that freezes tokens (docs/dense-tasks.md)."""
