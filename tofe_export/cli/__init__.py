"""The command line: thin verbs over the workflows. Nothing heavy is imported before a verb runs."""
