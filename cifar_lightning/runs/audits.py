"""What audits of the data have found, in lightning_logs/audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["AUDIT", "audit_folder", "doubtful_images", "read_audit"]

AUDIT = "audit.json"
AUDITS = Path("lightning_logs", "audit")
DIGITS = 8


def audit_folder(fingerprint: str, test_fingerprint: str) -> Path:
    """Return the folder of the audit of a data set, whether it is there or not.

    Args:
        fingerprint: of the training images.
        test_fingerprint: of the test images.
    """
    return AUDITS / f"{fingerprint[:DIGITS]}-{test_fingerprint[:DIGITS]}"


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Return the numbers of an audit; None if there is none.

    Raises:
        ValueError: If the file is damaged.
    """
    path = folder / AUDIT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(i, int) for images in found["test"].values() for i in images):
            raise TypeError("no lists of images")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected the numbers of an audit in {path}, got: {error!r}. Delete {folder}, and run `audit` again."
        ) from error
    return found


def doubtful_images(fingerprint: str, test_fingerprint: str) -> dict[str, list[int]]:
    """Return the test images that the audit of a data set doubts, by reason; empty without an audit.

    Returns:
        "near_duplicates": those with a near duplicate among the training images; "suspects": those whose label may be
        wrong.

    Raises:
        ValueError: If the audit is damaged.
    """
    found = read_audit(audit_folder(fingerprint, test_fingerprint))
    return {} if found is None else found["test"]
