"""Does the deployed model say the same as the PyTorch one? Selection drift and numerical drift, kept apart."""
