"""Lower precision, written into the graph: casts and types, never builder flags."""
