"""The schema of a configuration, for editors."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from tiny import MLP, fit

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("overlays/*.yaml"), *CONFIGS.glob("sweeps/speed/*_epochs.yaml")])


@pytest.fixture(scope="module")
def schema(once):
    def write(folder: Path) -> None:
        command = [sys.executable, "-m", "cifar_lightning.cli.schema"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (folder / "schema.json").write_text(done.stdout)

    return json.loads((once("schema", write) / "schema.json").read_text())


def problems(schema: dict, config: dict) -> list[str]:
    return [error.message for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(config)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recipes_and_overlays_are_valid(schema, file):
    assert problems(schema, yaml.safe_load(file.read_text())) == []


def test_a_network_of_your_own_is_valid(schema):
    own = {"class_path": "mynet.Tiny", "init_args": {"width": 64}}
    model = {"class_path": "ImageClassifier", "init_args": {"net": own, "label_smoothing": 0.1}}
    assert problems(schema, {"model": model}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"modle": {}},
        {"data": {"translate": 2}},
        {"data": {"val_size": "many"}},
        {"trainer": {"max_epochs": [3]}},
        {"model": {"class_path": "CNNClassifier", "init_args": {"net": {"width": [8]}}}},
        {"model": {"class_path": "ImageClassifier", "init_args": {"tta": "flips"}}},
        {"model": {"class_path": "CNNClassifier", "init_args": {"optimizer": {"class_path": "torch.optim.SGDD"}}}},
    ],
)
def test_mistakes_are_found(schema, wrong):
    assert problems(schema, wrong)


def test_options_are_described(schema):
    assert "Views to average" in json.dumps(schema["$defs"]["CNNClassifier"])
    described = schema["properties"]["data"]["properties"]["val_size"]["description"]
    assert "validation" in described


def test_the_configuration_of_a_run_is_valid(schema):
    config = yaml.safe_load((fit(*MLP) / "config.yaml").read_text())
    assert problems(schema, config) == []
