"""What a command may import: what is typed is trusted, what a file names is not.

To import a module is to run it. A configuration may have been written by somebody else, so it may only name classes of
`PACKAGES`. A module of your own counts when you name it on the command line, in an option (`--model.net mynet.Tiny`) or
with `--allow mynet` for what a file names. `fit` keeps its source in `code/` of the run, signed with a key of this
user; commands on the run import that source, also after the file was edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonargparse

from cifar_lightning.files import sha256

__all__ = ["allow", "allowed", "keep_source", "may_import", "named_on_line", "source_of", "use_source_of"]

logger = logging.getLogger(__name__)

PACKAGES = (
    "cifar_lightning",
    "lightning",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
    "torchvision.models",
    "timm.models",
    "timm.create_model",
)
"""Packages whose classes any configuration may name."""
ROOTS = {package.partition(".")[0] for package in PACKAGES}
CODE, MANIFEST = "code", "manifest.json"
DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"

_allowed: list[str] = []


def allowed() -> list[str]:
    """Return the modules that are allowed besides `PACKAGES`."""
    return list(_allowed)


def allow(names: Iterable[str]) -> None:
    """Allow modules and what is in them, in this process."""
    _allowed.extend(name for name in names if name not in _allowed)
    if os.getcwd() not in sys.path and "" not in sys.path:  # the console script starts without it
        sys.path.append(os.getcwd())
    jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=_entries())


def forget() -> None:
    """Allow `PACKAGES` only."""
    jsonargparse.set_parsing_settings(import_path_denylist=["*", *_allowed], import_path_allowlist=[])
    _allowed.clear()
    jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=_entries())


def _entries() -> list[str]:
    return [*(package for package in PACKAGES if not is_shadowed(package.partition(".")[0])), *_allowed]


def may_import(module: str) -> bool:
    """Return whether a configuration may name classes of a module."""
    return any(f"{module}.".startswith(f"{package}.") for package in _entries())


def is_shadowed(package: str) -> bool:
    """Return whether a file of the current folder would be imported in place of a package that is not installed."""
    if package in sys.modules or (spec := importlib.util.find_spec(package)) is None or spec.origin is None:
        return False
    origin = Path(spec.origin)
    return (origin.parent.parent if origin.name == "__init__.py" else origin.parent) == Path.cwd()


def named_on_line(args: list[str]) -> list[str]:
    """Allow the modules that a command line names, and return the line without `--allow`.

    Args:
        args: of the command line.

    Raises:
        ValueError: for `--allow` without the name of a module.
    """
    forget()
    rest, names = [], []
    waiting = iter(args)
    for arg in waiting:
        option, equals, value = arg.partition("=")
        if option != "--allow":
            rest.append(arg)
            continue
        value = value if equals else next(waiting, "")
        names += (given := [name.strip() for name in value.split(",")])
        if not all(part.isidentifier() for name in given for part in name.split(".")):
            raise ValueError(f"Expected the name of a module after `--allow`, such as mynet, got {value!r}.")
    option = ""
    for arg in rest:
        option, value = (arg.partition("=")[0], arg.partition("=")[2]) if arg.startswith("--") else (option, arg)
        if re.match(r"--(model|data|trainer)\b", option):
            paths = re.findall(DOTTED, value) if "class_path" in value else re.findall(f"^{DOTTED}$", value)
            for path in paths:
                module, root = path.rpartition(".")[0], path.partition(".")[0]
                names.append(module if root in ROOTS else root)
    allow(dict.fromkeys(name for name in names if not may_import(name)))
    return rest


def keep_source(run: Path) -> None:
    """Copy the source of the modules that were allowed and imported into a run, with a signature of this user.

    The source of installed packages is left out.

    Args:
        run: the run folder.
    """
    used = [name for name in dict.fromkeys(name.partition(".")[0] for name in _allowed) if name in sys.modules]
    used = [name for name in used if name not in ROOTS]
    if not used or (run / CODE).exists():
        return
    bases = {base for name in used if (base := folder_of(name)) is not None and not is_installed(base)}
    mine = {name.partition(".")[0] for name in list(sys.modules)} - ROOTS - {"__main__"}
    sources: dict[str, str] = {}
    for name in sorted(mine):
        if (base := folder_of(name)) in bases:
            files = sorted((base / name).rglob("*.py")) if (base / name).is_dir() else [base / f"{name}.py"]
            for file in filter(Path.is_file, files):
                target = run / CODE / file.relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                sources[file.relative_to(base).as_posix()] = sha256(target)
    (run / CODE).mkdir(exist_ok=True)
    manifest: dict[str, Any] = {"allowed": allowed(), "sources": sources}
    with contextlib.suppress(OSError):  # no home folder: the source is kept, and `--allow` is needed to use it
        manifest["signature"] = signature(manifest, user_key())
    (run / CODE / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def folder_of(name: str) -> Path | None:
    """Return the folder that a module or a package of the top level was imported from."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not file:
        return None
    path = Path(file).absolute()
    return path.parent.parent if path.name == "__init__.py" else path.parent


