"""A sweep's YAML becomes a plan of runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cifar_lightning.__main__ import main
from cifar_lightning.sweeps.check import check_runs
from cifar_lightning.sweeps.plan import Sweep, expand, load_sweep

ROOT = Path(__file__).parents[1]
# The recipe that the sweeps of the study start from is none itself.
SWEEPS = sorted(path for path in (ROOT / "configs/sweeps").rglob("*.yaml") if "\naxes:" in path.read_text())
SMALL = {
    "model": "MLPClassifier",
    "model.net.widths": [16],
    "data.source": "synthetic",
    "data.synthetic_train": 400,
    "data.synthetic_test": 100,
    "data.val_size": 100,
    "data.batch_size": 100,
    "trainer.max_epochs": 2,
}


def small(**arguments) -> Sweep:
    return Sweep(**{"name": "s", "options": SMALL, "axes": [{"model.optimizer.lr": [0.1, 0.2]}], **arguments})


def write(path: str, **arguments) -> Path:
    Path(path).write_text(yaml.safe_dump(arguments))
    return Path(path)


def test_axes_are_combined_and_keys_of_one_axis_go_together():
    axes = [
        {"model.net.widths": [[8], [16, 16]], "model.net.dropout": [0.0, 0.5]},
        {"model.optimizer.lr": [0.1, 0.2, 0.3]},
    ]
    runs = expand(small(axes=axes, seeds=[3, 5]))
    points = [tuple(run.point.values()) for run in runs]
    assert len(runs) == 2 * 3 * 2
    assert points[::2] == points[1::2]
    assert points[::2] == [(w, d, lr) for w, d in (([8], 0.0), ([16, 16], 0.5)) for lr in (0.1, 0.2, 0.3)]
    assert [run.seed for run in runs] == [3, 5] * 6
    arguments = runs[0].arguments()
    assert arguments[-2:] == ["--model.optimizer.lr=0.1", "--seed_everything=3"]
    assert {"--model.net.widths=[8]", "--model.net.dropout=0.0", "--data.source=synthetic"} < set(arguments)
    assert arguments[0] == "--model=MLPClassifier"  # a class comes before its arguments


def test_points_may_set_different_keys_and_have_names():
    axis = [
        {"label": "wide net", "model.net.widths": [64]},
        {"label": "no net", "model.net.widths": [], "model.net.dropout": 0.5},
    ]
    runs = expand(small(axes=[axis, {"model.optimizer.lr": [0.1]}]))
    assert [run.point for run in runs] == [
        {"label": ["wide net"], "model.optimizer.lr": 0.1},
        {"label": ["no net"], "model.optimizer.lr": 0.1},
    ]
    assert "--model.net.dropout=0.5" in runs[1].arguments()
    assert "--model.net.dropout=0.5" not in runs[0].arguments()
    assert runs[0].id.startswith("widenet,lr=0.1,seed=0-")


def test_recipes_are_an_axis_and_later_files_count_more(tmp_path):
    for name, epochs in (("a", 1), ("b", 2), ("more", 3)):
        write(f"{name}.yaml", trainer={"max_epochs": epochs})
    runs = expand(small(axes=[{"config": ["a.yaml", ["a.yaml", "b.yaml"]]}], configs=["more.yaml"]))
    assert [run.configs for run in runs] == [("a.yaml", "more.yaml"), ("a.yaml", "b.yaml", "more.yaml")]
    assert runs[0].arguments()[:4] == ["--config", "a.yaml", "--config", "more.yaml"]


def test_ids_depend_on_the_settings_and_on_nothing_else():
    write("recipe.yaml", trainer={"max_epochs": 1})
    sweep = small(axes=[{"config": ["recipe.yaml"]}, {"model.optimizer.lr": [0.1]}])
    (run,) = expand(sweep)
    assert re.fullmatch(r"config=recipe,lr=0\.1,seed=0-[0-9a-f]{8}", run.id)
    Path("recipe.yaml").write_text("# a comment\n" + Path("recipe.yaml").read_text())
    more = small(axes=[{"config": ["recipe.yaml"]}, {"model.optimizer.lr": [0.4, 0.1]}], seeds=[1, 0], name="other")
    assert run.id in {other.id for other in expand(more)}
    write("recipe.yaml", trainer={"max_epochs": 2})
    assert expand(sweep)[0].id != run.id


def test_ids_are_names_of_files_whatever_the_values():
    value = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "weight_decay": "a/b\0 \n"}}
    runs = expand(small(axes=[{"model.optimizer": [value]}, {"model.net.widths": [list(range(1, 200))]}]))
    assert runs[0].id.startswith("optimizer=SGD-0.1-ab,widths=1-2-3")
    assert re.fullmatch(r"[\w.+=,-]{1,120}", runs[0].id)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a/b"}, "Expected `name` of letters"),
        ({"seeds": []}, "Expected `seeds` to be different numbers"),
        ({"seeds": [1, 1]}, "Expected `seeds` to be different numbers"),
        ({"metric": "test/acc"}, "test images must not choose anything"),
        ({"cpus": 0}, "Expected `cpus` to be at least 1, got 0"),
        ({"baseline": "a"}, "Expected `baseline` to be the label of a point beside others, got 'a'"),
        ({"baseline": "a", "axes": [[{"label": "a"}]]}, "to be the label of a point beside others, got 'a'"),
        ({"retries": -1}, "Expected `retries` to be at least 0, got -1"),
        ({"axes": [{"a": [1], "b": [1, 2]}]}, "equally many values, got 1 of a, 2 of b"),
        ({"axes": [{"a": []}]}, "Expected every axis to have keys and values"),
        ({"axes": [{}]}, "Expected every axis to have keys and values"),
        ({"axes": [[]]}, "Expected every axis to have keys and values"),
        ({"axes": [{"a": [1]}, [{"a": 2}]]}, "Expected each key on one axis, got a on several"),
        ({"axes": [{"seed_everything": [1]}]}, "without seed_everything: seeds belong into `seeds`"),
    ],
)
def test_what_is_no_sweep(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small(**arguments)


def test_all_that_is_wrong_comes_in_one_message():
    with pytest.raises(ValueError, match=r"`seeds`.*`cpus`.*every axis"):
        small(seeds=[], cpus=0, axes=[{}])


def test_a_baseline_is_a_label_of_either_kind_of_axis():
    small(baseline="a", axes=[[{"label": "a", "model.net.dropout": 0.0}, {"label": "b", "model.net.dropout": 0.1}]])
    small(baseline="a", axes=[{"label": ["a", "b"], "model.net.dropout": [0.0, 0.1]}])


def test_too_many_runs():
    with pytest.raises(ValueError, match="at most `max_runs` 3 runs, got 2 combinations of 2 seeds"):
        expand(small(seeds=[0, 1], max_runs=3))


def test_the_same_combination_twice():
    with pytest.raises(ValueError, match=r"combinations twice: lr=0\.1,seed=0-"):
        expand(small(axes=[{"model.optimizer.lr": [0.1, 0.1]}]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "Expected a sweep as YAML in sweep.yaml (line 2), got "),
        ("name: a\naxes: [{a: [1]}]\nsead: [1]\n", "`sead` in sweep.yaml (line 3). Did you mean `seeds`?"),
        (
            "name: a\naxes: [{a: [1]}]\nseeds: many\n",
            "Expected `seeds` in sweep.yaml (line 3) to be a list of whole numbers such as [2, 3], got many.",
        ),
        ("name: a\n", "Expected `axes` in sweep.yaml, got no such key."),
        ("name: a\naxes: [{config: [nowhere.yaml]}]\n", "Expected a recipe in nowhere.yaml"),
    ],
)
def test_files_that_are_no_sweep(text, message):
    Path("sweep.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        expand(load_sweep(Path("sweep.yaml")))
    with pytest.raises(ValueError, match="there is no such file"):
        load_sweep(Path("nowhere.yaml"))


def test_every_combination_is_looked_at_before_anything_starts():
    axis = [{"model.net.dropout": 2.0}, {"model.net.dropout": 0.1}, {"model.net.norm": "loud"}, {"model.nothing": 1}]
    sweep = small(axes=[axis], seeds=[0, 1])
    with pytest.raises(ValueError, match="got 3 that are not") as caught:
        check_runs(sweep, expand(sweep))
    message = str(caught.value)
    for words in ("Expected `model.net.dropout` in [0, 1), got 2.0", "loud", "nothing"):
        assert words in message
    assert message.count("seed=0") == 3
    assert "seed=1" not in message
    assert not Path("lightning_logs").exists()


def test_what_is_wrong_with_all_combinations_is_said_once():
    sweep = small(axes=[{"model.net.dropout": [0.1, 0.2, 0.3, 0.4, 0.5]}], options={"model.net.norm": "loud"})
    with pytest.raises(ValueError, match="got 5 that are not") as caught:
        check_runs(sweep, expand(sweep))
    message = str(caught.value)
    assert message.count("Expected a network before its options") == 1
    assert "dropout=0.3,seed=0-" in message
    assert "and 2 more: " in message


def test_combinations_that_come_to_the_same_settings():
    sgd = {"model.optimizer": "torch.optim.SGD"}
    points = [{"label": "plain", **sgd}, {"label": "momentum", **sgd, "model.optimizer.momentum": 0.9}]
    sweep = small(axes=[points])  # the default optimizer has a momentum of 0.9, and SGD that says nothing keeps it
    with pytest.raises(ValueError, match=r"momentum,seed=0-\w+: same settings as plain,seed=0-"):
        check_runs(sweep, expand(sweep))
    with pytest.raises(ValueError, match=r"plain,seed=0-\w+: same settings as momentum,seed=0-"):
        check_runs(sweep, expand(small(axes=[points[::-1]])))
    points[0]["model.optimizer.momentum"] = 0
    points[0]["model.optimizer.nesterov"] = False
    assert len(check_runs(sweep, expand(sweep), estimate=False)) == 2


def test_costs_are_those_of_the_networks():
    sweep = small(axes=[{"model.net.widths": [[16], [2048, 2048]]}], seeds=[0, 1])
    runs = expand(sweep)
    costs = check_runs(sweep, runs)
    assert [costs[run.id].params for run in runs[::2]] == [
        3072 * 16 + 3 * 16 - 16 + 170,
        3072 * 2048 + 2048**2 + 4 * 2048 + 20490,
    ]
    small_cost, large_cost = costs[runs[0].id], costs[runs[2].id]
    assert costs[runs[1].id] == small_cost
    assert 0 < small_cost.seconds < large_cost.seconds
    assert check_runs(sweep, runs, estimate=False)[runs[0].id].flops_per_image == small_cost.flops_per_image


def test_more_hours_than_allowed():
    sweep = small(max_hours=1e-9)
    with pytest.raises(ValueError, match="Expected at most `max_hours` 1e-09 hours of training, got an estimate of"):
        check_runs(sweep, expand(sweep))


def test_labels_of_several_axes_are_joined():
    axes = [
        [{"label": "net A", "model.net.widths": [8]}],
        [{"label": "dry", "model.net.dropout": 0}],
        {"model.net.norm": ["none"]},
    ]
    (run,) = expand(small(axes=axes, seeds=[3]))
    assert run.point == {"label": ["net A", "dry"], "model.net.norm": "none"}
    assert run.id.startswith("netA-dry,norm=none,seed=3-")
    assert run.options.items() >= {"model.net.widths": [8], "model.net.dropout": 0, "model.net.norm": "none"}.items()


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_that_come_with_the_project_are_valid(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = load_sweep(path)
    runs = expand(sweep)
    assert len({run.id for run in runs}) == len(runs)
    known: set[str] = set()
    for run in runs[:: len(sweep.seeds)]:
        values = {f"{key}={value}" for key, value in run.options.items()}
        if values <= known:
            continue  # of the combinations, those that show another value
        known |= values
        with pytest.raises(SystemExit) as exit_:
            main(["fit", *run.arguments(), "--print_config"])
        assert exit_.value.code == 0


def test_the_study_is_made_of_all_its_sweeps():
    script = (ROOT / "scripts/study.sh").read_text()
    (names,) = re.findall(r"for sweep in (.*); do", script)
    assert set(names.split()) == {path.stem for path in SWEEPS if path.parent.name == "study"}
    assert all(load_sweep(path).name == path.stem for path in SWEEPS)
    # Each with seeds of its own kind, so that every difference can be told from chance.
    assert all(len(load_sweep(path).seeds) >= 3 for path in SWEEPS if path.parent.name == "study")


def test_samples_are_random_combinations_with_each_value_equally_often():
    axes = [
        {"model.optimizer.lr": [0.1, 0.2, 0.3]},
        {"model.label_smoothing": [0.0, 0.1]},
        {"model.net.dropout": [0, 0.1]},
    ]
    sweep = small(axes=axes, samples=6, seeds=[0, 1])
    runs = expand(sweep)
    assert [run.id for run in runs] == [run.id for run in expand(sweep)]
    assert len({run.id for run in runs}) == 12
    points = [tuple(run.point.values()) for run in runs[::2]]
    assert [len({*column}) for column in zip(*points, strict=True)] == [3, 2, 2]
    assert [sorted(column) for column in zip(*points, strict=True)] == [
        [0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
        [0.0] * 3 + [0.1] * 3,
        [0] * 3 + [0.1] * 3,
    ]
    assert points != sorted(points)
    assert len(expand(small(axes=axes, samples=12))) == 12
    for samples in (0, 13):
        with pytest.raises(ValueError, match=f"Expected `samples` from 1 to 12, .* got {samples}"):
            small(axes=axes, samples=samples)


@pytest.mark.parametrize("estimate", [True, False])
def test_batches_that_do_not_fill_a_step_are_found_before_anything_starts(estimate):
    sweep = small(axes=[{"data.images_per_step": [200, 250]}])
    with pytest.raises(ValueError, match="got 1 that are not") as caught:
        check_runs(sweep, expand(sweep), estimate)
    assert "Expected `data.images_per_step` to be a multiple of" in str(caught.value)
