"""Whether sparse code is worth its while: an estimate by constants, so that a layer is judged alike on every run and every machine.

Measuring instead would choose by chance where both are about equal, and training would not repeat to the bit.
"""

from spikeprune.runtime.sparse_code import LANES
from spikeprune.runtime.sparse_lists import Packing

# What things take, in dense multiply-adds of a convolution of many channels (13 ps each, where that was measured).
_CALL = 18e6  # a call, forward and backward
_WEIGHT = 120.0  # a weight, dead or alive
_LANE = 300.0  # a number of input or output, and its gradient, brought into lanes or back
_LOOP = 400.0  # a living weight and a tile
_SUM = 60.0  # a living weight and a vector of a tile
_NUMBER = 190.0  # a number of input or output of a dense convolution


def advantage(packing: Packing, samples: int) -> float:
    """Estimate how many times faster than dense code forward and backward are together; 0 for sizes that native code does not take.

    An estimate by constants, not a measurement: the same layer is judged alike on every run and every machine.

    Example:
        >>> import torch
        >>> from spikeprune.runtime.sparse_lists import Convolution, Living
        >>> mask = torch.zeros(64, 64, 3, 3, dtype=torch.bool)
        >>> packing = Packing(Living.of(mask), Convolution(64, 64, size=(8, 8), kernel=(3, 3), padding=(1, 1)), vectors=1)
        >>> advantage(packing, 1) < 1 < advantage(packing, 64)
        True
    """
    sizes, tile = packing.sizes, packing.tile
    given, made = (n * h * w for n, (h, w) in ((sizes.channels, sizes.size), (sizes.outputs, sizes.out)))
    if not packing.fits:
        return 0.0
    weights = sizes.channels * sizes.outputs * sizes.kernel[0] * sizes.kernel[1]
    chunks = len(packing.chunks(samples))
    each = chunks * packing.tiles[0] * packing.tiles[1] * (_LOOP + _SUM * tile.sums)
    spread = _LANE * chunks * packing.vectors * LANES * (given + made)
    sparse = _CALL + _WEIGHT * weights + spread + packing.living.density * weights * each
    dense = samples * (3 * weights * sizes.out[0] * sizes.out[1] + (_NUMBER * (given + made) if sizes.size != (1, 1) else 0))
    return dense / sparse
