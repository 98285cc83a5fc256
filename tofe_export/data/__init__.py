"""Images: digits, photographs and folders as batches of tensors, and how an image becomes a model's input."""
