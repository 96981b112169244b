"""The pooling of the CNN gives what PyTorch's gives, and keeps less for the backward pass."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_lightning.models.cnn import PooledConv2d
from cifar_lightning.models.pooling import MaxPoolByTwo


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(120, 3, 30, 30), (2, 8, 7, 5), (1, 1, 200, 190), (3, 2, 2, 2), (0, 3, 8, 8)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_outputs_and_gradients_are_those_of_pytorch(shape, dtype, memory_format, deterministic):
    x = torch.randint(-3, 4, shape).to(dtype).to(memory_format=memory_format)  # with many ties
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.use_deterministic_algorithms(deterministic)
    try:
        pooled, expected = MaxPoolByTwo()(ours), F.max_pool2d(theirs, 2)
        gradient = torch.randn_like(expected)
        pooled.backward(gradient)
    finally:
        torch.use_deterministic_algorithms(False)
    expected.backward(gradient)
    assert torch.equal(pooled, expected)
    assert torch.equal(ours.grad, theirs.grad)
    assert pooled.is_contiguous(memory_format=memory_format)
    assert ours.grad.is_contiguous(memory_format=memory_format)


def bytes_kept(layer: nn.Module, x: torch.Tensor) -> int:
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(x.requires_grad_())
    return sum(tensor.nbytes for tensor in kept)


def test_two_bytes_are_kept_for_each_output():
    x = torch.randn(2, 4, 16, 16, dtype=torch.bfloat16)
    outputs = x.numel() // 4
    assert bytes_kept(MaxPoolByTwo(), x) == 2 * outputs
    assert bytes_kept(nn.MaxPool2d(2), x) == (4 * 2 + 8) * outputs


def test_nothing_is_kept_without_a_gradient():
    x = torch.randn(2, 4, 16, 16)
    assert not MaxPoolByTwo()(x).requires_grad
    with torch.no_grad():
        assert torch.equal(MaxPoolByTwo()(x.requires_grad_()), F.max_pool2d(x, 2))


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (8, 9), (7, 6)])
def test_a_convolution_before_a_pooling_computes_what_the_pooling_reads(kernel_size, height, width):
    conv = PooledConv2d(3, 4, kernel_size, padding=kernel_size // 2, bias=False)
    plain = nn.Conv2d(3, 4, kernel_size, padding=kernel_size // 2, bias=False)
    plain.load_state_dict(conv.state_dict())
    images = torch.randn(2, 3, height, width, requires_grad=True)
    outputs = conv(images)
    assert outputs.shape[2:] == (height // 2 * 2, width // 2 * 2)
    expected = F.max_pool2d(plain(images), 2)
    torch.testing.assert_close(F.max_pool2d(outputs, 2), expected)
    torch.testing.assert_close(F.avg_pool2d(outputs, 2), F.avg_pool2d(plain(images), 2))
    (gradient,) = torch.autograd.grad(F.max_pool2d(outputs, 2).square().sum(), images)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), images)[0])
