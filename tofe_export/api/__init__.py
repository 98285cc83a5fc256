"""The public API: one use case per file, a path or object in, a typed result out. Prints nothing, knows no options."""
