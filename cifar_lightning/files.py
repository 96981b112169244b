"""Expand paths, check folder names, and write files whole or not at all."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = [
    "check_folder_name",
    "expand_arguments",
    "expand_options",
    "expanded",
    "not_written",
    "recipe",
    "replacing",
    "sha256",
    "user_path",
    "write_bytes_atomic",
    "write_text_atomic",
]

PATH_KEY = re.compile(r"(.*_)?(dir|dirpath|path|file|filename|folder|root)|run")
"""Names of options that hold paths, of this project (`save_dir`, `run`, `data.root`) and of the classes that a
configuration may name (`dirpath` of callbacks and profilers, `save_dir` of loggers)."""
PATH_ARGUMENTS = ("--config", "-c", "--run")
"""Options whose files are read before the other options are parsed."""
RECIPES = Path(__file__).with_name("recipes")
"""The configurations that come with the package: `configs` of a checkout."""
VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def expanded(path: str, option: str) -> str:
    """Return a path with `~` and environment variables replaced, so that no library expands it later.

    Lightning's loggers expand their paths, and its checkpoints do not: a run would be split over two folders.

    Args:
        path: as the user wrote it.
        option: the option that it comes from, for the message; "" when the caller adds it.

    Raises:
        ValueError: when a variable has no value, or `~` names no user.
    """
    found = os.path.expanduser(os.path.expandvars(path))
    plain = os.path.normpath(found)
    if unset := [match[0] for match in VARIABLE.finditer(path) if not os.environ.get(match[1] or match[2])]:
        problem = f"{unset[0]} has no value"
    elif left := VARIABLE.search(found):
        problem = f"it expands to {found}, with {left[0]} in it"
    elif plain.startswith("~"):
        problem = f"there is no home folder of {plain.split(os.sep)[0]}"
    else:
        return found
    what = f"a path as `{option}`" if option else "a path"
    raise ValueError(f"Expected {what}, got {path!r}, but {problem}. Write the path in full.")


def recipe(path: str) -> str:
    """Return the file of a configuration; where there is none of that name, that of the package.

    Args:
        path: Such as "configs/cnn.yaml" or "cnn.yaml".
    """
    shipped = RECIPES / path.removeprefix("configs/")
    return str(shipped) if shipped.is_file() and not os.path.exists(path) else path


def user_path(text: str) -> Path:
    """Return a path from the command line, expanded: a `type` for argparse.

    Raises:
        argparse.ArgumentTypeError: when it cannot be expanded; argparse adds the name of the option.
    """
    try:
        return Path(expanded(text, ""))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removesuffix(".")) from error


def expand_arguments(args: list[str]) -> list[str]:
    """Return a command line with the paths of `--config` and `--run` expanded; the others wait for the parser.

    A configuration that is not here is that of the package, if there is one of that name.

    Raises:
        ValueError: naming the option whose path cannot be expanded.
    """
    found = []
    for before, arg in zip(["", *args], args, strict=False):
        option, equals, value = arg.partition("=")
        if before in PATH_ARGUMENTS:
            found.append(argument_path(arg, before))
        elif equals and option in PATH_ARGUMENTS:
            found.append(f"{option}={argument_path(value, option)}")
        else:
            found.append(arg)
    return found


def argument_path(path: str, option: str) -> str:
    """Return the expanded path of one of `PATH_ARGUMENTS`."""
    found = expanded(path, option)
    return found if option == "--run" else recipe(found)


def expand_options(options: Any, name: str = "") -> Any:
    """Return a parsed configuration with the path of every option expanded, at any depth; namespaces change in place.

    Args:
        options: namespaces, dictionaries, lists and values.
        name: of the option that holds them, with dots.

    Raises:
        ValueError: naming the option whose path cannot be expanded.
    """
    if isinstance(options, argparse.Namespace):
        vars(options).update(expand_options(vars(options), name))
        return options
    if isinstance(options, dict):
        return {key: expand_options(value, f"{name}.{key}".lstrip(".")) for key, value in options.items()}
    if isinstance(options, list):
        return [expand_options(value, name) for value in options]
    key = name.rsplit(".", 1)[-1]
    if isinstance(options, str | Path) and key != "class_path" and PATH_KEY.fullmatch(key):
        return type(options)(expanded(str(options), name))
    return options


def check_folder_name(option: str, name: str, nested: bool = False) -> None:
    """Check that a name stays inside the folder that it is joined to.

    Args:
        option: Option that it comes from, for the message.
        name: Name of a folder.
        nested: Whether it may name nested folders, such as a/b.

    Raises:
        ValueError: If it could lead elsewhere, or cannot be printed.
    """
    if not name.isprintable():  # a NUL or a line break, which a copied text may hold
        raise ValueError(f"Expected `{option}` to be of printable characters, got {name!r}.")
    parts = name.split("/") if nested else [name]
    if any(part in ("", ".", "..") or part.startswith("~") or re.search(r"[/\\$]", part) for part in parts):
        kind = "a folder in `save_dir`, such as cnn or study/cnn" if nested else "one folder, such as version_0"
        raise ValueError(
            f"Expected `{option}` to name {kind}, got {name!r}. Leave out \\, $, ~ in front and parts that are empty, "
            ". or ..; to write elsewhere, set `--save_dir`."
        )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file that replaces `path` when the block ends; after an error, `path` stays as it is.

    The file is flushed to the disk before, and has the permissions that `open(path, "wb")` would give it. Writers that
    need a path can use `file.name`.

    Raises:
        OSError: If the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def not_written(path: Path, error: OSError) -> OSError:
    """Return an error with the file that was not written, the reason, and a remedy."""
    before = "the old file is unchanged" if path.exists() else "nothing was written"
    return OSError(
        f"Expected to write {path}, got: {error.strerror or error} ({before}). Make room or choose another folder, and "
        "start again."
    )


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes_atomic(path, text.encode())
