from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from cifar_lightning import CLASSES
from cifar_lightning.data import synthetic
from cifar_lightning.data.split import ImageSet, content_fingerprint
from cifar_lightning.data.synthetic import MOTIFS, render_images, synthetic_images


@pytest.fixture(scope="module")
def train() -> ImageSet:
    return synthetic_images("train", 3000)


@pytest.fixture(scope="module")
def test() -> ImageSet:
    return synthetic_images("test", 1000)


def digests(split: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_one_motif_for_each_class():
    assert len(MOTIFS) == len(set(MOTIFS)) == len(CLASSES)


def test_tensors_are_what_a_split_promises(train):
    assert train.images.shape == (3000, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.images.is_contiguous()
    assert train.labels.shape == (3000,)
    assert train.labels.dtype == torch.int64
    assert train.fingerprint == content_fingerprint(train.images, train.labels)


def test_pixels_use_the_range_and_seldom_clip(train):
    pixels = train.images.flatten()
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert ((pixels == 0) | (pixels == 255)).float().mean() < 0.1
    assert 115 < pixels.float().mean() < 140


@pytest.mark.parametrize("n", [10, 17, 300])
def test_classes_are_balanced_and_the_first_get_the_remainder(n):
    expected = [n // 10 + (label < n % 10) for label in range(10)]
    assert torch.bincount(render_images(n, 3).labels, minlength=10).tolist() == expected


def test_classes_come_shuffled(train):
    for tenth in train.labels.chunk(10):
        assert torch.bincount(tenth, minlength=10).min() > 10


def test_pixels_are_the_same_on_every_machine():
    # By construction, see the module: whoever changes them changes every published number, knowingly.
    assert render_images(30, 0).fingerprint == "8f8f0204cf148a80a19a8d487eaa0d9efad49687e6446e3ada54489ba9524e04"


def test_pixels_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        fingerprints = set()
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            fingerprints.add(render_images(400, 5).fingerprint)
    finally:
        torch.set_num_threads(threads)
    assert len(fingerprints) == 1


def test_pixels_do_not_depend_on_the_global_generators():
    torch.manual_seed(1)
    first = render_images(50, 5).fingerprint
    torch.manual_seed(2)
    assert render_images(50, 5).fingerprint == first


def test_no_image_is_in_both_splits_or_twice(train, test):
    assert len(digests(train)) == len(train)
    assert len(digests(test)) == len(test)
    assert not digests(train) & digests(test)


def test_splits_of_neighbouring_seeds_share_no_image():
    sets = [digests(synthetic_images(split, 50, seed)) for seed in range(4) for split in ("train", "test")]
    assert len(set.union(*sets)) == 8 * 50


def test_mean_colour_does_not_predict_the_class(train, test):
    def colours(split: ImageSet) -> np.ndarray:
        pixels = split.images.float()
        return torch.cat([pixels.mean((2, 3)), pixels.mean((1, 2, 3))[:, None]], dim=1).numpy()

    forest = RandomForestClassifier(50, min_samples_leaf=5, random_state=0).fit(colours(train), train.labels)
    assert forest.score(colours(test), test.labels) < 0.2


def test_nearest_class_template_fails(train, test):
    def grey(split: ImageSet) -> torch.Tensor:
        return split.images.float().mean(1).flatten(1)

    templates = torch.stack([grey(train)[train.labels == label].mean(0) for label in range(10)])
    accuracy = (torch.cdist(grey(test), templates).argmin(1) == test.labels).float().mean()
    assert accuracy < 0.25


def test_every_motif_contrasts_with_its_background_in_both_polarities(monkeypatch):
    masks = []
    motif = synthetic._motif
    monkeypatch.setattr(synthetic, "_motif", lambda *args: masks.append(motif(*args)) or masks[-1])
    split = render_images(1000, 0)
    for label, mask in enumerate(map(torch.from_numpy, masks)):
        grey = split.images[split.labels == label].float().mean(1)
        inside = (grey * mask).sum((1, 2)) / mask.sum((1, 2))
        outside = (grey * (1 - mask)).sum((1, 2)) / (1 - mask).sum((1, 2))
        assert (inside - outside).abs().min() > 20
        assert 0.25 < (inside > outside).float().mean() < 0.75


def test_every_motif_is_its_own_mirror_image_up_to_a_rotation():
    axis = np.linspace(-1.2, 1.2, 48, dtype=np.float32)
    u, v = axis[None, None, :], axis[None, :, None]
    for name, distance in zip(MOTIFS, synthetic._DISTANCES, strict=True):
        plane = distance(u, v)[0]
        mirrored = plane[:, ::-1]
        assert any(np.allclose(np.rot90(plane, turns), mirrored, atol=1e-5) for turns in range(4)), name


@pytest.mark.parametrize("n", [-1, 0, 9])
@pytest.mark.parametrize("split", ["train", "test"])
def test_too_few_images_name_the_argument(split, n):
    message = f"Expected `data.synthetic_{split}` to be at least 10, one image per class, got {n}."
    with pytest.raises(ValueError, match=re.escape(message)):
        synthetic_images(split, n)
    with pytest.raises(ValueError, match=f"Expected `n` to be at least 10, .* got {n}."):
        render_images(n, 0)


def test_all_problems_come_in_one_message():
    with pytest.raises(ValueError, match=r"(?s)`data\.synthetic_train`.*got 3\..*Expected `seed`.*got -1\."):
        synthetic_images("train", 3, seed=-1)


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="Expected `split` to be 'train' or 'test', got 'val'"):
        synthetic_images("val", 10)  # type: ignore[arg-type]


def test_more_images_than_memory_holds_are_refused():
    message = "Expected `data.synthetic_train` to be at most 1,000,000 images, which are kept in memory, got 1000001."
    with pytest.raises(ValueError, match=re.escape(message)):
        synthetic_images("train", 1_000_001)
