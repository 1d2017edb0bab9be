"""Event frames of fewer timesteps, none of whose events is lost."""

import torch
from torch import Tensor

from spikeprune.errors import LayoutError, ModelError


def rebin(frames: Tensor, timesteps: int) -> Tensor:
    """Add up event frames of neighbouring timesteps: frame t goes into bin floor(t T' / T).

    Counts are kept, none is dropped. Where T' does not divide T, bins take in unequal numbers of frames: 25 frames make
    bins of 3, 2, 3, 2, ... for T' = 10.

    Args:
        frames: (T, ...), time first.
        timesteps: T', 1 to T.

    Returns:
        (T', ...), of the same type.

    Raises:
        ModelError: timesteps is no integer from 1 to T, or a sum does not fit the type of the frames.
        LayoutError: the frames have no axis for time.

    Example:
        >>> rebin(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]]), 2).tolist()  # frames 0 and 1, frame 2
        [[3.0, 0.0], [0.0, 5.0]]
    """
    if not isinstance(frames, Tensor) or not frames.dim():
        shape = tuple(frames.shape) if isinstance(frames, Tensor) else f"a {type(frames).__name__}"
        raise LayoutError(f"frames must be a tensor (T, ...), time first; got {shape}.")
    if not isinstance(timesteps, int) or isinstance(timesteps, bool) or not 1 <= timesteps <= len(frames):
        raise ModelError(f"timesteps must be an integer from 1 to the T = {len(frames)} of the frames; got {timesteps!r}.")
    sizes = (torch.arange(len(frames)) * timesteps // len(frames)).bincount().tolist()
    # Sums of integers and flags are int64.
    sums = torch.stack([part.sum(0) for part in torch.split(frames, sizes)])
    fitting = sums.to(frames.dtype)
    if not sums.is_floating_point() and not torch.equal(fitting.to(sums.dtype), sums):
        raise ModelError(
            f"a bin counts up to {int(sums.max())} events, more than {frames.dtype} holds. Convert the frames first."
        )
    return fitting
