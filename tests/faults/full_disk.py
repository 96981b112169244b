"""Runs the program, and fills the disk just before it writes a certain file: python full_disk.py NAME FOLDER ARGUMENTS.

NAME is a part of the file's name, or NAME:N for the Nth time that such a file is written. FOLDER lies on a small disk.
What fills it is FOLDER/filler.
"""

import builtins
import contextlib
import io
import sys
from pathlib import Path

from cifar_lightning.__main__ import main

name, folder, *arguments = sys.argv[1:]
name, _, nth = name.partition(":")
left = int(nth or 1)
filler = Path(folder) / "filler"
open_file = builtins.open


def fill() -> None:
    """Writes until there is no room, when it is time."""
    global left
    left -= 1
    if left > 0:
        return
    with open_file(filler, "ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def open_(file: object, mode: str = "r", *args: object, **kwargs: object) -> object:
    """Every file that is written begins here."""
    if name in str(file) and "r" not in mode:
        fill()
    return open_file(file, mode, *args, **kwargs)


builtins.open = io.open = open_  # one is also known by the other's name
sys.exit(main(arguments))
