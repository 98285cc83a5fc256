"""Files this program leaves behind: written whole or not at all, hashed, and described by a manifest."""
