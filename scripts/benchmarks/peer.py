"""`fit` beside any other training program, on the same machine, in turn."""

from __future__ import annotations

import argparse
import shlex
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.commands import PROGRAM, run, timed
from cifar_lightning.runs import Run

__all__ = ["bench_peer"]


def bench_peer(args: argparse.Namespace) -> dict[str, Any]:
    """Wall-clock time of `fit` and of other commands, in turn; accuracy of `fit` by `test`, which is not timed."""
    peers = [shlex.split(peer) for peer in args.peer]
    options = ["--config", args.config, "--data.val_size=0", *args.options]
    fits: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    print(f"{'seed':>4} {'seconds':>9}   what", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first_seed, args.first_seed + args.rounds):
            where = Path(folder) / "peer" / str(seed)
            place = ["--save_dir", folder, "--name", "peer", "--version", str(seed), "--seed_everything", str(seed)]
            seconds, _ = timed([*PROGRAM, "fit", *options, *place])
            results = {}
            for tta in ("none", "flip_translate"):
                run([*PROGRAM, "test", "--run", str(where), f"--model.tta={tta}"])
                results[tta] = Run(where).result
            fits.append({"seed": seed, "seconds": seconds, "results": results})
            accuracy = ", ".join(f"{tta} {100 * r['test']['metrics']['test/acc']:.2f}" for tta, r in results.items())
            print(f"{seed:4} {seconds:9.1f}   fit {args.config}: test accuracy {accuracy}", flush=True)
            for peer in peers:
                seconds, said = timed(peer)
                end = said.strip().splitlines()[-args.lines :]
                others.append({"command": peer, "round": seed - args.first_seed, "seconds": seconds, "said": end})
                print(f"{'':4} {seconds:9.1f}   {shlex.join(peer)}", *end, sep="\n" + " " * 17, flush=True)
    own = statistics.median(row["seconds"] for row in fits)
    for peer in peers:
        median = statistics.median(row["seconds"] for row in others if row["command"] == peer)
        print(f"median of fit / median of {shlex.join(peer)}: {own / median:.3f}")
    return {"options": options, "fit": fits, "peers": others, "median_seconds": own}
