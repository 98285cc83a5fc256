"""A deployed file: opened, hashed and described once; file, manifest and external data replaced together."""
