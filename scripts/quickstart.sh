#!/usr/bin/env bash
# The main job on a fresh machine: installs the project into .venv, trains the CNN, and tests it.
#   bash scripts/quickstart.sh [OPTIONS OF fit]
# Takes the real CIFAR-10 from $CIFAR10_ROOT or data/, or downloads it into there; without it and without a network,
# runs on the embedded synthetic images and says so. PYTHON chooses the interpreter that makes .venv.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment ""

configs=(--config configs/cnn.yaml)
if "$python" -m cifar_lightning data --download; then
  images="CIFAR-10"
else
  [[ $? == 3 ]] || exit 2 # data that are there and broken are the user's to mend
  echo
  echo "No CIFAR-10 here: going on with the embedded SYNTHETIC images. Accuracies on them say nothing about CIFAR-10."
  images="SYNTHETIC images, not CIFAR-10"
  configs+=(--config configs/overlays/synthetic.yaml)
fi

version=quickstart-$(date +%Y%m%d-%H%M%S)
run=lightning_logs/cnn/$version
"$python" -m cifar_lightning fit "${configs[@]}" --version "$version" --test "$@"

"$python" -m cifar_lightning predict --run cnn --images docs/pictures --output lightning_logs/pictures

accuracy=$("$python" -c "import json; print(json.load(open('$run/result.json'))['test']['metrics']['test/acc'])")
echo
echo "Test accuracy: $accuracy ($images)"
echo "Run folder:    $run"
echo "Look at it:    .venv/bin/tensorboard --logdir lightning_logs"
echo "Pictures:      lightning_logs/pictures/images.html, classified by the network that comes with the package"
