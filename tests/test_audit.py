"""`audit`, and the accuracy of a test without what it doubts."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import CNN, MLP, fit
from trees import write_class_folders

from cifar_lightning import CLASSES
from cifar_lightning.__main__ import main
from cifar_lightning.analysis import duplicates
from cifar_lightning.analysis.duplicates import near_duplicates
from cifar_lightning.analysis.label_errors import suspects
from cifar_lightning.audit import networks
from cifar_lightning.audit.command import found_runs
from cifar_lightning.audit.networks import load_networks
from cifar_lightning.callbacks.clean import counted
from cifar_lightning.data.split import stratified_indices
from cifar_lightning.data.synthetic import synthetic_images
from cifar_lightning.runs import Run, audit_folder

PLANTED = 10


def by_hand(features, mirrored, others, itself):
    """The score of every pair, with loops."""
    centre = others.mean(0)
    a, m, b = (F.normalize(x - centre, dim=1) for x in (features, mirrored, others))
    cosine = torch.maximum(a @ b.T, m @ b.T)
    if itself:
        cosine.fill_diagonal_(-1)
    mine = cosine.sort(1, descending=True).values[:, 1:6].mean(1)
    theirs = mine if itself else cosine.sort(0, descending=True).values[1:6].mean(0)
    found = {}
    for i, j in itertools.product(range(len(a)), range(len(b))):
        if not itself:
            usual = float(mine[i] + theirs[j]) / 2
            found[i, j] = (float(cosine[i, j]) - usual) / (1 - usual)
        elif i != j:
            larger = max(cosine[i, j], cosine[j, i])
            usual = float(mine[i] + mine[j]) / 2
            found[min(i, j), max(i, j)] = (float(larger) - usual) / (1 - usual)
    return sorted(found.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("itself", [False, True])
def test_pairs_are_ranked_by_the_cosine_and_what_is_usual_there(itself, bfloat16, monkeypatch):
    """Candidates that are found in bfloat16 are ranked in float32."""
    monkeypatch.setattr(duplicates, "has_bfloat16", lambda device: bfloat16)
    features, mirrored = torch.randn(40, 7), torch.randn(40, 7)
    others = features if itself else torch.randn(30, 7)
    pairs = near_duplicates(features, mirrored, None if itself else others)
    expected = by_hand(features, mirrored, others, itself)[:20]
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))[:20] == [pair for pair, _ in expected]
    assert pairs.score[:20].tolist() == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.parametrize("n", [2, 3])
def test_a_few_images_have_pairs_as_well(n):
    features = torch.randn(n, 4)
    assert len(near_duplicates(features, features)) == n * (n - 1) // 2
    assert near_duplicates(features, features, features).cosine[:n].tolist() == pytest.approx([1] * n)


def test_many_copies_are_duplicates_and_few_strangers_are_none():
    strangers = torch.randn(500, 32)
    copies = torch.cat([strangers, strangers[:1].repeat(8, 1)])
    assert near_duplicates(copies, copies).score[:30].amin() > 0.99
    few = torch.randn(3, 32)
    assert near_duplicates(few, few, strangers).score.amax() < 0.55


def test_labels_are_ranked_by_their_margin_as_cleanlab_does():
    from cleanlab.rank import get_label_quality_scores

    labels = torch.arange(200) % 10
    probabilities = (torch.randn(200, 10) + 3 * F.one_hot(labels, 10)).softmax(1)
    labels[:9] = (labels[:9] + 1) % 10
    order, margins, estimated = suspects(labels, probabilities)
    scores = get_label_quality_scores(labels.numpy(), probabilities.numpy(), method="normalized_margin")
    assert order.tolist() == np.argsort(scores, kind="stable").tolist()
    assert ((margins.numpy() + 1) / 2).tolist() == pytest.approx(np.sort(scores).tolist(), abs=1e-6)
    assert set(range(9)) <= set(order[:20].tolist())
    assert 5 <= estimated <= 40


def test_folds_have_no_image_in_common_and_hold_out_all():
    labels = torch.arange(300) % 10
    folds = [stratified_indices(labels, 60, 3, fold)[1] for fold in range(5)]
    assert torch.equal(torch.cat(folds).sort().values, torch.arange(300))
    assert all(torch.bincount(labels[fold]).tolist() == [6] * 10 for fold in folds)
    assert torch.equal(folds[0], stratified_indices(labels, 60, 3)[1])
    with pytest.raises(ValueError, match=r"`data.val_fold` from 0 to 4, as 300 training images .* got 5"):
        stratified_indices(labels, 60, 3, 5)
    with pytest.raises(ValueError, match=r"`data.val_fold` from 0 to 0"):
        stratified_indices(labels, 0, 3, 1)


def test_the_accuracy_of_what_is_left():
    found = counted(torch.tensor([4, 7, 9, 11]), torch.tensor([True, False, True, False]), [7, 8, 11])
    assert (found["images"], found["acc"]) == (2, 1.0)
    assert found["interval"] == pytest.approx([0.3424, 1], abs=1e-4)  # of 2 in 2, Wilson 1927
    assert counted(torch.tensor([4]), torch.tensor([True]), [4]) is None


def compressed(picture: np.ndarray) -> np.ndarray:
    """A picture after JPEG of quality 50."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file))


