"""Put small faults into a copy of the package, one at a time, and show which test catches each.

    python -m tests.mutants [--list] [--only NAME ...]

`faults.txt` lists the faults: a name, the modules whose tests, tests/test_<module>.py, run first, and what is wrong; a
snippet of the package (-), and what replaces it (+). A snippet is found anywhere in the package, whatever the file, the
indentation and the line breaks, and has to stand there exactly once. Each fault runs these test files until the first
test fails, and where none fails, the usual run of the tests until the first failure. The tests that caught a fault are
run once more without one: one that fails then as well has caught nothing.

The output is a Markdown table. The exit status is 1 when a fault was not caught or could not be put in. The checkout
is copied to temporary folders and never changed; as many faults are tried at a time as the machine has cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = "cifar_lightning"
FAULT = re.compile(r"^(?P<name>\S+) \((?P<modules>[^)]+)\): (?P<what>.+)\n- (?P<old>.+)\n\+ (?P<new>.+)$", re.M)
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.M)
NO_IMPORT = "tests/conftest.py"
"""What fails when the package cannot be imported."""


class Fault(NamedTuple):
    """A small mistake in the package, as `faults.txt` describes it."""

    name: str
    modules: str
    what: str
    old: str
    new: str


class Verdict(NamedTuple):
    """What became of a fault: where it stands, the test that caught it, why it could not be tried, and the seconds."""

    where: str
    test: str
    error: str
    seconds: float


def read_faults() -> list[Fault]:
    """Return the faults of `faults.txt`, in order."""
    text = Path(__file__).with_name("faults.txt").read_text(encoding="utf-8")
    faults = [Fault(**match.groupdict()) for match in FAULT.finditer(text)]
    assert len(faults) == len(text.strip().split("\n\n")), "a fault that is not three lines"
    return faults


def copy_checkout(target: Path) -> None:
    """Copy the files that git tracks or would track, as they are now."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def find(fault: Fault, tree: Path) -> tuple[Path, int, int]:
    """Return the file that holds the snippet of a fault, and where it starts and ends there.

    Raises:
        ValueError: when the package does not hold it exactly once.
    """
    pattern = r"\s*".join(re.escape(token) for token in re.findall(r"\w+|[^\w\s]", fault.old))
    pattern = rf"(?<!\w){pattern}(?!\w)" if re.match(r"\w", fault.old) else rf"{pattern}(?!\w)"
    found = [
        (path, match.start(), match.end())
        for path in sorted((tree / PACKAGE).rglob("*.py"))
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"))
    ]
    if len(found) != 1:
        raise ValueError(f"Expected the snippet once in the package, got it {len(found)} times: {fault.old}")
    return found[0]


@contextmanager
def applied(fault: Fault, tree: Path) -> Iterator[str]:
    """Put a fault into the tree, yield where it stands, and take it out again."""
    path, start, end = find(fault, tree)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:start] + fault.new + text[end:], encoding="utf-8")
    try:
        yield f"{path.relative_to(tree)}:{text.count(chr(10), 0, start) + 1}"
    finally:
        path.write_text(text, encoding="utf-8")


def failing(tree: Path, tests: list[str], *options: str) -> list[str]:
    """Return the ids of the tests that fail.

    Raises:
        ValueError: when a test file is not there, or pytest could not run.
    """
    if missing := [test for test in tests if not (tree / test.split("::")[0]).exists()]:
        raise ValueError(f"Expected the test files {', '.join(missing)}, got none")
    # No byte code: a file that changes within a second, by no byte in length, would be taken for the old one.
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = ["-p", "no:cacheprovider", "-n", "0", "-q", "--tb=no", "-rfE", *options, *tests]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=tree, env=env, capture_output=True, text=True)
    if done.returncode == 4 and "while loading conftest" in done.stderr:
        return [NO_IMPORT]
    if done.returncode not in (0, 1, 2):
        raise ValueError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]!r}")
    return FAILED.findall(done.stdout)


def judge(fault: Fault, trees: Queue[Path], only_find: bool) -> Verdict:
    """Put a fault into one of the copies of the checkout, and run the tests until one fails."""
    tree, started = trees.get(), time.monotonic()
    where = test = error = ""
    try:
        with applied(fault, tree) as where:
            if not only_find:
                first = [f"tests/test_{name}.py" for name in fault.modules.split()]
                failed = failing(tree, first, "-x") or failing(tree, ["tests"], "-x", "-n", "logical")
                test = failed[0] if failed else ""
    except ValueError as problem:
        error = str(problem)
    trees.put(tree)
    return Verdict(where, test, error, time.monotonic() - started)


def main() -> int:
    """Run the faults that were asked for and print the table."""
    faults = read_faults()
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="show the faults and where they stand, and run nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[fault.name for fault in faults], default=None)
    args = parser.parse_args()
    chosen = [fault for fault in faults if args.only is None or fault.name in args.only]
    jobs = min(os.cpu_count() or 1, len(chosen))
    caught, bad = [], 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        trees: Queue[Path] = Queue()
        for number in range(jobs):
            copy_checkout(Path(folder) / str(number))
            trees.put(Path(folder) / str(number))
        print("| fault | what is wrong | where | caught by | seconds |\n| --- | --- | --- | --- | --- |", flush=True)
        for fault, found in zip(chosen, pool.map(lambda f: judge(f, trees, args.list), chosen), strict=True):
            caught += [found.test] if found.test else []
            bad += not (args.list or found.test) or bool(found.error)
            by = f"`{found.test.removeprefix('tests/')}`" if found.test else "" if args.list else "**NOT CAUGHT**"
            cells = (fault.name, fault.what, found.where, f"**ERROR** {found.error}" if found.error else by)
            print(f"| {' | '.join(cells)} | {found.seconds:.0f} |", flush=True)
        try:
            tests = sorted({*caught} - {NO_IMPORT})
            always = failing(trees.get(), tests) if tests else []
        except ValueError as error:
            always = [str(error)]
    if always:
        print(f"\nThese fail without any fault, and have caught nothing: {', '.join(always)}")
    print(f"\n{len(chosen)} faults, {len(caught)} caught, {bad} not caught or not found.")
    return int(bool(bad or always))


if __name__ == "__main__":
    sys.exit(main())
