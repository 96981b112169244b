"""`cifar-lightning audit`: look for near duplicates, wrong labels and odd images in a data root."""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

from cifar_lightning.analysis.label_errors import issue_finder
from cifar_lightning.audit.findings import find
from cifar_lightning.audit.networks import load_networks
from cifar_lightning.audit.page import make_page
from cifar_lightning.comparison.records import read_runs
from cifar_lightning.data.folders import ClassFolders
from cifar_lightning.data.sources import default_root, find_source, load_images
from cifar_lightning.data.split import SourceSplit
from cifar_lightning.files import sha256, user_path, write_text_atomic
from cifar_lightning.pages import write_page
from cifar_lightning.runs import AUDIT, Run, audit_folder, published_names, read_audit
from cifar_lightning.usage.command_parser import ArgumentParser

__all__ = ["audit"]

logger = logging.getLogger(__name__)

SPLITS: tuple[SourceSplit, ...] = ("train", "test")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        "cifar-lightning audit",
        description="Look for near duplicates, wrong labels and odd images. Labels are judged by networks that did not "
        "train on them: test labels by every run, training labels by runs that held them out.",
    )
    made.add_argument(
        "--run",
        type=user_path,
        action="append",
        metavar="FOLDER",
        help="run, or folder of runs; the first finds duplicates, all judge labels (default: cnn, the published one)",
    )
    made.add_argument("--root", type=user_path, help="data root; default $CIFAR10_ROOT, else data/")
    return made


def audit(args: list[str]) -> int:
    """Write audit.html, audit.md, figures/, audit.json and the lists.

    Args:
        args: The command line after `audit`.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: If there are no data, or a run cannot be read.
    """
    parsed = parser().parse_args(args)
    start = time.perf_counter()
    runs = found_runs(parsed.run)
    issue_finder()  # before the work
    root = parsed.root or default_root()
    source = find_source(root, download=False)
    sets = {split: load_images(source, split, root) for split in SPLITS}
    folder = audit_folder(*(sets[split].fingerprint for split in SPLITS))
    networks = [[run.title, sha256(run.checkpoint("best"))] for run in runs]
    if (before := read_audit(folder)) and before.get("networks") == networks:
        logger.info(f"These images were audited with the same networks before. Delete {folder} to repeat it.")
    else:
        names = {split: source.files(split) for split in SPLITS} if isinstance(source, ClassFolders) else {}
        files = {split: names.get(split) or [""] * len(sets[split]) for split in SPLITS}
        logger.info(f"Auditing {', '.join(f'{len(sets[split]):,} {split}' for split in SPLITS)} images")
        findings = find(load_networks(runs), sets, files)
        page = make_page(findings, [run.title for run in runs], source.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(folder / "duplicates.csv", findings.duplicates_csv())
        write_text_atomic(folder / "label_errors.csv", findings.labels_csv())
        write_text_atomic(folder / "odd.csv", findings.odd_csv())
        write_page(page, folder, "audit")
        about = {
            "source": source.name,
            "fingerprint": sets["train"].fingerprint,
            "test_fingerprint": sets["test"].fingerprint,
            "networks": networks,
            "seconds": round(time.perf_counter() - start, 3),
        }
        write_text_atomic(folder / AUDIT, json.dumps(about | findings.numbers(), indent=2) + "\n")
    logger.info(f"Audit: {folder / 'audit.html'}")
    return 0


def found_runs(given: list[Path] | None) -> list[Run]:
    """Return the runs that were given, or the published network.

    Raises:
        ValueError: If a path holds no run, or there is no published network.
    """
    if given is None and "cnn" not in published_names():
        raise ValueError("Expected `--run FOLDER`: a run whose network looks for duplicates and judges labels.")
    folders = [record.folder for record in read_runs(given or [Path("cnn")])]
    return [Run(folder) for folder in dict.fromkeys(folders)]
