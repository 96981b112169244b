# Sourced by the other scripts: makes or reuses the virtual environment .venv and puts its python into $python.
# environment EXTRAS   installs the project at the pinned versions; EXTRAS is "" or "[dev]".

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# pip compiles nothing, which saves half a minute: the first start of each module does, for all later ones.
unset PYTHONDONTWRITEBYTECODE

fail() {
  echo "error: $*" >&2
  exit 2
}

environment() {
  local extras=$1 base=${PYTHON:-python3} stamp
  python=.venv/bin/python
  stamp=.venv/installed-$(cat pyproject.toml constraints.txt <(echo "$extras") | sha256sum | cut -c1-16)
  [[ -f $stamp ]] && return
  [[ -x $python ]] && base=$python
  command -v "$base" >/dev/null || fail "Expected Python 3.11 or newer as $base, found none. Install it, or set PYTHON."
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Expected Python 3.11 or newer, got $("$base" --version 2>&1) as $base. Set PYTHON to a newer one, and delete" \
      ".venv if it is there."
  if [[ ! -x $python ]]; then
    echo "Making the virtual environment .venv"
    "$base" -m venv .venv || fail "Could not make .venv. On Debian and Ubuntu: apt install python3-venv."
  fi
  echo "Installing cifar_lightning and the pinned packages (torch alone is several GB; once)"
  "$python" -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".$extras" ||
    fail "The installation failed; pip's message above says why. Start the script again to go on."
  touch "$stamp"
}
