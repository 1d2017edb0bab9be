"""How few bits: quantize copies at each number of bits, and evaluate them."""

from collections.abc import Callable, Iterable
from typing import Any

from spikeprune.kernel.quantize import check_bits
from spikeprune.quantize.weights import quantize_
from spikeprune.view.model_view import ModelView, check_view


def bit_sweep(
    view: ModelView, evaluate: Callable[[ModelView], float], bits: Iterable[int] = (8, 7, 6, 5, 4, 3, 2), **options: Any
) -> dict[int, float]:
    """Evaluate copies of a model that are quantized to each number of bits; the model itself is left as it is.

    Args:
        view: the model.
        evaluate: `evaluate(view)` to a number, such as the accuracy.
        bits: what to try.
        options: those of `quantize_`; calibration batches as a list, since they are used more than once.

    Raises:
        QuantizeError, NoPrunableLayers, NonFinite, EmptyCalibration: as `quantize_`.

    Example:
        >>> import torch
        >>> from spikeprune import model_view
        >>> view = model_view(torch.nn.Linear(4, 2), torch.rand(1, 4), spiking=False)
        >>> errors = bit_sweep(view, lambda copy: (copy.net.weight - view.net.weight).abs().max().item(), bits=(8, 2))
        >>> errors[8] < errors[2]
        True
    """
    check_view(view)
    wanted = [check_bits(value) for value in bits]
    found = {}
    for value in wanted:
        copy = view.clone()
        quantize_(copy, value, **options)
        found[value] = evaluate(copy)
    return found
