"""Print the JSON schema of a configuration of `fit`: `python -m cifar_lightning.cli.schema > recipe.schema.json`.

With it, an editor completes, describes and checks options while you write a recipe or an overlay. Of a network of your
own it knows nothing and accepts anything.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from cifar_lightning.cli.training import CifarCLI
from cifar_lightning.models import (
    CNNClassifier,
    ImageClassifier,
    MLPClassifier,
    ResNetClassifier,
    SelectiveClassifier,
)

__all__ = ["SchemaPrinter"]

PRESETS = (MLPClassifier, CNNClassifier, ResNetClassifier)
NETS = ("MLP", "CNN", "ResNet")
OPEN = {"trainer": {"callbacks", "logger", "plugins", "profiler", "strategy"}, "model": {"loss"}}
"""Options that take objects of any library, which the schema leaves open."""


class SchemaPrinter(CifarCLI):
    """The command line of `fit`, which prints the schema in place of parsing its arguments."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the trainer, the models and the data without what is in `OPEN`."""
        parser.add_class_arguments(self.trainer_class, "trainer", skip=OPEN["trainer"], fail_untyped=False)
        parser.add_subclass_arguments(PRESETS, "model", skip=OPEN["model"], fail_untyped=False)
        parser.add_lightning_class_args(self._datamodule_class, "data")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Print the schema and exit."""
        schema = relaxed(json.loads(parser.get_completion_script("jsonschema")))
        classes = schema["$defs"]
        for name in NETS:
            (entry,) = (option for option in classes[name]["anyOf"] if "properties" in option)
            classes[name]["anyOf"].append(entry["properties"]["init_args"])  # in a preset, the class need not be named
        schema["properties"]["trainer"]["properties"] |= dict.fromkeys(OPEN["trainer"], True)
        own: dict[str, Any] = {}
        for preset in PRESETS:
            (entry,) = (option for option in classes[preset.__name__]["anyOf"] if "properties" in option)
            entry["properties"]["init_args"]["properties"] |= dict.fromkeys(OPEN["model"], True)
            own = entry["properties"]["init_args"]
        for general, options in ((ImageClassifier, ("net",)), (SelectiveClassifier, ("net", "proxy", "share"))):
            any_net = {**own, "properties": {**own["properties"], **dict.fromkeys(options, True)}}
            path = {"enum": [f"cifar_lightning.models.{general.__name__}", general.__name__]}
            plain = {"type": "object", "properties": {"class_path": path, "init_args": any_net}}
            schema["properties"]["model"]["anyOf"].append(plain)
        sys.stdout.write(json.dumps(schema, indent=1) + "\n")
        parser.exit()


def relaxed(schema: Any) -> Any:
    """Return a schema that requires no option, as all have defaults, and that takes classes by their last name too."""
    if isinstance(schema, list):
        return [relaxed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: relaxed(part) for key, part in schema.items() if not (key == "required" and isinstance(part, list))}
    path = found.get("class_path")
    if isinstance(path, dict) and "const" in path:
        found["class_path"] = {"enum": [path["const"], path["const"].rsplit(".", 1)[-1]]}
    return found


if __name__ == "__main__":
    SchemaPrinter(["fit"])
