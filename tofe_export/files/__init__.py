"""Files on disk: read with errors in words, written whole or not at all, under the names everybody uses."""
