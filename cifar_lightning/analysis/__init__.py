"""Tensors in, numbers and figures out; knows nothing of Lightning."""