def test_compression_changes_the_features_less_than_those_of_all_detail(monkeypatch):
    (network,) = load_networks(found_runs(None))
    images = synthetic_images("test", 50, 0).images
    jpeg = torch.stack([torch.from_numpy(compressed(image.permute(1, 2, 0).numpy()).copy()) for image in images])

    def change() -> float:
        plain, changed = network.features(images), network.features(jpeg.permute(0, 3, 1, 2))
        centre = plain.mean(0)
        return 1 - float(F.cosine_similarity(plain - centre, changed - centre).mean())

    without_detail = change()
    monkeypatch.setattr(networks, "coarse", lambda batch: batch)
    assert without_detail < 0.6 * change()


@pytest.fixture
def planted(tmp_path) -> Path:
    """Class folders of rendered images; the test images hold copies of training images, and two wrong labels."""
    root = tmp_path / "planted"
    write_class_folders(root)
    for split, n in (("train", 200), ("test", 100)):
        images, labels = (getattr(synthetic_images(split, n, 0), name) for name in ("images", "labels"))
        for folder in (root / split).iterdir():
            for path in folder.iterdir():
                path.unlink()
        for i, (image, label) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
            Image.fromarray(image).save(root / split / CLASSES[label] / f"{i:04d}.png")
    for i in range(PLANTED):
        (original,) = (root / "train").glob(f"*/{i:04d}.png")
        picture = np.asarray(Image.open(original))
        bright = np.clip(picture * 1.15, 0, 255).astype(np.uint8)
        changed = [picture, picture[:, ::-1], np.roll(picture, 1, 0), bright, compressed(picture)]
        Image.fromarray(changed[i % 5]).save(root / "test" / original.parent.name / f"copy{i}.png")
    return root


