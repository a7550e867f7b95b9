"""Time weight matching of two networks at full width, and the memory that it takes beside them.

    python benchmarks/alignment.py [--quick] [--threads 2]

Of each of the paper's networks as params.yaml has it at full size, untrained and in a fresh
process: the second network is matched to the first. Memory is the peak of the process less what it
held before, in networks: the two that are returned are in it, the two that are given aren't.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from _timing import add_common_arguments, print_machine, verdict
from full_size import TARGETS, images_of, network_of
from torch import nn

from fourfold.combination.alignment import align
from fourfold.data.batches import Normalize

EXPERIMENTS = ("cifar10-resnet18", "cifar10-vgg16", "cifar10-vit")
QUICK = ("digits-resnet18", "digits-vgg16", "digits-vit")
SECONDS, NETWORKS = 60, 4  # what one matching may take


def measure(name: str) -> tuple[float, float]:
    """Return seconds and networks; call it in a fresh process, whose peak it reads."""
    _match(QUICK[0])  # what is loaded at first use
    networks = [network_of(name, seed) for seed in range(2)]
    one = sum(tensor.nbytes for tensor in networks[0].state_dict().values())
    held = _resident_bytes()
    start = time.perf_counter()
    _match(name, *networks)
    seconds = time.perf_counter() - start
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, (peak - held) / one


def _match(name: str, *networks: nn.Module) -> None:
    of = networks or [network_of(name, seed) for seed in range(2)]
    images, _ = images_of(name, 2)
    normalize = Normalize([0.5] * images.shape[1], [0.25] * images.shape[1])
    states = [network.state_dict() for network in of]
    align(states, of[0], images, method="weights", reference=0, preprocess=normalize)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only:
        print(*measure(arguments.only))
        return
    print_machine(arguments)
    for name in QUICK if arguments.quick else EXPERIMENTS:
        command = [sys.executable, __file__, "--only", name, "--threads", str(arguments.threads)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        seconds, networks = map(float, printed.split())
        network = TARGETS.experiments[name]["network"]["name"]
        is_met = seconds < SECONDS and networks < NETWORKS
        print(
            f"  {network:<10} {seconds:6.1f} s, memory of {networks:.2f} networks; target under"
            f" {SECONDS} s and {NETWORKS}: {verdict(is_met)}"
        )


if __name__ == "__main__":
    main()
