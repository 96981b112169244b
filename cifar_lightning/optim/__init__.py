"""Optimizers, parameter groups and learning-rate schedules."""

from cifar_lightning.optim.muon import Muon

__all__ = ["Muon"]
