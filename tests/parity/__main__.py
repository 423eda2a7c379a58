"""Write what the library computes: python -m tests.parity --out tests/parity/fixtures"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

from safetensors.numpy import save_file

from tests.parity.cases import CASES, FIXTURES, TRANSCODERS
from tests.parity.saelens import batches, defaults, results, transcoder, write_folders


def main() -> None:
    """Write a file for each case, one of the batches that they share, and one of the library's defaults."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--out", type=Path, default=FIXTURES, help="folder that is written to")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    # A single entry: of several, the order in the file would be left to chance.
    written_by = {"written_by": ", ".join(f"{name} {version(name)}" for name in ("sae-lens", "torch"))}
    save_file({"batches": batches()}, folder / "batches.safetensors")
    (folder / "defaults.json").write_text(json.dumps(defaults(), indent=1) + "\n")
    for case in CASES:
        save_file(results(case), folder / f"{case.name}.safetensors", metadata=written_by)
        write_folders(case, folder / "folders")
        print(f"wrote {case.name}")
    for name in TRANSCODERS:
        found = transcoder(name, folder / "folders" / name)
        save_file(found, folder / f"{name}.safetensors", metadata=written_by)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
