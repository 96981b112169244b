"""Neural networks for CIFAR-10 from raw pixels: data, models, training and analysis on PyTorch Lightning."""

__version__ = "0.1.0"

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The ten class names in label order, as in Krizhevsky, "Learning Multiple Layers of Features from Tiny Images"."""
