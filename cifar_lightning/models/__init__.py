"""The networks, each with the LightningModule that trains it."""

from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.models.cnn import CNN, CNNClassifier
from cifar_lightning.models.mlp import MLP, MLPClassifier
from cifar_lightning.models.resnet import ResNet, ResNetClassifier
from cifar_lightning.models.selective import SelectiveClassifier

__all__ = [
    "CNN",
    "MLP",
    "CNNClassifier",
    "ImageClassifier",
    "MLPClassifier",
    "ResNet",
    "ResNetClassifier",
    "SelectiveClassifier",
]
