from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_lightning.models import CNN, MLP, CNNClassifier, MLPClassifier, ResNet, ResNetClassifier, introspection
from cifar_lightning.models.blocks import ACTIVATIONS, initialise, norm_1d, norm_2d
from cifar_lightning.models.pooling import MaxPoolByTwo

NETS = {
    "mlp": lambda: MLP([32, 16]),
    "mlp_whiten": lambda: MLP([16], whiten_components=3072),
    "mlp_linear": lambda: MLP([]),
    "mlp_layer_dropout": lambda: MLP([32, 16], "tanh", "layer", 0.3),
    "mlp_none": lambda: MLP([16], "silu", "none"),
    "cnn": lambda: CNN([8, 16], [2, 1]),
    "cnn_whiten": lambda: CNN([8, 16], [2, 1], whiten_px=2, dirac=True, norm_momentum=0.4, norm_scale=False),
    "cnn_patches": lambda: CNN([8, 16], 1, whiten_px=2, whiten_stride=2),
    "cnn_group": lambda: CNN([8, 6], [1, 2], norm="group", pooling="average", residual=True),
    "cnn_none": lambda: CNN([8, 16], [1, 1], norm="none", pooling="stride", activation="leaky_relu", dropout=0.3),
    "resnet18": lambda: ResNet(18),
    "resnet20": lambda: ResNet(20),
}


@pytest.fixture(params=NETS)
def net(request) -> nn.Module:
    return NETS[request.param]()


def n_params(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("widths", [[], [7], [20, 5, 9]])
def test_parameters_of_an_mlp(widths, norm):
    sizes = [3072, *widths, 10]
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    # One bias a unit without normalisation, else a scale and a shift.
    others = sum(widths) * (1 if norm == "none" else 2) + 10
    assert n_params(MLP(widths, norm=norm)) == weights + others


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("pooling", ["max", "average", "stride"])
def test_parameters_of_a_cnn(norm, kernel_size, pooling):
    # Two stages of 2 and 3 convolutions: 3 to 8, 8 to 8; 8 to 12, 12 to 12, 12 to 12.
    channels = [(3, 8), (8, 8), (8, 12), (12, 12), (12, 12)]
    expected = 12 * 10
    for fan_in, width in channels:
        expected += kernel_size**2 * fan_in * width + width * (1 if norm == "none" else 2)
    assert n_params(CNN([8, 12], [2, 3], kernel_size=kernel_size, norm=norm, pooling=pooling)) == expected


def test_default_widths():
    assert [tuple(p.shape) for p in MLPClassifier().parameters() if p.ndim == 2] == [
        (2048, 3072),
        (1024, 2048),
        (512, 1024),
        (10, 512),
    ]
    convs = [m for m in CNNClassifier().modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [64, 64, 128, 128, 256, 256]
    assert len([m for m in CNNClassifier(CNN([8])).modules() if isinstance(m, nn.Conv2d)]) == 2
    assert n_params(ResNetClassifier()) == 269_722


def test_shapes(net):
    images = torch.randn(5, 3, 32, 32)
    features = net.eval().features(images)
    assert features.shape == (5, net.head.in_features)
    logits = net(images)
    assert logits.shape == (5, 10)
    scale = net.logit_scale if isinstance(net, CNN) else 1
    torch.testing.assert_close(logits, scale * F.linear(features, net.head.weight, net.head.bias))
    filters = net.first_filters()
    first = next(parameter for parameter in net.parameters() if parameter.requires_grad)
    assert filters.ndim == 4
    assert filters.shape[:2] == (len(first), 3)
    if introspection.fixed_filters(net) is None:
        assert torch.equal(filters.flatten(), first.flatten())


def test_every_parameter_gets_a_gradient(net):
    F.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_no_sample_leaks_into_another(net):
    net.eval()
    images = torch.randn(3, 3, 32, 32, requires_grad=True)
    logits = net(images)
    for i in range(3):
        (grad,) = torch.autograd.grad(logits[i].sum(), images, retain_graph=True)
        reached = grad.abs().amax((1, 2, 3)) > 0
        assert reached.tolist() == [i == j for j in range(3)]


def test_channels_last_gives_the_same_logits(net):
    images = torch.randn(4, 3, 32, 32)
    expected = net.eval()(images)
    moved = copy.deepcopy(net).to(memory_format=torch.channels_last)
    found = moved(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classifier", [MLPClassifier, CNNClassifier, ResNetClassifier])
def test_channels_last_classifiers_keep_their_weights_in_that_order(classifier):
    plain, moved = classifier().eval(), classifier(channels_last=True).eval()
    moved.load_state_dict(plain.state_dict())
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert moved.normalize(images).is_contiguous(memory_format=torch.channels_last)
    assert plain.normalize(images).is_contiguous()
    convs = [m.weight for m in moved.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convs)
    torch.testing.assert_close(moved(images), plain(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm), ("none", nn.Identity)])
def test_options_of_the_mlp(activation, norm, layer):
    net = MLP([8, 8], activation, norm, dropout=0.5)
    kinds = [type(m) for m in net.modules()]
    assert kinds.count(layer) == kinds.count(type(ACTIVATIONS[activation]())) == kinds.count(nn.Dropout) == 2
    images = torch.randn(4, 3, 32, 32)
    assert net(images).isfinite().all()
    assert not torch.equal(net(images), net(images))  # dropout
    net.eval()
    assert torch.equal(net(images), net(images))


@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pooling", ["max", "average", "stride"])
@pytest.mark.parametrize("residual", [False, True])
def test_options_of_the_cnn(norm, layer, activation, pooling, residual):
    net = CNN([8, 12], [2, 1], norm=norm, activation=activation, pooling=pooling, residual=residual, dropout=0.5)
    layers = list(net.modules())
    kinds = [type(m) for m in layers]
    # Strides stand where the pooling would: an identity in each stage.
    assert kinds.count(layer) == 3 + 2 * (layer is nn.Identity and pooling == "stride")
    assert kinds.count(type(ACTIVATIONS[activation]())) == 3
    assert (kinds.count(MaxPoolByTwo), kinds.count(nn.AvgPool2d)) == (
        2 * (pooling == "max"),
        2 * (pooling == "average"),
    )
    assert [m.stride for m in layers if isinstance(m, nn.Conv2d)].count((2, 2)) == 2 * (pooling == "stride")
    images = torch.randn(3, 3, 32, 32)
    assert net(images).isfinite().all()
    assert not torch.equal(net(images), net(images))  # dropout


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("pooling", ["max", "average", "stride"])
def test_five_stages_of_any_kernel_end_in_one_pixel(kernel_size, pooling):
    net = CNN([4, 4, 4, 4, 4], [1, 1, 2, 1, 1], kernel_size=kernel_size, pooling=pooling)
    x = torch.randn(2, 3, 32, 32)
    for size, stage in zip((16, 8, 4, 2, 1), net.stages, strict=True):
        x = stage(x)
        assert x.shape == (2, 4, size, size)
    assert net.first_filters().shape == (4, 3, kernel_size, kernel_size)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_first_filters_are_both_layers_in_one(stride):
    net, images = CNN([4], 1, whiten_px=2, whiten_stride=stride), torch.randn(2, 3, 32, 32)
    net.initialise_from(torch.randn(8, 3, 32, 32))
    expected = F.conv2d(net.whiten[0](images), net.stages[0].down[0].weight)
    torch.testing.assert_close(F.conv2d(images, net.first_filters(), stride=stride), expected, atol=1e-4, rtol=1e-4)


def test_a_residual_stage_adds_what_went_in():
    net = CNN([8], [3], residual=True).eval()
    plain = copy.deepcopy(net)
    plain.stages[0].residual = False
    stage, images = net.stages[0], torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(stage(images), stage.down(images) + plain.stages[0](images))


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (64, 8), (12, 1)])
def test_groups_hold_eight_channels_where_they_can(channels, groups):
    assert norm_2d("group", channels).num_groups == groups


