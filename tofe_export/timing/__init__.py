"""How much faster, measured so that it can be believed: hot, beside a dense twin, in several fresh processes."""
