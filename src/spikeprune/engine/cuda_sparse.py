"""Which linear layers run as 2:4 products: those whose weights allow it, where the clock says that it pays on the example."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.engine.plan import Plan, Synapse
from spikeprune.errors import SparsityError
from spikeprune.runtime import semi_structured
from spikeprune.runtime.semi_structured import ALIVE, BLOCK, SemiStructured

DENSE, SPARSE = "dense", "2:4"
ROUNDS, CALLS, WARM = 5, 20, 3


@dataclass(frozen=True, eq=False)
class Trial:
    """A layer with 2:4 weights after both ways were timed.

    Attributes:
        sparse: its weight, if it won; None for dense.
        measured: microseconds of a call, by way; empty if there is only one.
        note: why there is only one, or "".
    """

    sparse: SemiStructured | None
    measured: dict[str, float]
    note: str = ""


def candidates(plan: Plan) -> list[int]:
    """Give the numbers of linear layers of whose weights every four in a row hold at most two that are not zero."""
    found = ((number, op) for number, op in enumerate(plan.operations) if isinstance(op, Synapse) and not op.stride)
    return [number for number, op in found if two_of_four(op.weight)]


def two_of_four(weight: Tensor) -> bool:
    """Whether of every 4 weights in a row along the inputs at most 2 are not zero; the last few count as 4.

    Example:
        >>> two_of_four(torch.tensor([[1.0, 0.0, 2.0, 0.0, 3.0, 4.0]])), two_of_four(torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
        (True, False)
    """
    blocks = F.pad(weight, (0, -weight.shape[1] % BLOCK)).view(-1, BLOCK)
    return bool(((blocks != 0).sum(1) <= ALIVE).all())


def tried(op: Synapse, x: Tensor) -> Trial:
    """Time a linear layer both ways on what reaches it.

    Args:
        op: the layer, whose weight is 2:4.
        x: (..., C_in), on the device and of the dtype that it runs in.
    """
    if x.dtype not in semi_structured.DTYPES:
        return Trial(None, {}, "its weights are 2:4, which pays in half precision only: dtype=torch.bfloat16")
    weight, bias = op.weight.to(x.device, x.dtype), None if op.bias is None else op.bias.to(x.device, x.dtype)
    try:
        sparse = semi_structured.compress(weight, bias)
        measured = {
            DENSE: microseconds(lambda: F.linear(x, weight, bias)),
            SPARSE: microseconds(lambda: semi_structured.linear(x, sparse)),
        }
    except (SparsityError, RuntimeError) as error:  # of torch's product for shapes that it lacks as well
        return Trial(None, {}, f"no 2:4 product: {str(error).splitlines()[0]}")
    return Trial(sparse if measured[SPARSE] < measured[DENSE] else None, measured)


def microseconds(run: Callable[[], Tensor]) -> float:
    """Measure a call on the current CUDA device: the least of some rounds of many calls."""
    for _ in range(WARM):
        run()
    found = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(CALLS):
            run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1000 / CALLS)
    return float(min(found))
