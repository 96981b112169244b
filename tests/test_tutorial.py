"""docs/tutorial.ipynb runs from top to bottom, and has the outputs of such a run on the real images."""

import json
import logging
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/tutorial.ipynb"
SMALLER = {
    'SOURCE = "auto"': 'SOURCE = "synthetic"',
    "IMAGES, EPOCHS, WIDTH = 20_000, 6, 32": "IMAGES, EPOCHS, WIDTH = 500, 1, 4",
}


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # tensors given to matplotlib
def test_it_runs_with_fewer_images(cells, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    code = ["".join(cell["source"]) for cell in cells]
    for text, smaller in SMALLER.items():
        assert sum(text in part for part in code) == 1
        code = [part.replace(text, smaller) for part in code]
    names: dict = {"__name__": "__main__"}
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    try:
        for number, part in enumerate(code):
            exec(compile(part, f"cell {number}", "exec"), names)
    finally:
        lightning.setLevel(level)  # which the tutorial raises
    assert len(names["accuracies"]) == 4  # pixels and three layers
    said = capsys.readouterr().out
    assert "of 2,000 test images" in said
    assert said.count("learning rate") == 5


def test_its_outputs_are_those_of_one_run_on_the_real_images(cells):
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.get("name") for output in outputs} <= {None, "stdout"}  # no warnings
    assert "(20000, 3, 32, 32)" in json.dumps(outputs)
    assert "of 10,000 test images" in json.dumps(outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 10
