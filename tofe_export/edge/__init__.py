"""Programs for phones and small boards, made by their makers' own converters from PyTorch."""
