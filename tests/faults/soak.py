"""A long training of many short epochs with figures on: does memory grow, do files stay open, do threads pile up?

python tests/faults/soak.py SECONDS OUTPUT.json
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.training import DATA, KINDS, kill, start

from cifar_lightning.files import write_text_atomic

EVERY_S = 2.0


def look(pid: int) -> dict[str, float]:
    """Resident memory in bytes, open files and threads of a process."""
    status = Path(f"/proc/{pid}/statm").read_text().split()
    return {
        "rss": int(status[1]) * os.sysconf("SC_PAGE_SIZE"),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
    }


def summary(samples: list[dict[str, float]]) -> dict[str, object]:
    """Medians of the second tenth of the time and of the last, and by how much the memory grew between."""
    tenth = len(samples) // 10
    parts = {"second_tenth": samples[tenth : 2 * tenth], "last_tenth": samples[-tenth:]}
    found = {
        name: {when: statistics.median(sample[name] for sample in part) for when, part in parts.items()}
        for name in ("rss", "files", "threads")
    }
    return {"growth": found["rss"]["last_tenth"] / found["rss"]["second_tenth"] - 1, **found}


def main(seconds: float, output: Path) -> int:
    """Runs it, and says by how much it grew after the first tenth; what it saw is written as it goes."""
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        options = ["--trainer.max_epochs=1000000", "--early_stopping.patience=1000000", "--save_dir", folder]
        with open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
            process = start("fit", *DATA, *KINDS["cnn"], *options, "--figures.every_n_epochs=1", output=log)
            started = time.monotonic()
            while time.monotonic() - started < seconds:
                time.sleep(EVERY_S)
                if process.poll() is not None:
                    print(Path(log.name).read_text(encoding="utf-8")[-2000:])
                    return 1
                samples.append({"second": round(time.monotonic() - started, 1), **look(process.pid)})
                if len(samples) % 100 == 0 or time.monotonic() - started >= seconds:
                    lines = Path(log.name).read_text(encoding="utf-8").splitlines()
                    epochs = sum(line.startswith("epoch ") for line in lines)
                    result = {"seconds": samples[-1]["second"], "epochs": epochs, **summary(samples)}
                    write_text_atomic(output, json.dumps({**result, "samples": samples}) + "\n")
            kill(process, signal.SIGTERM)
            process.wait()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2])))
