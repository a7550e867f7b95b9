"""Prepare all of CIFAR-10 from Parquet files, and load it again, each in a fresh process.

    python benchmarks/data.py [FOLDER] [--quick] [--threads 2]

FOLDER (default: the environment variable FOURFOLD_DATA) has `cifar10/train.parquet` and
`cifar10/test.parquet`. Preparing is what `fourfold prepare-data` does: read, decode, split, write.
Loading is what every job does first, with its check of the hash.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IMPORT_START = time.perf_counter()
import torch  # noqa: E402 (imported alone, to see what part of a start it is)

IMPORT_SECONDS = time.perf_counter() - IMPORT_START

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from _timing import print_machine, verdict  # noqa: E402
from PIL import Image  # noqa: E402

from fourfold.data.dataset import Dataset  # noqa: E402
from fourfold.data.sources import load_source  # noqa: E402
from fourfold.data.splitting import split_source  # noqa: E402
from fourfold.pipeline.cost import peak_bytes  # noqa: E402

SOURCE = {"name": "parquet", "train": "cifar10/train.parquet", "test": "cifar10/test.parquet"}
PREPARE_SECONDS, PREPARE_BYTES, LOAD_SECONDS = 60, 2e9, 3  # targets


def prepare(arguments: argparse.Namespace) -> dict[str, float]:
    """Decode, split and write; return seconds, images, and the peak memory of this process."""
    start = time.perf_counter()
    source = load_source(SOURCE, arguments.folder, arguments.threads)
    decoded = time.perf_counter()
    split: dict[str, Any] = {"by": "chance", "seed": 0, "train_images": None, "test_images": None}
    dataset = split_source(source, "cifar10", **split, val_images=len(source.labels) // 10)
    dataset.save(arguments.prepared)
    end = time.perf_counter()
    return {
        "images": sum(len(part) for part in dataset.splits.values()),
        "decode_seconds": decoded - start,
        "split_seconds": end - decoded,
        "bytes": peak_bytes(torch.device("cpu")),
    }


def load(arguments: argparse.Namespace) -> dict[str, float]:
    """Load what was prepared; return the seconds of that and of `import torch` before."""
    start = time.perf_counter()
    dataset = Dataset.load(arguments.prepared)
    dataset.sha256()  # every job asks for it
    return {"load_seconds": time.perf_counter() - start, "import_seconds": IMPORT_SECONDS}


MEASUREMENTS = {"prepare": prepare, "load": load}


def measure(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Run a measurement in a fresh process; to be called while this process is small.

    On Linux a process starts with the peak memory of the one that started it.
    """
    command = [sys.executable, __file__, str(arguments.folder), "--measure", name]
    command += ["--prepared", str(arguments.prepared), "--threads", str(arguments.threads)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    measured: dict[str, float] = json.loads(found)
    return measured


def write_small_files(folder: Path) -> None:
    """Write files in the same format: 100 + 20 images of noise, in ten classes."""
    noise = np.random.default_rng(0)
    (folder / "cifar10").mkdir()
    for name, count in (("train", 100), ("test", 20)):
        images = []
        for pixels in noise.integers(0, 256, (count, 32, 32, 3), np.uint8):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            images.append({"bytes": file.getvalue(), "path": None})
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        labels = [k % 10 for k in range(count)]
        table = pa.table({"img": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
        pq.write_table(table, folder / "cifar10" / f"{name}.parquet")


def compare(arguments: argparse.Namespace) -> None:
    prepared, loaded = measure("prepare", arguments), measure("load", arguments)
    seconds = prepared["decode_seconds"] + prepared["split_seconds"]
    print(f"prepare {prepared['images']} images, {arguments.threads} threads")
    print(f"  decode {prepared['decode_seconds']:.2f} s, split and write", end=" ")
    print(f"{prepared['split_seconds']:.2f} s, together {seconds:.2f} s, target at most", end=" ")
    print(f"{PREPARE_SECONDS} s: {verdict(seconds <= PREPARE_SECONDS)}")
    print(f"  peak memory {prepared['bytes'] / 1e6:.0f} MB, target at most", end=" ")
    print(f"{PREPARE_BYTES / 1e6:.0f} MB: {verdict(prepared['bytes'] <= PREPARE_BYTES)}")
    print("second start, fresh process")
    print(f"  import torch {loaded['import_seconds']:.2f} s (in addition)")
    print(f"  load and check the hash {loaded['load_seconds']:.2f} s, target at most", end=" ")
    print(f"{LOAD_SECONDS} s: {verdict(loaded['load_seconds'] <= LOAD_SECONDS)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = os.environ.get("FOURFOLD_DATA")
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="of the files")
    parser.add_argument("--quick", action="store_true", help="small files made for the purpose")
    parser.add_argument("--threads", type=int, default=2, help="decode images")
    parser.add_argument("--device", type=torch.device, default="cpu", help="is not used: cpu")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASUREMENTS[arguments.measure](arguments)))
        return
    if arguments.folder is None and not arguments.quick:
        parser.error("give the folder of cifar10/train.parquet, or set FOURFOLD_DATA, or --quick")
    arguments.device = torch.device("cpu")
    print_machine(arguments)
    with tempfile.TemporaryDirectory() as folder:
        arguments.prepared = Path(folder) / "prepared"
        if arguments.quick:
            arguments.folder = Path(folder)
            write_small_files(arguments.folder)
        compare(arguments)


if __name__ == "__main__":
    main()
