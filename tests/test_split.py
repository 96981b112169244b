from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar_lightning.data.split import content_fingerprint, stratified_indices


@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=200), share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_a_stratified_split(labels, share, seed):
    labels = torch.tensor(labels)
    n = len(labels)
    val_size = min(int(share * n), n - 1)
    train, val = stratified_indices(labels, val_size, seed)
    assert (len(train), len(val)) == (n - val_size, val_size)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(n))
    assert train.tolist() == sorted(train.tolist())
    assert val.tolist() == sorted(val.tolist())
    for label in range(10):
        members = int((labels == label).sum())
        assert abs(int((labels[val] == label).sum()) - members * val_size / n) < 1


def test_the_official_sizes_give_every_class_the_same():
    labels = torch.arange(10).repeat(5000)
    train, val = stratified_indices(labels, 5000, 0)
    assert torch.bincount(labels[val]).tolist() == [500] * 10
    assert torch.bincount(labels[train]).tolist() == [4500] * 10


def test_the_largest_remainders_get_the_rest_of_rounding():
    # Shares of 7 of 20: 3.5, 2.1 and 1.4; if all tie, the lowest classes.
    labels = torch.tensor([0] * 10 + [1] * 6 + [2] * 4)
    assert torch.bincount(labels[stratified_indices(labels, 7, 0)[1]]).tolist() == [4, 2, 1]
    labels = torch.arange(10).repeat(3)
    assert labels[stratified_indices(labels, 3, 0)[1]].sort().values.tolist() == [0, 1, 2]


def test_the_split_depends_on_the_seed_alone():
    labels = torch.arange(10).repeat(20)
    first = stratified_indices(labels, 40, 7)
    torch.manual_seed(99)
    again, other = stratified_indices(labels, 40, 7), stratified_indices(labels, 40, 8)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_any_member_of_a_class_can_be_chosen():
    labels = torch.arange(2).repeat(10)
    chosen = {i for seed in range(60) for i in stratified_indices(labels, 2, seed)[1].tolist()}
    assert chosen == set(range(20))


@pytest.mark.parametrize("val_size", [-1, 10, 11])
def test_a_size_out_of_range(val_size):
    message = rf"`data\.val_size` to be at least 0 and less than the 10 training images, got {val_size}\."
    with pytest.raises(ValueError, match=message):
        stratified_indices(torch.arange(10), val_size, 0)


def test_fingerprint_is_the_hash_of_the_bytes():
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([3, 1, 4, 1])
    expected = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    assert content_fingerprint(images, labels) == expected
    assert content_fingerprint(images.to(memory_format=torch.channels_last), labels) == expected
    other_images, other_labels = images.clone(), labels.clone()
    other_images[2, 1, 5, 7] ^= 1
    other_labels[0] = 2
    assert len({expected, content_fingerprint(other_images, labels), content_fingerprint(images, other_labels)}) == 3
