"""Experiments: when does freezing and reusing tokens pay? `python -m studies --help`; docs/studies.md has the answers."""
