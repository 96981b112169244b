"""Benchmarks: each prints a table and writes JSON. `python scripts/bench.py input --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.input import bench_input
from benchmarks.overhead import bench_overhead
from benchmarks.parallel import bench_parallel
from benchmarks.peer import bench_peer
from benchmarks.scale import bench_scale
from benchmarks.start import bench_start
from benchmarks.train import bench_train
from cifar_lightning import environment
from cifar_lightning.files import user_path
from cifar_lightning.main import run_with_messages
from cifar_lightning.usage.command_parser import ArgumentParser


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = ArgumentParser("bench.py", description=__doc__)
    commands = result.add_subparsers(required=True, dest="benchmark")

    def command(name: str, run: object, brief: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=brief, description=run.__doc__)
        made.set_defaults(run=run)
        made.add_argument("--output", type=user_path, help="JSON file to write")
        return made

    made = command("input", bench_input, "the data path against the usual pipeline")
    made.add_argument("--root", help="data root; default $CIFAR10_ROOT, else data/")
    made.add_argument("--source", choices=("auto", "synthetic"), default="auto", help="real images or synthetic ones")
    made.add_argument("--val_size", type=int, default=5000, help="images held out (default 5000)")
    made.add_argument("--batch_size", type=count, default=500, help="images a batch (default 500)")
    made.add_argument("--workers", type=int, default=2, help="worker processes of the usual pipeline (default 2)")
    made.add_argument("--rounds", type=count, default=5, help="measured epochs of each path (default 5)")

    more = "further options are those of `fit`"
    made = command("overhead", bench_overhead, f"Lightning's fit against a bare loop; {more}")
    made.add_argument("config", help="recipe to run")
    made.add_argument("--epochs", type=count, default=2, help="epochs of each run (default 2)")
    made.add_argument("--rounds", type=count, default=3, help="runs of each (default 3)")

    made = command("train", bench_train, f"time and epochs to a target accuracy; {more}")
    made.add_argument("config", help="recipe to run")
    made.add_argument("--target", type=float, default=0.9, help="validation accuracy to reach (default 0.9)")
    made.add_argument("--seeds", type=count, default=1, help="runs, with seeds from 0 (default 1)")
    made.add_argument("--test", action="store_true", help="run `test` on each as well")

    made = command("peer", bench_peer, f"fit and other training programs in turn; {more}")
    made.add_argument("config", help="recipe to run")
    made.add_argument("--peer", action="append", default=[], metavar="COMMAND", help="another program; may be repeated")
    made.add_argument("--rounds", type=count, default=3, help="runs of each (default 3)")
    made.add_argument("--first_seed", type=int, default=0, help="seed of the first fit (default 0)")
    made.add_argument("--lines", type=count, default=5, help="last lines of a peer's output to keep (default 5)")

    made = command("parallel", bench_parallel, f"single-thread trainings side by side and in turn; {more}")
    made.add_argument("config", help="recipe to run")
    made.add_argument("--jobs", type=count, default=2, help="trainings (default 2)")
    made.add_argument("--rounds", type=count, default=3, help="measured rounds (default 3)")

    made = command("scale", bench_scale, "images/s against batch size, width, depth, threads and devices")
    made.add_argument("--steps", type=count, default=5, help="measured steps of each point (default 5)")

    made = command("start", bench_start, f"imports, --help and time to the first step; {more}")
    made.add_argument("config", help="recipe to run")
    made.add_argument("--rounds", type=count, default=5, help="measured starts (default 5)")
    return result


def bench(args: Sequence[str]) -> int:
    """Run the benchmark that the command line names.

    Args:
        args: the command line without the program's name.

    Returns:
        The exit status, 0.
    """
    made = parser()
    parsed, parsed.options = made.parse_known_args(args)
    if parsed.options and not hasattr(parsed, "config"):
        made.parse_args(args)  # which refuses them
    result = {"benchmark": parsed.benchmark, **parsed.run(parsed)}
    result |= {"versions": environment.versions(), "hardware": environment.hardware()}
    if parsed.output:
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        parsed.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Run the command line of the process, with errors as one message."""
    return run_with_messages(lambda: bench(sys.argv[1:]), args=sys.argv[1:])
