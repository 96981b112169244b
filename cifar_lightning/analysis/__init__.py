"""Numbers and figures from tensors, without Lightning."""
