"""What a server loads: folders around an artifact, one file per server."""