@pytest.mark.slow
def test_an_audit_finds_what_was_planted_and_test_leaves_it_out(planted, finished, caplog, capsys):
    run = Run(finished(*CNN))
    assert main(["audit", "--run", str(run.folder), "--root", str(planted)]) == 0
    (folder,) = Path("lightning_logs/audit").iterdir()
    rows = list(csv.DictReader(io.StringIO((folder / "duplicates.csv").read_text())))
    best = [row for row in rows if (row["split"], row["other_split"]) == ("test", "train")][:PLANTED]
    assert sum(row["file"].endswith(f"copy{int(row['other_file'][-8:-4])}.png") for row in best) >= PLANTED - 1
    audit = json.loads((folder / "audit.json").read_text())
    assert audit["images"] == {"train": 200, "test": 100 + PLANTED}
    assert sum(audit["classes"]["test"]) == 100 + PLANTED
    assert folder == audit_folder(audit["fingerprint"], audit["test_fingerprint"])
    labels = list(csv.DictReader(io.StringIO((folder / "label_errors.csv").read_text())))
    margins = [float(row["margin"]) for row in labels]
    assert margins == sorted(margins)
    assert len(margins) == 100 + PLANTED  # test images: nobody knows which of these training images the run has seen
    assert all(Path(planted, row["file"]).is_file() and row["label"] in row["file"] for row in labels)
    page = (folder / "audit.html").read_text()
    assert page.count("<img") == 6
    assert "cnn/version_0" in page
    written = (folder / "audit.json").stat().st_mtime_ns
    assert main(["audit", "--run", str(run.folder), "--root", str(planted)]) == 0
    assert (folder / "audit.json").stat().st_mtime_ns == written
    assert "audited with the same networks before" in caplog.text

    options = ("--data.source=auto", f"--data.root={planted}", "--data.val_size=40", "--version=clean")
    clean = Run(fit(*MLP, *options, "--test", save_dir="lightning_logs"))
    found = clean.result["clean"]
    doubted = audit["test"]
    everything = set(doubted["near_duplicates"]) | set(doubted["suspects"])
    assert len(doubted["near_duplicates"]) >= PLANTED - 1
    assert found["without_near_duplicates"]["images"] == 100 + PLANTED - len(doubted["near_duplicates"])
    assert found["without_both"]["images"] == 100 + PLANTED - len(everything)
    assert main(["predict", f"--run={clean.folder}"]) == 0
    predictions = clean.predictions()
    right = [bool(a == b) for a, b in zip(predictions.labels, predictions.classes, strict=True)]
    kept = [value for i, value in enumerate(right) if i not in everything]
    assert found["without_both"]["acc"] == pytest.approx(sum(kept) / len(kept), abs=1e-6)
    assert main(["report", f"--run={clean.folder}"]) == 0
    assert "test without both (command test)" in (clean.folder / "report/report.md").read_text()
    (folder / "audit.json").write_text("{}")
    assert main(["test", f"--run={clean.folder}"]) == 2
    assert "Expected the numbers of an audit in" in capsys.readouterr().err


@pytest.mark.slow
def test_folds_judge_the_training_images_that_they_held_out(tmp_path):
    root = tmp_path / "classes"
    write_class_folders(root, train_per_class=20)
    wrong = []
    for i in range(4):
        path, label = root / "train" / CLASSES[i] / f"0003_{CLASSES[i]}.png", CLASSES[i + 1]
        wrong.append(f"train/{label}/wrong{i}.png")
        path.rename(root / wrong[-1])
    options = ("--data.source=auto", f"--data.root={root}", "--data.val_size=100", "--trainer.max_epochs=10")
    for fold in range(2):
        fit(*MLP, *options, "--data.batch_size=10", f"--data.val_fold={fold}", "--name=folds", f"--version=fold{fold}")
    assert main(["audit", "--run", "lightning_logs/folds", "--root", str(root)]) == 0
    (folder,) = Path("lightning_logs/audit").iterdir()
    rows = list(csv.DictReader(io.StringIO((folder / "label_errors.csv").read_text())))
    files = [row["file"] for row in rows if row["split"] == "train"]
    assert 198 <= len(files) <= 200  # the classes do not come out even
    assert set(files[:4]) == set(wrong)
    assert main(["audit", "--run", "lightning_logs/folds/fold0", "--root", str(root)]) == 0
    audit = json.loads((folder / "audit.json").read_text())
    assert audit["label_errors"]["train"]["judged"] == 100


def test_what_an_audit_needs(planted, finished, monkeypatch, capsys):
    assert main(["audit", "--root", str(planted), "--run", "nowhere"]) == 2
    assert "got nowhere, which is neither" in capsys.readouterr().err
    run = str(finished(*MLP))
    assert main(["audit", "--run", run]) == 2
    assert "Expected `data.root` to hold CIFAR-10" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    assert main(["audit", "--run", run, "--root", str(planted)]) == 2
    assert "pip install 'cifar-lightning[audit]'" in capsys.readouterr().err
    assert not Path("lightning_logs/audit").exists()