def is_installed(folder: Path) -> bool:
    """Return whether modules in a folder belong to an installed package or to Python."""
    folders = {Path(path) for name, path in sysconfig.get_paths().items() if "lib" in name}
    return folder.name in ("site-packages", "dist-packages") or folder in folders


def user_key() -> bytes:
    """Return the key that this user's runs are signed with, and make it the first time.

    Raises:
        OSError: when the user has no folder that can be written.
    """
    from filelock import FileLock

    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = Path(base) / "cifar_lightning" / "key"
    if not path.is_absolute():
        raise OSError("no home folder")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name("key.lock")):  # several programs may start for the first time
            if not path.is_file():
                new = path.with_name("key.new")
                new.unlink(missing_ok=True)
                with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(32))
                new.replace(path)
    return path.read_bytes()


def signature(manifest: dict[str, Any], key: bytes) -> str:
    """Return the signature of a manifest, which holds the SHA-256 of each source."""
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    return hmac.new(key, json.dumps(unsigned, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def use_source_of(run: Path) -> None:
    """Import modules of the user's own from the source that a run keeps, from now on.

    Without a valid signature of this user, only modules that the command line allows are imported from there.

    Args:
        run: the run folder.

    Raises:
        ValueError: when a source is not the one that was kept.
    """
    manifest = _manifest(run)
    if manifest is None:
        return
    try:
        is_mine = hmac.compare_digest(str(manifest.get("signature")), signature(manifest, user_key()))
    except OSError:
        is_mine = False
    roots = {name.partition(".")[0] for name in manifest["allowed"]}
    if not is_mine and not roots <= {name.partition(".")[0] for name in _allowed}:
        return  # whoever reads the configuration says what to allow
    _check_sources(run / CODE, manifest["sources"])
    code = (run / CODE).absolute()
    for name in own_names(manifest):
        for module in [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]:
            if folder_of(module.partition(".")[0]) != code:
                del sys.modules[module]
    if str(code) not in sys.path:
        sys.path.insert(0, str(code))
    importlib.invalidate_caches()
    allow(manifest["allowed"])


def own_names(manifest: dict[str, Any]) -> set[str]:
    """Return the modules of the top level whose source is kept."""
    return {name.partition("/")[0].removesuffix(".py") for name in manifest["sources"]}


def _check_sources(code: Path, sources: dict[str, str]) -> None:
    for name, expected in sources.items():
        file = code / name
        if not file.resolve().is_relative_to(code.resolve()) or not file.is_file() or sha256(file) != expected:
            raise ValueError(
                f"Expected {file} as `fit` kept it with the run, got another content. Restore the file, or train the "
                "run again."
            )
        current = Path(name)
        if current.is_file() and sha256(current) != expected:
            logger.info(f"{name} has changed since the run was trained: {file} is used.")


def _manifest(run: Path) -> dict[str, Any] | None:
    path = run / CODE / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        allowed, sources = manifest["allowed"], manifest["sources"]
        assert all(isinstance(name, str) for name in [*allowed, *sources, *sources.values()])
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise ValueError(
            f"Expected the list of kept sources in {path}, got something else. Restore the file."
        ) from None
    return manifest


@contextlib.contextmanager
def source_of(run: Path, names: Iterable[str] = ()) -> Iterator[None]:
    """Import modules of the user's own from the source that a run keeps, and only within this context.

    Args:
        run: the run folder.
        names: modules to allow besides those that this user's `fit` kept with the run.
    """
    path, modules, before = list(sys.path), dict(sys.modules), allowed()
    try:
        allow(names)
        use_source_of(run)
        yield
    finally:
        own = own_names(_manifest(run) or {"sources": {}})
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        sys.modules |= {name: module for name, module in modules.items() if name.partition(".")[0] in own}
        sys.path[:] = path
        forget()
        allow(before)
