#!/usr/bin/env bash
# The study: its four sweeps over the real CIFAR-10, one after the other. Start it again to go on where it was; a run
# whose result.json is under docs/results/study counts as done, on whichever machine it ran.
#   bash scripts/study.sh [OPTIONS OF scripts/sweep.py]
# PYTHON chooses the interpreter. Needs the real data (CIFAR10_ROOT) and Ray (pip install '.[sweep]').
set -euo pipefail
cd "$(dirname "$0")/.."
for sweep in optimizers architectures depth regularisation; do
  "${PYTHON:-python}" scripts/sweep.py "configs/sweeps/study/$sweep.yaml" --results docs/results/study "$@"
done
