from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from cifar_lightning import CLASSES
from cifar_lightning.analysis.confusion import plot_confusion, row_normalised
from cifar_lightning.analysis.filters import plot_filters, strongest_filters
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.analysis.style import BLUE, DPI, ORANGE, image_array, new_figure, render


def rendered(figure: Figure) -> np.ndarray:
    """The pixels of the PNG that a figure makes: uint8 (H, W, 3). Missing glyphs and bad layouts would warn."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def title(figure: Figure) -> str:
    return figure.get_suptitle()


def colours(pixels: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, pixels.reshape(-1, 3).tolist()))


# Confusion.


def test_rows_become_shares():
    matrix = torch.tensor([[3, 1, 0], [0, 0, 0], [5, 0, 15]])
    shares = row_normalised(matrix)
    assert shares.dtype == torch.float64
    assert shares.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 0.0], [0.25, 0.0, 0.75]]
    # Counts that float32 could not tell apart.
    assert row_normalised(torch.tensor([[2**24, 1]])).sum() == 1


def test_confusion_shows_every_count_but_zero():
    matrix = torch.zeros(10, 10, dtype=torch.long)
    matrix[3, 5], matrix[5, 5], matrix[9, 0] = 12, 34, 56
    figure = plot_confusion(matrix, CLASSES, "Confusion matrix, cnn/version_0, 102 val images")
    assert title(figure) == "Confusion matrix, cnn/version_0, 102 val images"
    axes, colour_bar = figure.axes
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((5, 3), "12"),
        ((5, 5), "34"),
        ((0, 9), "56"),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert "share of the true class" in colour_bar.get_ylabel()
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), row_normalised(matrix).numpy())
    assert image.get_clim() == (0, 1)
    assert rendered(figure).std() > 5


def test_counts_stand_out_from_their_field():
    matrix = torch.tensor([[9, 1], [5, 5]])
    figure = plot_confusion(matrix, ("a", "b"), "x")
    assert [text.get_color() for text in figure.axes[0].texts] == ["white", "black", "black", "black"]


# Filters.


def test_the_strongest_filters_come_first():
    weights = torch.randn(5, 3, 4, 4)
    weights /= weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    weights *= torch.tensor([2.0, 5.0, 1.0, 4.0, 3.0]).view(-1, 1, 1, 1)
    assert torch.equal(strongest_filters(weights, 3), weights[[1, 3, 4]])
    assert torch.equal(strongest_filters(weights, 99), weights[[1, 3, 4, 0, 2]])


@pytest.mark.parametrize(
    ("n", "side", "count", "shown"), [(64, 3, 64, 64), (100, 5, 64, 64), (7, 3, 64, 7), (1, 3, 64, 1), (50, 32, 24, 24)]
)
def test_filters_are_drawn_in_colour(n, side, count, shown):
    figure = plot_filters({"first layer": torch.randn(n, 3, side, side, requires_grad=True)}, "Filters, mlp", count)
    assert title(figure) == "Filters, mlp"
    (axes,) = figure.axes
    assert axes.get_title() == f"first layer: {shown} strongest of {n}, {side}×{side} pixels"
    (image,) = axes.images
    drawn = np.asarray(image.get_array())
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert len(colours((255 * drawn).astype(np.uint8))) >= min(9 * shown, 20)
    assert len(colours(rendered(figure))) > 50


def test_each_filter_is_scaled_on_its_own_and_grey_is_zero():
    weights = torch.zeros(3, 3, 1, 1)
    weights[0, 0], weights[1, 1] = 8.0, -0.001  # a strong red one, a weak one against green, and one of zeros
    figure = plot_filters({"first layer": weights}, "x")
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    # Squares of 32 pixels with margins of 3.
    centres = [drawn[19, 19 + 35 * i].tolist() for i in range(3)]
    assert centres == [[1.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.5]]
    rendered(figure)


# Gallery.


def some_predictions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five images of one colour each, of which the second and the fourth are taken for ships."""
    images = torch.zeros(5, 3, 32, 32, dtype=torch.uint8)
    for i, colour in enumerate([(250, 10, 20), (30, 240, 40), (50, 60, 230), (200, 200, 10), (10, 200, 200)]):
        images[i] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    labels = torch.tensor([0, 1, 2, 3, 4])
    logits = torch.full((5, 10), -20.0)
    logits[torch.arange(5), torch.tensor([0, 8, 2, 8, 4])] = 20.0
    return images, labels, logits


def test_predictions_draw_the_images():
    images, labels, logits = some_predictions()
    figure = plot_predictions(images, labels, logits, CLASSES, "Predictions, cnn, 5 val images", columns=3)
    assert len(figure.axes) == 6  # two rows of three, one of them empty
    for i, axes in enumerate(figure.axes[:5]):
        (drawn,) = axes.images
        np.testing.assert_array_equal(drawn.get_array(), images[i].permute(1, 2, 0).numpy())
    assert not figure.axes[5].images
    found = colours(rendered(figure))
    assert {tuple(image[:, 0, 0].tolist()) for image in images} <= found


def test_predictions_name_the_mistakes():
    images, labels, logits = some_predictions()
    figure = plot_predictions(images, labels, logits, CLASSES, "Predictions, cnn, 5 val images")
    assert title(figure) == "Predictions, cnn, 5 val images: 2 of 5 wrong"
    assert len(figure.axes) == 8
    assert [axes.get_title() for axes in figure.axes[:5]] == [
        "airplane 100%",
        "ship 100%",
        "bird 100%",
        "ship 100%",
        "deer 100%",
    ]
    assert [axes.get_xlabel() for axes in figure.axes[:5]] == ["", "is automobile", "", "is cat", ""]
    assert [axes.get_frame_on() for axes in figure.axes] == [i in (1, 3) for i in range(8)]
    assert [axes.title.get_color() for axes in figure.axes[:5]] == [BLUE, ORANGE, BLUE, ORANGE, BLUE]
    frame = tuple(round(255 * part) for part in to_rgb(ORANGE))
    assert frame in colours(rendered(figure))


def test_no_mistakes_no_frames():
    images, labels, logits = some_predictions()
    right = [0, 2, 4]
    figure = plot_predictions(images[right], labels[right], logits[right], CLASSES, "Predictions")
    assert title(figure) == "Predictions: 0 of 3 wrong"
    assert tuple(round(255 * part) for part in to_rgb(ORANGE)) not in colours(rendered(figure))


def test_the_percentage_is_the_probability():
    images, labels, _ = some_predictions()
    logits = torch.zeros(5, 10)
    logits[:, 6] = torch.tensor(9 * 0.37 / 0.63).log()
    figure = plot_predictions(images, labels, logits.bfloat16().requires_grad_(), CLASSES, "x")
    assert {axes.get_title() for axes in figure.axes[:5]} == {"frog 37%"}


# Style.


def test_a_figure_as_a_picture():
    figure = new_figure(3, 2, "a title that is much too long for a figure three inches wide and so has to be wrapped")
    axes = figure.add_subplot()
    axes.plot([1, 2], color=BLUE, linewidth=20)
    picture = render(figure)
    assert (picture.mode, picture.size) == ("RGB", (3 * DPI, 2 * DPI))
    assert {colour for _, colour in picture.getcolors(10_000)} >= {(255, 255, 255), (0, 114, 178)}


def test_images_for_matplotlib_have_channels_last():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    array = image_array(images)
    assert array.shape == (2, 4, 5, 3)
    assert array[1, 2, 3].tolist() == images[1, :, 2, 3].tolist()
