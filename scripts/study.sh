#!/usr/bin/env bash
# The study: its six sweeps over the real CIFAR-10, one after the other. Start it again to continue: finished runs are
# not run again. docs/results/study has the runs that were measured.
#   bash scripts/study.sh [OPTIONS OF sweep]
# PYTHON chooses the interpreter. Needs the real data (CIFAR10_ROOT).
set -euo pipefail
cd "$(dirname "$0")/.."
for sweep in optimizers architectures depth regularisation stability networks; do
  "${PYTHON:-python}" -m cifar_lightning sweep "configs/sweeps/study/$sweep.yaml" "$@"
done
