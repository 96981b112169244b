"""Every YAML under configs/ is a recipe that can be started."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifar_lightning.__main__ import main
from cifar_lightning.cli.training import CifarCLI

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))
LOGGERS = ("mlflow", "wandb")
"""Overlays of packages that start slowly; tests/test_loggers.py trains with them."""


def ids(path: Path) -> str:
    return path.stem


def test_all_are_here():
    assert {path.stem for path in RECIPES} == {"mlp", "mlp_best", "cnn", "cnn_sgd", "cnn96", "resnet"}
    assert {path.stem for path in OVERLAYS} == {
        *("synthetic", "debug", "overfit", "cpu", "gpu", "ddp", "profile"),
        *LOGGERS,
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=ids)
def test_recipes_instantiate_with_what_they_say(recipe):
    cli = CifarCLI(["fit", "--config", str(recipe)])
    said = yaml.safe_load(recipe.read_text())
    assert type(cli.model).__name__ == said["model"]["class_path"]
    assert cli.trainer.max_epochs == said["trainer"]["max_epochs"]
    patience = said.get("early_stopping", {}).get("patience", 10)
    assert cli.trainer.early_stopping_callback.patience == patience
    assert cli.datamodule.batch_size == said["data"]["batch_size"]
    assert 45_000 % said["data"]["images_per_step"] == 0
    # With all images, the last step of an epoch may be of fewer batches, but each batch is whole.
    assert 50_000 % said["data"]["batch_size"] == said["data"]["images_per_step"] % said["data"]["batch_size"] == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=ids)
def test_recipes_say_what_makes_the_result(recipe):
    """About thirty lines, without the groups that change no number."""
    lines = [line for line in recipe.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 37
    assert set(yaml.safe_load("\n".join(lines))) <= {
        *("name", "seed_everything", "model", "data", "trainer", "early_stopping"),
    }


@pytest.mark.parametrize("devices", [1, 2, 6])
def test_a_recipe_keeps_its_step_on_several_devices(devices):
    data = CifarCLI(["fit", "--config", str(CONFIGS / "cnn.yaml"), "--data.batch_size=125"]).datamodule
    assert data.accumulated_batches(devices) * devices * data.images_per_batch(devices) == 1500


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_with_the_overlay_any_number_of_devices_takes_its_share(devices):
    configs = [f"--config={CONFIGS / name}" for name in ("cnn.yaml", "overlays/ddp.yaml")]
    data = CifarCLI(["fit", *configs, "--trainer.accelerator=cpu"]).datamodule
    assert data.accumulated_batches(devices) == 1
    assert data.images_per_batch(devices) == {1: 1500, 2: 750, 8: 188}[devices]


def test_a_step_that_does_not_divide_is_refused():
    data = CifarCLI(["fit", "--config", str(CONFIGS / "mlp.yaml")]).datamodule
    with pytest.raises(
        ValueError, match=r"multiple of `data\.batch_size` 500 x 2 devices, got 500\. Set `data\.batch_size` to 250"
    ):
        data.accumulated_batches(2)


def test_validation_decides_unless_told_otherwise():
    trainer = CifarCLI(["fit", "--model", "MLPClassifier"]).trainer
    for callback in (trainer.checkpoint_callback, trainer.early_stopping_callback):
        assert (callback.monitor, callback.mode) == ("val/acc", "max")


@pytest.mark.parametrize("overlay", [o for o in OVERLAYS if o.stem not in ("gpu", "ddp", *LOGGERS)], ids=ids)
@pytest.mark.parametrize("recipe", RECIPES, ids=ids)
def test_overlays_change_what_they_say_and_nothing_else(recipe, overlay):
    plain = CifarCLI(["fit", "--config", str(recipe)]).config.as_dict()
    changed = CifarCLI(["fit", "--config", str(recipe), "--config", str(overlay)]).config.as_dict()

    def flat(tree: dict, prefix: str = "") -> dict:
        items = {}
        for key, value in tree.items():
            items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return items

    before, after, said = flat(plain), flat(changed), flat(yaml.safe_load(overlay.read_text()))
    assert {key: after[key] for key in said} == said
    different = {key for key in before if before[key] != after.get(key) and not key.startswith("config")}
    assert different <= set(said)


def test_gpu_overlay_asks_for_a_gpu():
    overlay = yaml.safe_load((CONFIGS / "overlays/gpu.yaml").read_text())
    assert overlay["trainer"]["accelerator"] == "gpu"
    cli = CifarCLI(
        [
            "fit",
            *(f"--config={CONFIGS / name}" for name in ("cnn.yaml", "overlays/gpu.yaml")),
            "--trainer.accelerator=cpu",
        ]
    )
    assert cli.model.compile_net
    assert cli.trainer.precision == "bf16-mixed"


def test_ddp_overlay_asks_for_ddp():
    overlay = CONFIGS / "overlays/ddp.yaml"
    args = ["--config", str(CONFIGS / "cnn.yaml"), "--config", str(overlay)]
    cli = CifarCLI(["fit", *args, "--trainer.accelerator=cpu", "--trainer.devices=2"])
    assert type(cli.trainer.strategy).__name__ == "DDPStrategy"
    assert cli.trainer.num_devices == 2


@pytest.mark.parametrize("path", RECIPES + OVERLAYS, ids=ids)
def test_every_key_is_explained(path):
    """A comment stands on the line of every value, but where a block's name says it all."""
    bare = []
    for line in path.read_text().splitlines():
        key = re.match(r"\s*(\w+): *(\S.*)$", line)
        if key and "#" not in line and key[1] not in SELF_EXPLANATORY:
            bare.append(line.strip())
    assert not bare


