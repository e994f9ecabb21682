"""Writes the English model as a Hugging Face folder: SmolLM2 with the words around thinking and the adapter applied.

python -m english.folder FOLDER [--adapter FILE]

Needs the packages of requirements.txt.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from .adapter import apply_adapter, read_adapter
from .atomic import write_folder
from .model import write_files
from .smollm2 import read_package
from .think_words import with_think

HERE = Path(__file__).resolve().parent
ADAPTER = HERE / "adapter.safetensors"


def write(folder: Path, adapter: Path, progress: Callable[[str], None]) -> None:
    """Writes the folder; `progress` gets a line for each part that is done."""
    scale: float = json.loads((HERE / "settings.json").read_text())["scale"]
    model = with_think(read_package(progress))
    apply_adapter(model.weights, read_adapter(adapter), scale)
    progress("applied the adapter")
    write_folder(folder, lambda partial: write_files(model, partial))
    progress(f"wrote {folder}")


def main() -> None:
    """Reports progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.adapter, lambda line: print(f"english: {line}", file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
