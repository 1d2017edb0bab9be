"""How much memory a phase took: what PyTorch had allocated on the GPU, or what the process had resident."""

import resource
import sys

import torch

KINDS = {"cuda": "CUDA", "cpu": "RSS"}
"""Device type -> which memory is told: CUDA's peak allocation, or the process's peak resident set."""


def restart(device: torch.device) -> None:
    """Forget earlier peaks, where that can be done: on a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """Give the peak in MB (10^6 bytes): since `restart` on a GPU, since the process began on a CPU.

    Example:
        >>> peak(torch.device("cpu")) > 1
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # Bytes on macOS, units of 1024 bytes on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