def test_layer_norm_works_on_each_sample():
    x = torch.randn(4, 100) * 3 + 5
    y = norm_1d("layer", 100)(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(1, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_initial_weights_keep_the_variance_of_rectified_inputs():
    conv, linear = nn.Conv2d(64, 128, 3), nn.Linear(2000, 300)
    initialise(nn.Sequential(conv, linear))
    for weight, fan_in in ((conv.weight, 64 * 9), (linear.weight, 2000)):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
    assert conv.bias.abs().max() == linear.bias.abs().max() == 0


def test_only_networks_without_normalisation_are_scaled_for_it():
    for net, norm in itertools.product((MLP, CNN), ("batch", "none")):
        built = net([64], norm=norm) if net is MLP else net([64], [2], norm=norm)
        layers = [m for m in built.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer in layers:
            # PyTorch draws evenly from +-1 / sqrt(fan_in), the deviation of which is 1 / sqrt(3 fan_in).
            fan_in = layer.weight[0].numel()
            expected = math.sqrt((2 if norm == "none" else 1 / 3) / fan_in)
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        if norm == "none":
            assert all(layer.bias.abs().max() == 0 for layer in layers if layer.bias is not None)


def test_the_logit_scale_is_a_factor():
    net, images = CNN([8], [1], logit_scale=1.0).eval(), torch.randn(2, 3, 32, 32)
    expected = net(images) / 8
    net.logit_scale = 0.125
    torch.testing.assert_close(net(images), expected)
    assert CNN([8], [1]).logit_scale == 0.125


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (lambda: MLP([8, 0]), ["Expected every one of `model.net.widths` to be at least 1 unit, got [8, 0]."]),
        (lambda: MLP([8], dropout=1.0), ["Expected `model.net.dropout` in [0, 1), got 1.0."]),
        (lambda: MLP([8], dropout=-0.1), ["Expected `model.net.dropout` in [0, 1), got -0.1."]),
        (lambda: CNN([], []), ["Expected `model.net.widths` to be 1 to 5 numbers of channels, got []."]),
        (
            lambda: CNN([8] * 6, [1] * 6),
            ["`model.net.widths` to be 1 to 5 numbers of channels, got [8, 8, 8, 8, 8, 8]."],
        ),
        (lambda: CNN([8, 0], [1, 1]), ["Expected `model.net.widths` to be 1 to 5 numbers of channels, got [8, 0]."]),
        (
            lambda: CNN([8, 8], [2]),
            [
                "Expected `model.net.depths` to be 2 numbers of at least 1 convolution, one for each of "
                "`model.net.widths` [8, 8], got [2]."
            ],
        ),
        (lambda: CNN([8], [0]), ["`model.net.depths` to be 1 numbers of at least 1 convolution", "got [0]."]),
        (
            lambda: CNN([8], [1], residual=True),
            ["one of `model.net.depths` above 1 for `model.net.residual` to skip, got [1]."],
        ),
        (
            lambda: CNN([8], [1], kernel_size=4),
            ["Expected `model.net.kernel_size` to be an odd number of pixels, got 4."],
        ),
        (
            lambda: CNN([8], [1], kernel_size=-1),
            ["Expected `model.net.kernel_size` to be an odd number of pixels, got -1."],
        ),
        (lambda: CNN([8], [1], dropout=1.5), ["Expected `model.net.dropout` in [0, 1), got 1.5."]),
        (lambda: CNN([8], [1], logit_scale=0.0), ["Expected `model.net.logit_scale` above 0, got 0.0."]),
        (
            lambda: CNN([], [1], kernel_size=2, dropout=2.0),
            ["`model.net.widths`", "`model.net.depths`", "`model.net.kernel_size`", "`model.net.dropout`"],
        ),
        (lambda: ResNet(34), ["Expected `model.net.depth` to be 18, 20, 32, 44, 56 or 110 layers, got 34."]),
    ],
)
def test_messages(make, messages):
    with pytest.raises(ValueError, match="Expected") as caught:
        make()
    for message in messages:
        assert message in str(caught.value)


def reach(net: CNN, side: int) -> tuple[int, int]:
    """First and last row of the image that have a share in the features of a network of 1x1 kernels."""
    images = torch.rand(1, 3, side, side, requires_grad=True)
    net.features(images).sum().backward()
    rows = images.grad.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    assert len(rows) == rows[-1] - rows[0] + 1
    assert images.grad.abs().sum((0, 1, 2)).nonzero().flatten().tolist() == rows  # the columns
    return rows[0], rows[-1]


@pytest.mark.parametrize(
    ("side", "plain", "centred"),
    [(31, (0, 23), (4, 27)), (27, (0, 23), (2, 25)), (23, (0, 15), (4, 19)), (19, (0, 15), (2, 17))],
)
def test_centred_pooling_keeps_the_middle(side, plain, centred):
    of = {"kernel_size": 1, "norm": "none", "activation": "tanh", "pooling": "average"}
    assert reach(CNN([4, 4, 4], 1, **of), side) == plain
    assert reach(CNN([4, 4, 4], 1, centred=True, **of), side) == centred


def test_strides_are_never_centred():
    with pytest.raises(ValueError, match=r"Expected `model.net.pooling` of max or average for `model.net.centred`"):
        CNN(centred=True, pooling="stride")


def test_dirac_convolutions_start_as_the_identity():
    net = CNN([4, 8], [2, 1], dirac=True)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(net.stages[0].body[0](x), x)
    torch.testing.assert_close(net.stages[1].down[0](x)[:, :4], x)


@pytest.mark.parametrize("whiten_px", [0, 2, 3])
@pytest.mark.parametrize("widths", [[4], [4, 4, 4]])
def test_smaller_images_down_to_the_stated_size(widths, whiten_px):
    net, smallest = CNN(widths, 1, whiten_px=whiten_px).eval(), 2 ** len(widths) + max(0, whiten_px - 1)
    assert net(torch.randn(2, 3, smallest, smallest)).shape == (2, 10)
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 3, smallest - 1, smallest - 1))


def test_an_mlp_names_all_that_is_wrong():
    with pytest.raises(ValueError) as caught:
        MLP([0], dropout=1.0, whiten_components=3073)
    for words in (
        "`model.net.widths`",
        "[0]",
        "`model.net.dropout`",
        "1.0",
        "`model.net.whiten_components` in [0, 3072]",
        "3073",
    ):
        assert words in str(caught.value)
