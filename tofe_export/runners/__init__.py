"""One way to run a model, whatever holds it: images in, named arrays out."""
