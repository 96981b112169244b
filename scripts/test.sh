#!/usr/bin/env bash
# Passes the tests on a fresh machine: installs the project with the tools for development into .venv and runs pytest.
#   bash scripts/test.sh [ARGUMENTS OF PYTEST]
# With -m "not faults", also those that need a browser, a cluster or half a minute: .ci/run does that.
# As many tests run at a time as the machine has cores, four at most; `-n 0` runs one after the other.
# PYTHON chooses the interpreter that makes .venv.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment "[dev]"
exec "$python" -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal "$@"
