"""Hostile inputs over every verb: files, folders, options, environments, terminals. `python -m tests.hostile`."""
