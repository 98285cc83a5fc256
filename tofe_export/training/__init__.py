"""Training: the dense backbone first where it has no weights, then ToFe's selectors and approximators with it."""
