"""How much faster, measured so that it can be believed: dense and ToFe in turn, in one process, paired."""
