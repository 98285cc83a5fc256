"""From a file of weights to a network: this program's own checkpoints, and those of other people."""