SELF_EXPLANATORY = {
    "class_path", "momentum", "nesterov", "monitor", "mode", "max_epochs", "accelerator", "strategy",
    "synthetic_test", "label_smoothing", "warmup_epochs", "translate_px", "cutout_px", "batch_size", "devices",
    "compile", "detect_anomaly",
}  # fmt: skip


MEASURED = {
    "cnn": "speed/cnn-seed?-tta-flip_translate.json",
    "cnn96": "speed/cnn96-seed?-tta-flip_translate.json",
    "cnn_sgd": "main/cnn-seed?-tta-flip.json",
    "mlp": "speed/mlp-seed?-tta-flip_grid.json",
    "mlp_best": "speed/mlp_best-seed?-tta-flip_grid.json",
    "resnet": "speed/resnet-seed?-tta-flip_translate.json",
}
"""The results of the runs that a recipe's header counts, with views."""
COSTS = MEASURED | {"cnn96": "speed/cnn96-seed0-tta-flip_translate.json"}
"""Those that its cost is of, on a CPU."""


def results(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((CONFIGS.parent / "docs/results").glob(pattern))]


def without_views(pattern: str) -> str:
    return re.sub(r"tta-\w+", "tta-none", pattern)


def assert_accuracy(pattern: str, mean: str, std: str, n: str) -> None:
    """Check an accuracy in percent against the results of its runs."""
    found = [100 * result["test"]["metrics"]["test/acc"] for result in results(pattern)]
    assert (f"{statistics.mean(found):.2f}", len(found)) == (mean, int(n))
    assert (f"{statistics.stdev(found):.2f}" if len(found) > 1 else "") == std


NUMBER = r"([\d.]+)(?: ± ([\d.]+))?"


@pytest.mark.parametrize("recipe", RECIPES, ids=ids)
def test_the_accuracy_in_a_header_is_that_of_its_results(recipe):
    header = " ".join(line.lstrip("# ") for line in recipe.read_text().splitlines() if line.startswith("#"))
    if recipe.stem not in MEASURED:
        assert "not measured" in header.lower()
        return
    (claim,) = re.findall(rf"Test accuracy {NUMBER} % \(n = (\d+)", header)
    (plain,) = re.findall(rf"{NUMBER} (?:% )?without", header)
    assert_accuracy(MEASURED[recipe.stem], *claim)
    assert_accuracy(without_views(MEASURED[recipe.stem]), *plain, claim[2])


def test_the_accuracies_in_the_readme_are_those_of_their_results():
    text = (CONFIGS.parent / "README.md").read_text()
    row = rf"^\| \[`configs/(\w+)\.yaml`\][^|]*\|[^|]*\| {NUMBER} \(n = (\d+)\) \| {NUMBER}, "
    rows = re.findall(row, text, flags=re.MULTILINE)
    assert {name for name, *_ in rows} == set(MEASURED)
    for name, plain, plain_std, n, mean, std in rows:
        assert_accuracy(without_views(MEASURED[name]), plain, plain_std, n)
        assert_accuracy(MEASURED[name], mean, std, n)


def test_the_accuracies_in_the_tables_of_recipes_are_those_of_their_results():
    text = (CONFIGS.parent / "docs/results/speed/README.md").read_text()
    row = rf"^\|[^|]*\| (\d+) \| \**{NUMBER}\** \| \**{NUMBER}, (six|eighteen)\** \|.*\| `([\w?-]+)` \|$"
    rows = re.findall(row, text, flags=re.MULTILINE)
    assert len(rows) == text.count("seed?` |") > 10
    for n, plain, plain_std, mean, std, views, pattern in rows:
        tta = {"six": "flip_translate", "eighteen": "flip_grid"}[views]
        assert_accuracy(f"speed/{pattern}-tta-none.json", plain, plain_std, n)
        assert_accuracy(f"speed/{pattern}-tta-{tta}.json", mean, std, n)


def test_what_a_recipe_costs_is_that_of_its_results():
    text = (CONFIGS.parent / "docs/results/speed/README.md").read_text()
    for name, pattern in COSTS.items():
        found = results(pattern)
        fits = [result["fit"] for result in found]
        weights, flops, images = (found[0][key] for key in ("params", "flops_per_image", "data"))
        training = fits[0].get("training_flops", 3 * flops * images["train"] * fits[0]["epochs"])  # before it was kept
        speed = statistics.mean(fit["images_per_second"] for fit in fits)
        minutes = statistics.mean(fit["seconds"] for fit in fits) / 60
        memory = max(fit["peak_rss_bytes"] for fit in fits) / 1e9
        row = f"| `{name}.yaml` | {weights / 1e6:.2f} | {flops / 1e6:.1f} | {training / 1e15:.3f} | {speed:,.0f} | "
        assert row + f"{minutes:.1f} | {memory:.2f} | {fits[0]['precision']} |" in text


def test_overfit_learns_its_images_by_heart():
    args = ["--config", str(CONFIGS / "cnn.yaml"), "--config", str(CONFIGS / "overlays/overfit.yaml")]
    small = [
        "--model.net.widths=[16, 32]",
        "--model.net.depths=[1, 1]",
        "--data.source=synthetic",
        "--data.synthetic_train=600",
        "--data.val_size=100",
    ]
    assert main(["fit", *args, *small, "--version=v", "--figures.every_n_epochs=0"]) == 0
    lines = Path("lightning_logs/cnn/v/metrics.csv").read_text().splitlines()
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert float(last["train/acc"]) > 0.95
