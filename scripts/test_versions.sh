#!/usr/bin/env bash
# Runs the tests with the oldest versions that pyproject.toml allows, or with the newest that the registry has, in a
# virtual environment of its own, which it deletes afterwards:
#   bash scripts/test_versions.sh oldest|newest [ARGUMENTS OF PYTEST]
# PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
  # The oldest matplotlib warns with a newer pyparsing, which it does not limit; warnings fail the tests.
  oldest) options=(--resolution lowest-direct "pyparsing<3.3") ;;
  newest) options=() ;;
  *)
    echo "error: Expected oldest or newest, got ${1:-nothing}." >&2
    exit 2
    ;;
esac
shift

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place"
"$place/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$place/bin/uv" pip install --quiet --python "$place/bin/python" "${options[@]}" -e ".[dev]"
"$place/bin/uv" pip list --quiet --python "$place/bin/python" |
  grep -E "^(torch|torchvision|lightning|torchmetrics|jsonargparse|tensorboard|numpy|scipy|scikit-learn|matplotlib) "
"$place/bin/python" -m pytest "$@"
