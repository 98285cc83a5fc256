"""The ToFe network: selectors, approximators, the two graph operators, and the three paths through them."""
