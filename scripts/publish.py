"""Publish the network of a run with the package: its weights, its results and a card.

    python scripts/publish.py NAME --run FOLDER --held_out FOLDER --about TEXT

Tests the run on its test images with and without the views that its recipe averages. `--held_out` is a run of the same
recipe with validation images: they fit the temperature of the published network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from cifar_lightning import CLASSES
from cifar_lightning.analysis.calibration import fit_temperature
from cifar_lightning.analysis.statistics import wilson
from cifar_lightning.main import main, run_with_messages
from cifar_lightning.runs import Run, run_folder
from cifar_lightning.runs.published import publish
from cifar_lightning.trained import load_trained

CARD = """# {name}: {about}

| test images, {images:,} | each as it is | with views averaged (`{tta}`) |
| --- | --- | --- |
| accuracy, % | {plain_accuracy} | {accuracy} |
| calibration error (ECE) | {plain[test/ece]:.4f} | {metrics[test/ece]:.4f} |
| cross-entropy | {plain[test/loss]:.4f} | {metrics[test/loss]:.4f} |

In brackets: 95 % intervals over images (Wilson); another seed moves the accuracy as well. The logits are divided by
{temperature:.3f}, which minimises the cross-entropy on {held_out:,} validation images of another training of this
recipe; without that, the calibration error with views is {ece_before:.4f}.

## Use it

```python
from cifar_lightning import CLASSES, load

model = load("{name}")
classes = [CLASSES[i] for i in model(images).argmax(1)]  # uint8 (B, 3, 32, 32)
```

```bash
python -m cifar_lightning predict --run {name} --images holiday/ cat.jpg
python -m cifar_lightning test --run {name}
```

## How it was made

{params:,} weights, {flops:,} FLOPs an image; {epochs} epochs over {train:,} images of CIFAR-10 and nothing else,
{training_pflop:.4f} PFLOP, {minutes:.0f} minutes on {cores} of {cpu} in {precision}. Testing takes {speed:,.0f} images
a second as they are, and {views_speed:,.0f} with views, on the same cores. torch {versions[torch]}, lightning
{versions[lightning]}, Python {versions[python]}; commit `{commit}`. The weights are rounded to float16 here;
all numbers of this page were measured in float32. With the code of that commit, `config.yaml` repeats the
training, in the fastest precision of the device:

```bash
python -m cifar_lightning fit --config cifar_lightning/weights/{name}/config.yaml --test
```

## Classes

| class | accuracy, % | most often taken for |
| --- | --- | --- |
{classes}

With views averaged; the second column counts the {images_a_class:,} test images of the class.

## Limits

- It knows ten classes and names one of them for any picture. Pictures of anything else get a class as well, often with
  a high probability.
- It sees 32 x 32 pixels. Larger pictures are made small, and objects that do not fill them are lost.
- The test images come from the same collection as the training images, and some of them have near duplicates there
  (Barz and Denzler 2020). Under noise, blur, weather or JPEG the accuracy is lower: `test --run {name}
  --corruptions` shows how far.
- It must not decide about people, safety, or anything that matters. It is for teaching, for comparing methods, and as
  a start for training.

## Licence and citation

The weights have the licence of the code, MIT. CIFAR-10: Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images", 2009; its authors ask for this citation and state no licence for the images. To cite the weights, see
`CITATION.cff` and name the commit above.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("name", help="of the network, such as cnn")
    made.add_argument("--run", type=Path, required=True, help="the run to publish")
    made.add_argument("--held_out", type=Path, required=True, help="a run of the recipe with validation images")
    made.add_argument("--about", required=True, help="what it is, for the title of the card")
    return made


def command(args: list[str]) -> int:
    """Publish a run; return the exit status."""
    given = parser().parse_args(args)
    temperature, held_out = found_temperature(given.held_out)
    before = tested(given.run)
    plain = tested(given.run, f"--model.temperature={temperature}", "--model.tta=none")
    tested(given.run, f"--model.temperature={temperature}")
    run = Run(given.run)
    ece_before = before["metrics"]["test/ece"]
    text = card(given.name, given.about, run, plain, temperature, held_out, ece_before)
    print(publish(run, given.name, text, temperature, plain))
    for expected, options in ((plain, ["--model.tta=none"]), (run.result["test"], [])):
        again = tested(given.name, *options)
        if abs(again["metrics"]["test/acc"] - expected["metrics"]["test/acc"]) > 2e-4:
            raise ValueError(
                f"Expected the accuracy of {given.run} within 0.02 points, got {again['metrics']['test/acc']} from the "
                f"published file with tta {again['tta']}. Do not commit it."
            )
    return 0


def tested(run: str | Path, *options: str) -> dict[str, Any]:
    """Test a run in float32, whatever it was trained in, and return the entry in its results."""
    if status := main(["test", f"--run={run}", "--trainer.precision=32-true", *options]):
        raise SystemExit(status)
    return Run(run_folder(run)).result["test"]


def found_temperature(folder: Path) -> tuple[float, int]:
    """Return the temperature that suits the validation images of a run, with its views, and their number."""
    model, data = load_trained(folder, device="cpu")
    data.setup("validate")
    with torch.inference_mode():
        logits = torch.cat(
            [model.predict_logits(part, model.tta) for part in data.val.images.split(data.eval_batch_size)]
        )
    return round(model.temperature * fit_temperature(logits.float(), data.val.labels), 3), len(data.val)


def card(
    name: str, about: str, run: Run, plain: dict[str, Any], temperature: float, held_out: int, ece_before: float
) -> str:
    """Return the card of a run that was tested, in Markdown."""
    result = run.result
    test, fit, machine = result["test"], result["fit"], result["hardware"]
    images = result["data"]["test"]
    return CARD.format(
        name=name,
        about=about,
        images=images,
        images_a_class=sum(test["confusion"][0]),
        tta=test["tta"],
        metrics=test["metrics"],
        plain=plain["metrics"],
        accuracy=in_percent(test["metrics"]["test/acc"], images),
        plain_accuracy=in_percent(plain["metrics"]["test/acc"], images),
        temperature=temperature,
        held_out=held_out,
        ece_before=ece_before,
        params=result["params"],
        flops=result["flops_per_image"],
        epochs=fit["epochs"],
        train=result["data"]["train"],
        training_pflop=fit["training_flops"] / 1e15,
        minutes=fit["seconds"] / 60,
        cores="one core" if machine["threads"] == 1 else f"{machine['threads']} cores",
        cpu=machine["gpus"][0] if machine["gpus"] else machine["cpu"],
        precision=fit["precision"],
        speed=plain["images_per_second"],
        views_speed=test["images_per_second"],
        versions=result["versions"],
        commit=result["git_commit"],
        classes="\n".join(class_row(i, row) for i, row in enumerate(test["confusion"])),
    )


def in_percent(accuracy: float, n: int) -> str:
    """Return an accuracy with its interval over images, in percent."""
    low, high = wilson(accuracy, n)
    return f"{100 * accuracy:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def class_row(label: int, row: list[int]) -> str:
    """Return a row of the table of classes from a row of the confusion matrix."""
    wrong = sorted((i for i in range(len(row)) if i != label and row[i]), key=lambda i: -row[i])[:2]
    taken = ", ".join(f"{CLASSES[i]} ({row[i]})" for i in wrong)
    return f"| {CLASSES[label]} | {100 * row[label] / sum(row):.1f} | {taken} |"


if __name__ == "__main__":
    sys.exit(run_with_messages(lambda: command(sys.argv[1:])))
