"""Runs are grouped by what differs, and their numbers are those of their result.json."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path

import pytest
import torch
import yaml
from scipy import stats
from torch.nn import functional as F

from cifar_lightning import CLASSES
from cifar_lightning.analysis.charts import pareto_front, plot_cost
from cifar_lightning.analysis.statistics import Summary
from cifar_lightning.callbacks.predictions import predictions_csv
from cifar_lightning.comparison.charts import leaders
from cifar_lightning.comparison.compare import compare
from cifar_lightning.comparison.dependence import plateau
from cifar_lightning.comparison.groups import Comparison, Group, best_first, group_runs
from cifar_lightning.comparison.records import RunRecord, read_runs
from cifar_lightning.comparison.tables import pairs_to_test

ACCURACIES = {(0.1, 8): (0.5, 0.6, 0.55), (0.2, 8): (0.7, 0.72, 0.71), (0.1, 16): (0.4, 0.45), (0.2, 16): (0.8,)}


def write_run(folder: Path, seed: int, lr: float, width: int, accuracy: float, status: str = "completed") -> None:
    """A run folder as a training leaves it, as far as a comparison looks at it."""
    folder.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "model": {"init_args": {"widths": [width], "optimizer": {"init_args": {"lr": lr}}}},
        "data": {"seed": seed, "val_size": 100},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {"train/loss": 0.5, "train/acc": accuracy + 0.1, "val/acc": accuracy - 0.02}
    fit = {"metrics": metrics, "seconds": 10.0 + seed, "epochs": 2, "best": {"monitor": "val/acc", "score": accuracy}}
    fit["training_flops"] = int(2e12 * width)
    result = {"status": status, "params": 100 * width, "flops_per_image": 1e6 * width, "fit": fit}
    by_class = {f"test/class_acc/{name}": accuracy + 0.01 * i for i, name in enumerate(CLASSES)}
    result |= {"depth": width // 8, "data": {"source": "class folders"}}
    wrong = [[90 if i == j else 0 for j in range(10)] for i in range(10)]
    wrong[3][5], wrong[5][3], wrong[0][8] = 10, 5 + seed, 1
    result |= {"test": {"metrics": {"test/acc": accuracy + 0.01, **by_class}, "confusion": wrong}}
    (folder / "result.json").write_text(json.dumps(result))
    rows = ["epoch,train/acc,val/acc", f"0,{accuracy},{accuracy - 0.1}", f"1,{accuracy + 0.1},{accuracy - 0.02}"]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def logs() -> Path:
    for (lr, width), values in ACCURACIES.items():
        for seed, accuracy in enumerate(values):
            write_run(Path(f"logs/lr{lr}-{width}-{seed}"), seed, lr, width, accuracy)
    return Path("logs")


def test_groups_differ_in_their_settings_and_their_runs_in_their_seeds(logs):
    groups = group_runs(read_runs([logs]))
    found = {(g.point["model.optimizer.lr"], *g.point["model.widths"]): g for g in groups}
    assert found.keys() == ACCURACIES.keys()
    for key, group in found.items():
        assert group.values("test/acc") == pytest.approx({i: a + 0.01 for i, a in enumerate(ACCURACIES[key])})
        assert group.values("val/acc") == dict(enumerate(ACCURACIES[key]))  # of the best epoch
        assert group.label == f"lr {key[0]}, widths {key[1]}"


def test_the_table_holds_the_statistics_of_the_runs(logs, capsys):
    assert compare([str(logs)]) == 0
    assert "comparison/compare.html" in capsys.readouterr().out
    with Path("comparison/compare.csv").open() as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["lr 0.2, widths 16", "lr 0.2, widths 8", "lr 0.1, widths 8", "lr 0.1, widths 16"]
    values = [a + 0.01 for a in ACCURACIES[0.1, 8]]
    row = rows["lr 0.1, widths 8"]
    assert row["n"] == "3"
    assert row["test/acc, %"] == f"{100 * statistics.fmean(values):.2f} ± {100 * statistics.stdev(values):.2f}"
    low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
    assert row["95 % of test/acc"] == f"{100 * low:.2f} to {100 * high:.2f}"
    assert row["gap, points"] == "12.00 ± 0.00"
    assert row["weights"] == "800"
    assert row["MFLOP per image"] == "8.0"
    assert row["training, PFLOP"] == "0.016"
    assert row["fit, s"] == "11 ± 1"
    alone = rows["lr 0.2, widths 16"]
    assert (alone["n"], alone["test/acc, %"], alone["95 % of test/acc"]) == ("1", "81.00", "")


def test_the_page_has_tests_and_charts_with_their_numbers(logs):
    compare([str(logs), "--output", "out"])
    text = Path("out/compare.md").read_text()
    p = stats.ttest_rel([0.71, 0.73, 0.72], [0.51, 0.61, 0.56]).pvalue
    (row,) = re.findall(r"\| lr 0\.2, widths 8 − lr 0\.1, widths 8 \|(.*)\|", text)
    assert row.split("|")[:3] == [" 3 ", " +16.00 ", f" {p:.4f} "]
    pictures = set(re.findall(r"\(figures/(\w+)\.png\)", text))
    assert pictures == {
        "cost_params",
        "cost_flops_per_image",
        "cost_seconds",
        "cost_training_flops",
        "cost_depth",
        "classes",
        "curves_val",
        "curves_gap",
        "dependence_model_optimizer_lr",
    }
    assert all(Path(f"out/figures/{name}.png").read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "data:image/png;base64," in Path("out/compare.html").read_text()


def test_the_accuracy_of_each_class_is_its_mean_over_the_seeds(logs):
    compare([str(logs)])
    (row,) = re.findall(r"\| lr 0\.2, widths 8 \| (7\d\.\d ± .*) \|", Path("comparison/compare.md").read_text())
    spread = 100 * statistics.stdev([0.7, 0.72, 0.71])
    assert row.split(" | ") == [f"{71 + i:.1f} ± {spread:.1f}" for i in range(10)]


def test_the_most_frequent_confusions_of_all_seeds(logs):
    compare([str(logs)])
    (row,) = re.findall(r"\| lr 0\.1, widths 8 \| (cat .*) \|", Path("comparison/compare.md").read_text())
    assert row.split(" | ") == ["cat as dog: 10.0", "dog as cat: 6.2", "airplane as ship: 1.1", "", ""]  # 18 of 288


def test_the_epochs_of_a_curve_are_in_a_table(logs):
    compare([str(logs)])
    (row,) = re.findall(r"\| lr 0\.1, widths 16 \| (32\..*)", Path("comparison/compare.md").read_text())
    spread = 100 * statistics.stdev([0.4, 0.45])
    assert row == f"{32.5:.2f} ± {spread:.2f} | {40.5:.2f} ± {spread:.2f} |"


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({1: 0.5}, (1, 1, 1)),
        ({1: 0.50, 2: 0.59, 4: 0.60, 8: 0.585}, (4, 2, 8)),
        ({8: 0.60, 4: 0.50, 2: 0.59, 1: 0.59}, (8, 8, 8)),  # what lies beyond a worse one does not count
        ({1: -math.inf, 2: 0.6, 3: 0.6}, (2, 2, 3)),
    ],
)
def test_the_range_of_a_setting_that_loses_little(means, expected):
    assert plateau(means, 0.02) == expected


def test_a_range_ends_where_a_run_diverged(logs):
    for seed, (lr, status) in enumerate(((0.3, "completed"), (0.3, "failed"), (0.05, "completed"))):
        write_run(logs / f"more{seed}", seed, lr, 8, 0.7, status)
    compare([str(logs)])
    text = Path("comparison/compare.md").read_text()
    assert "| widths 8 | 0.2 | 72.00 ± 1.00 | 0.2 to 0.2 |" in text
    (logs / "more1/result.json").unlink()
    (logs / "more1/config.yaml").unlink()
    compare([str(logs)])
    assert "| widths 8 | 0.2 | 72.00 ± 1.00 | 0.2 to 0.3 |" in Path("comparison/compare.md").read_text()


def test_runs_that_broke_off_are_counted_and_nothing_else(logs):
    write_run(logs / "broken", 7, 0.2, 16, 0.1, status="failed")
    compare([str(logs)])
    with Path("comparison/compare.csv").open() as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert rows["lr 0.2, widths 16"]["diverged or failed"] == "1"
    assert rows["lr 0.2, widths 16"]["n"] == "1"
    assert "1 runs are not finished" in Path("comparison/compare.md").read_text()


@pytest.mark.parametrize(
    ("status", "loss", "diverged"),
    [
        ("completed", 0.3, False),
        ("completed", 2.31, False),  # it has learned nothing
        ("completed", 2.6, True),
        ("completed", float("nan"), True),
        ("completed", None, True),  # result.json has null for what is no number
        ("failed", 0.3, True),
        ("running", None, False),
    ],
)
def test_divergence(status, loss, diverged):
    result = {"status": status, "fit": {"metrics": {"train/loss": loss}}}
    assert RunRecord(None, 0, {}, result, {}).diverged is diverged


def test_a_plan_says_what_the_runs_stand_for(logs):
    point = {"label": "the small one", "lr": 0.3}
    (logs / "plan.json").write_text(json.dumps({"runs": [{"id": "lr0.1-8-0", "point": point}]}))
    (run,) = read_runs([logs])  # runs that the plan does not name are of an earlier one
    assert run.point == point
    (logs / "plan.json").write_text('{"runs": 3}')
    with pytest.raises(ValueError, match="Expected the runs of a sweep in"):
        read_runs([logs])


def test_predictions_are_compared_image_by_image(logs):
    for name, wrong in (("lr0.1-8-0", {1, 2, 3}), ("lr0.2-8-0", {3, 4})):
        indices = torch.tensor([4, 3, 2, 1, 0])
        probabilities = F.one_hot(
            torch.tensor([CLASSES.index("dog" if i in wrong else "cat") for i in indices.tolist()]), 10
        )
        (logs / name / "predictions").mkdir()
        text = predictions_csv(indices, torch.full((5,), CLASSES.index("cat")), probabilities)
        (logs / name / "predictions/test.csv").write_text(text)
    compare([str(logs)])
    text = Path("comparison/compare.md").read_text()
    assert "| lr 0.2, widths 8 − lr 0.1, widths 8 | 0 | +20.00 (-40.70 to +69.28) | 2 | 1 | 1.0000 |" in text


@pytest.mark.parametrize(
    ("baseline", "pairs"),  # one run alone has no test
    [
        ("lr 0.1", [("lr 0.2, widths 8", "lr 0.1, widths 8")]),
        ("widths 8", [("lr 0.1, widths 16", "lr 0.1, widths 8")]),
        ("lr 0.2, widths 8", [(f"lr 0.1, widths {width}", "lr 0.2, widths 8") for width in (8, 16)]),
    ],
)
def test_groups_are_tested_against_a_baseline(logs, baseline, pairs):
    compare([str(logs), "--baseline", baseline])
    text = Path("comparison/compare.md").read_text()
    assert re.findall(r"\| (\S.*) − (.*) \| [23] \|", text) == pairs


def test_no_group_is_the_baseline(logs):
    with pytest.raises(ValueError, match=r"Expected `--baseline` to be the label of a group.*got 'widths 9'. The gr"):
        compare([str(logs), "--baseline", "widths 9"])


def test_nothing_to_compare(logs):
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="Expected a run or a folder of runs, got empty"):
        compare(["empty"])
    with pytest.raises(ValueError, match="Expected `--metric` to be one that the runs have"):
        compare([str(logs), "--metric", "test/beauty"])
    write_run(Path("failed/one"), 0, 0.1, 8, 0.1, status="failed")
    with pytest.raises(ValueError, match="Expected finished runs to compare, got 1 that are not"):
        compare(["failed"])


def test_of_many_groups_the_best_of_each_kind_are_drawn():
    many = [Group((f"{net} {lr}",), {"net": net, "lr": lr}, []) for lr in range(9) for net in ("MLP", "CNN")]
    shown, which = leaders(many)
    assert [group.label for group in shown] == ["MLP 0", "CNN 0"]
    assert which == ", the best of each kind of 18 groups"
    numbers = [Group((str(lr),), {"lr": lr}, []) for lr in range(18)]
    assert leaders(numbers) == (numbers[:16], ", the best 16 of 18 groups")
    assert leaders(many[:16]) == (many[:16], "")


def test_of_many_groups_those_that_nothing_beats_are_named():
    points = {f"group {i}": (1.0 + i, Summary(3, 0.5 + 0.01 * (i % 7), None, None)) for i in range(30)}
    axes = plot_cost(points, "weights", "accuracy, %", "title").axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(names) == sorted(["all others", *(f"group {i}" for i in range(7))])
    few = dict(list(points.items())[:20])
    axes = plot_cost(few, "weights", "accuracy, %", "title").axes[0]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == few.keys()


def test_costs_over_less_than_two_decades_are_written_out():
    points = {f"{cost}": (cost, Summary(3, 0.5, None, None)) for cost in (0.025, 0.4)}
    axes = plot_cost(points, "training, PFLOP", "accuracy, %", "title").axes[0]
    axes.figure.canvas.draw()
    labels = [text.get_text() for minor in (False, True) for text in axes.get_xticklabels(minor=minor)]
    assert {"0.05", "0.1", "0.2"} <= {*labels}
    assert not any("$" in label for label in labels)  # as in 3 x 10^-2


def test_the_front_is_what_no_other_point_beats():
    costs, values = [3, 1, 2, 2, 5, 4], [0.7, 0.5, 0.4, 0.6, 0.7, 0.9]
    front = pareto_front(costs, values)
    assert front == [1, 3, 0, 5]
    for i in range(len(costs)):
        beaten = any(
            (costs[j] <= costs[i] and values[j] >= values[i]) and (costs[j], values[j]) != (costs[i], values[i])
            for j in range(len(costs))
        )
        assert beaten != (i in front)


NEUTRAL = {
    "data": {"root": "/elsewhere", "eval_batch_size": 50, "download": True},
    "trainer": {
        "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "x"}},
        "max_time": "00:01:00:00",
        "profiler": "simple",
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
    },
    "figures": {"every_n_epochs": 0},
    "layers": {"every_n_steps": 5},
    "finite": {"every_n_steps": 1},
    "checkpoint_every_n_steps": 100,
    "save_dir": "/runs",
}


def change(folder: Path, options: dict) -> None:
    """Sets options in the configuration of a run, group by group."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name, value in options.items():
        config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_options_that_change_no_number_split_no_group():
    for seed in range(3):
        write_run(Path(f"logs/{seed}"), seed, 0.1, 8, 0.5)
    change(Path("logs/1"), NEUTRAL)
    (group,) = group_runs(read_runs([Path("logs")]))
    assert (group.label, group.point, len(group.runs)) == ("all runs", {}, 3)


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"trainer": {"precision": "bf16-mixed"}}, "precision bf16-mixed"),
        ({"trainer": {"devices": 2}}, "devices 2"),
        ({"data": {"batch_size": 50}}, "batch_size 50"),
        ({"finite": {"skip_steps": 3}}, "skip_steps 3"),
        (
            {"model": {"init_args": {"compile": True, "widths": [8], "optimizer": {"init_args": {"lr": 0.1}}}}},
            "compile true",
        ),
    ],
)
def test_options_that_change_numbers_split_groups(options, label):
    for seed in range(2):
        write_run(Path(f"logs/{seed}"), seed, 0.1, 8, 0.5)
    change(Path("logs/1"), {**NEUTRAL, **{name: {**NEUTRAL.get(name, {}), **value} for name, value in options.items()}})
    first, second = group_runs(read_runs([Path("logs")]))
    assert first.label.endswith(" null")
    assert second.label == label


