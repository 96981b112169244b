"""Reports about networks that know nothing of this package: what they do not have is left out, and named once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from cifar_lightning.models import ImageClassifier
from cifar_lightning.pages import Page, Table, Text, write_page
from cifar_lightning.report.examination import Examination
from cifar_lightning.report.sections import SECTIONS, run_sections
from cifar_lightning.runs import Run


class Tokens(nn.Module):
    """A small transformer over patches: its layers put out (B, tokens, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(8 * 8 * 3, 12)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(12, 2, 24, batch_first=True) for _ in range(2))
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(len(images), 16, -1)
        tokens = self.patches(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


class Recurrent(nn.Module):
    """One convolution that is called three times, on grey images, with two inputs to its head and the head first."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Bilinear(8, 8, 10)
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images.mean(1, keepdim=True)).relu_()
        for _ in range(3):
            maps = self.again(maps).relu_()
        return self.answer(maps.mean((2, 3)), maps.amax((2, 3)))


def headless() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, 10))


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


class Bare(nn.Module):
    """A matrix without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3072, 10))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weights


FILTERS, MAPS, CAM = "Filters: the network", "Feature maps: the network", "Grad-CAM is left out"
CORRUPTIONS = "--corruptions` measures them"
EMBEDDING = "Map of the features (t-SNE): the network"
CURVES, STEPS = "Learning curves: the run", "Training steps: the run"


@pytest.mark.parametrize(
    ("net", "missing"),
    [
        pytest.param(lambda: resnet18(num_classes=10), (), marks=pytest.mark.slow),
        (mlp, (CAM,)),
        (linear, (CAM, MAPS)),
        (headless, ()),
        (Tokens, (FILTERS, MAPS, CAM)),
        (Recurrent, (FILTERS,)),
        (Bare, (FILTERS, MAPS, CAM, EMBEDDING)),
    ],
    ids=["resnet18", "mlp", "linear", "headless", "tokens", "recurrent", "bare"],
)
def test_a_report_about_any_network(net, missing, data, tmp_path):
    model = ImageClassifier(net()).eval()
    Path("net/v").mkdir(parents=True)
    Path("net/v/config.yaml").write_text("model: {}")
    exam = Examination(Run("net/v"), "val", gallery_images=4, trained=(model, data))
    sections = run_sections(exam)
    write_page(Page("A report", sections), tmp_path, "report")
    sentences = [block.text for section in sections for block in section.blocks if isinstance(block, Text)]
    for reason in (FILTERS, MAPS, CAM, EMBEDDING, CURVES, STEPS, CORRUPTIONS):
        count = sum(reason in sentence for sentence in sentences)
        assert count == (reason in (*missing, CURVES, STEPS, CORRUPTIONS)), reason
    absent = sum(reason in missing for reason in (FILTERS, MAPS, EMBEDDING)) + 3
    assert (
        len(sections) == len(SECTIONS) - absent - 1 + 1
    )  # without more figures, and with the one that names what is left out
    costs = next(section for section in sections if section.title == "Cost by layer").blocks[0]
    assert isinstance(costs, Table)
    *layers, total = costs.rows
    parameters = sum(parameter.numel() for parameter in model.net.parameters())
    assert sum(int(row[1].replace(",", "")) for row in layers) == int(total[1].replace(",", "")) == parameters
    assert all(float(row[3].replace(",", "")) >= 0 for row in layers)
    assert all(cost.flops >= 0 for cost in exam.costs.values())
    with torch.no_grad():
        torch.testing.assert_close(exam.logits, model(exam.images), rtol=1e-4, atol=1e-4)
