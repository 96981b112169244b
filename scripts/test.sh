#!/usr/bin/env bash
# Passes the tests on a fresh machine: installs the project with the tools for development into .venv and runs pytest.
#   bash scripts/test.sh [ARGUMENTS OF PYTEST]
# PYTHON chooses the interpreter that makes .venv.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment "[dev]"
exec "$python" -m pytest "$@"