def test_other_images_in_the_same_place_make_another_group():
    for seed, images in enumerate(("aaaaaaaaaa", "aaaaaaaaaa", "bbbbbbbbbb")):
        write_run(Path(f"logs/{seed}"), seed, 0.1, 8, 0.5)
        result = json.loads(Path(f"logs/{seed}/result.json").read_text())
        result["data"]["fingerprint"] = images
        Path(f"logs/{seed}/result.json").write_text(json.dumps(result))
    groups = group_runs(read_runs([Path("logs")]))
    assert {group.label: len(group.runs) for group in groups} == {"images aaaaaaaa": 2, "images bbbbbbbb": 1}
    write_run(Path("logs/other"), 0, 0.2, 8, 0.5)  # images that differ with the settings have no name of their own
    for name in ("0", "1"):
        Path(f"logs/{name}/result.json").unlink()
        Path(f"logs/{name}/config.yaml").unlink()
    assert [group.label for group in group_runs(read_runs([Path("logs")]))] == ["lr 0.1", "lr 0.2"]


def test_the_lowest_loss_is_the_best():
    for i, losses in enumerate([(1.25, 1.35), (0.5, 0.75), (2.0, 2.25)]):
        for seed, loss in enumerate(losses):
            folder = Path(f"logs/{i}-{seed}")
            write_run(folder, seed, 0.1 * (i + 1), 8 * (3 - i), 0.5)
            result = json.loads((folder / "result.json").read_text())
            result["fit"]["metrics"]["val/loss"] = loss
            (folder / "result.json").write_text(json.dumps(result))
    compare(["logs", "--metric", "val/loss"])
    with Path("comparison/compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val/loss"] for row in rows] == ["0.6250 ± 0.1768", "1.3000 ± 0.0707", "2.1250 ± 0.1768"]
    low, high = stats.t.interval(0.95, 1, 1.3, stats.sem([1.25, 1.35]))
    assert rows[1]["95 % of val/loss"] == f"{low:.4f} to {high:.4f}"
    text = Path("comparison/compare.md").read_text()
    assert "Sorted by val/loss, best first." in text
    assert "val/loss, %" not in text
    assert re.findall(r"− .* \| 2 \| (\S+) \|", text) == ["-0.6750", "-1.5000", "-0.8250"]


