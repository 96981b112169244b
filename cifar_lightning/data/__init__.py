"""The data path: from files or a renderer to augmented uint8 batches."""
