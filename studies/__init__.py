"""Experiments: when does freezing and reusing tokens pay? See docs/studies.md and `python -m studies --help`."""