def test_the_front_of_a_loss_goes_down():
    points = {
        name: (cost, Summary(2, loss, 0.1, None)) for name, cost, loss in (("a", 1, 0.9), ("b", 2, 0.5), ("c", 3, 0.7))
    }
    axes = plot_cost(points, "weights", "val/loss", "title", factor=1, mode="min").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.9], [2, 0.5]]
    axes = plot_cost(points, "weights", "accuracy, %", "title").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 90]]


def test_groups_without_the_metric_come_last():
    def group(name: str, **metrics: float) -> Group:
        return Group((name,), {}, [RunRecord(None, 0, {}, {"status": "completed", "fit": {"metrics": metrics}}, {})])

    groups = [group("none"), group("high", loss=2.0, acc=0.9), group("low", loss=1.0, acc=0.8), group("none too")]
    assert [g.label for g in best_first(groups, "loss")] == ["low", "high", "none", "none too"]
    assert [g.label for g in best_first(groups, "acc")] == ["high", "low", "none", "none too"]


def test_runs_that_differ_in_many_settings_have_the_names_of_their_runs():
    for i in range(3):
        write_run(Path(f"logs/{i}"), i, 0.1, 8, 0.5)
    change(Path("logs/2"), {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
    assert [group.label for group in group_runs(read_runs([Path("logs")]))] == ["logs/0 and 1 more", "logs/2"]


def test_a_label_may_hold_a_comma_and_a_baseline_is_one_of_several_labels():
    points = [{"label": [net, optimizer]} for net in ("MLP, wide", "CNN") for optimizer in ("SGD", "Muon")]
    runs = [
        RunRecord(
            Path(f"{i}{seed}"), seed, point, {"status": "completed", "fit": {"metrics": {"val/acc": 0.5 + i}}}, {}
        )
        for i, point in enumerate(points)
        for seed in range(2)
    ]
    comparison = Comparison.of(runs)
    pairs = pairs_to_test(comparison.groups, "SGD")
    assert {(a.label, b.label) for a, b in pairs} == {("MLP, wide, Muon", "MLP, wide, SGD"), ("CNN, Muon", "CNN, SGD")}
    assert {a.names[1] for a, _ in pairs_to_test(comparison.groups, "MLP, wide")} == {"SGD", "Muon"}
