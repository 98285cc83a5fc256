"""One HTML page that shows what a run folder holds: speed, parity, training, and where the tokens go."""
