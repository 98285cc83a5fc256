"""What a verb does, start to end, by calling the rooms below. No printing: progress goes through a callback."""
