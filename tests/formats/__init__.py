"""Files in the formats that people have, made here with random weights: each is taken rightly or refused in words."""
