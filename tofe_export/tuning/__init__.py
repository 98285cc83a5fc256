"""How many tokens each stage keeps."""
