"""Draw faults from those that Cosmic Ray can make of the package, and print them in the form of `faults.txt`.

    pip install cosmic-ray
    python -m tests.mutants.draw [--number 30] [--seed 0]

The folders of the package take turns; the file, the operator and the place are drawn. Left out are faults that change
nothing when the program runs (of type annotations), that Python refuses, or whose line stands in the package twice.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants.__main__ import PACKAGE, ROOT, Fault, find

LEFT_OUT = ("BitOr", "VariableReplacer", "VariableInserter")
"""Operators of types (`int | None`), and those that put a name where it was never meant to be."""


def faults_of(path: Path, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Yield an operator, and the line that it changes before and after, in the order of the draw."""
    code = path.read_text(encoding="utf-8")
    names = [name for name in operator_names() if not any(word in name for word in LEFT_OUT)]
    rng.shuffle(names)
    for name in names:
        changed = list(itertools.takewhile(bool, (mutate_code(code, get_operator(name)(), n) for n in range(400))))
        rng.shuffle(changed)
        for mutated in changed:
            lines = [line for line in difflib.ndiff(code.splitlines(), mutated.splitlines()) if line[:1] in "+-"]
            try:
                same = ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(code))
            except SyntaxError:
                continue
            if not same and [line[0] for line in lines] == ["-", "+"]:
                yield name.removeprefix("core/"), lines[0][1:].strip(), lines[1][1:].strip()
                break  # one of an operator, or those with many places would be drawn again and again


def tests_of(path: Path) -> str:
    """Return the modules whose tests come first: those of the name of the module or of its folder, or the next best."""
    named = [name for name in (path.stem, path.parent.name) if (ROOT / f"tests/test_{name}.py").is_file()]
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    texts = {test: test.read_text(encoding="utf-8") for test in sorted((ROOT / "tests").glob("test_*.py"))}
    named += [test.stem.removeprefix("test_") for test, text in texts.items() if dotted in text]
    return " ".join(list(dict.fromkeys(named))[:2] or ["cli"])


def draw(number: int, seed: int) -> Iterator[Fault]:
    """Yield faults, the folders of the package in turn."""
    rng = random.Random(seed)
    folders: dict[Path, list[Path]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        if path.name != "__init__.py":
            folders.setdefault(path.parent, []).append(path)
    found = 0
    while True:
        for folder in rng.sample(sorted(folders), len(folders)):
            path = rng.choice(folders[folder])
            for operator, old, new in faults_of(path, rng):
                fault = Fault(
                    f"drawn-{found + 1:02d}",
                    tests_of(path),
                    f"{operator} in {path.relative_to(ROOT / PACKAGE)}",
                    old,
                    new,
                )
                try:
                    find(fault, ROOT)
                except ValueError:
                    continue
                yield fault
                found += 1
                break
            if found == number:
                return


def main() -> None:
    """Print the faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.draw", description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for fault in draw(args.number, args.seed):
        print(f"{fault.name} ({fault.modules}): {fault.what}\n- {fault.old}\n+ {fault.new}\n")


if __name__ == "__main__":
    main()
