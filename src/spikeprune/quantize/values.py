"""What quantizing a model found: integers and steps by layer name; a file of them, and how large they are."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeprune.errors import ModelError, QuantizeError, StorageError
from spikeprune.files import write_tensors
from spikeprune.kernel.quantize import check_bits, exact_bias, exact_step, from_integers, largest
from spikeprune.masks import FORMAT, read

HOLDS = "integers and steps"
PARTS = ("integers", "step", "bits", "snr")


@dataclass(frozen=True, eq=False)
class Quantized:
    """One layer's weight as integers and a step.

    Attributes:
        integers: int8 of the weight's shape, in [-Q, Q].
        step: float32 of shape (), or (C_out,); of 17 significant bits.
        bits: 1 to 8.
        snr: signal-to-noise ratio in dB: the weight's power over that of what quantizing changed; infinite if that was nothing.
    """

    integers: Tensor
    step: Tensor
    bits: int
    snr: float

    @classmethod
    def of(cls, weight: Tensor, integers: Tensor, step: Tensor, bits: int) -> "Quantized":
        """Note integers and steps that stand for a weight."""
        wide = weight.detach().double()
        noise = float((wide - from_integers(integers, step, torch.double)).square().sum())
        signal = float(wide.square().sum())
        return cls(integers, step, bits, 10 * math.log10(signal / noise) if signal and noise else math.inf)

    def weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Give step * integers: exact in float32 and float64."""
        return from_integers(self.integers, self.step, dtype)

    @property
    def bytes(self) -> int:
        """Size of the integers packed at their bits, and of the steps at 4 bytes."""
        return math.ceil(self.integers.numel() * self.bits / 8) + 4 * self.step.numel()

    @property
    def used(self) -> float:
        """Share of the integers in [-Q, Q] that occur at least once."""
        return len(torch.unique(self.integers)) / (2 * largest(self.bits) + 1)


class Quantization(Mapping[str, Quantized]):
    """Integers and steps by layer name. Layers without an entry are in floating point.

    Example:
        >>> weight, step = torch.tensor([[0.5, -0.25]]), torch.tensor(0.25)
        >>> found = Quantization({"fc": Quantized.of(weight, torch.tensor([[2, -1]], dtype=torch.int8), step, 4)})
        >>> print(found.describe())
        layer  bits  step    used  SNR (dB)  bytes
        fc        4  0.25  13.3 %       inf      5
    """

    def __init__(self, layers: Mapping[str, Quantized]) -> None:
        self._layers = dict(layers)

    def __getitem__(self, name: str) -> Quantized:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        weights = sum(layer.integers.numel() for layer in self.values())
        return f"Quantization({len(self)} layers, {weights:,} weights in {self.bytes:,} bytes)"

    @property
    def bytes(self) -> int:
        """Size of all integers, packed at their bits, and steps. Of 1 bit it leaves out which weights are zero."""
        return sum(layer.bytes for layer in self.values())

    def describe(self) -> str:
        """Tell each layer in a line: bits, the largest step, the share of integers that occur, signal-to-noise ratio, bytes."""
        rows = [("layer", "bits", "step", "used", "SNR (dB)", "bytes")]
        for name, x in self.items():
            step = f"{float(x.step.max()):.4g}"
            rows.append((name, str(x.bits), step, f"{100 * x.used:.1f} %", f"{x.snr:.1f}", f"{x.bytes:,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)

    @torch.no_grad()
    def apply_(self, net: nn.Module) -> None:
        """Write step * integers into a model of the same form, and round its own biases to their steps' last places.

        Raises:
            QuantizeError: the model has no such layer, or one of another shape; it is left as it was.
            ModelError: a weight is parametrized.
        """
        modules = dict(net.named_modules())
        for name, layer in self.items():
            _check_fits(name, layer, modules.get(name))
        for name, layer in self.items():
            weight, bias = modules[name].weight, getattr(modules[name], "bias", None)
            assert isinstance(weight, Tensor)
            weight.copy_(from_integers(layer.integers.to(weight.device), layer.step.to(weight.device), weight.dtype))
            if isinstance(bias, Tensor):
                bias.copy_(exact_bias(bias, layer.step.to(bias.device)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write integers and steps as one safetensors file, in one step.

        Biases, corrected or folded ones too, are the model's and not in it; save the model beside it.
        """
        tensors: dict[str, Tensor] = {}
        for name, x in self.items():
            values = (x.integers, x.step, torch.tensor(x.bits), torch.tensor(x.snr, dtype=torch.double))
            tensors |= {f"{part}.{name}": value for part, value in zip(PARTS, values, strict=True)}
        write_tensors(path, tensors, {"format": FORMAT, "holds": HOLDS, "layers": "\n".join(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Quantization":
        """Read what `save` wrote.

        Raises:
            StorageError: the file is missing or damaged, or holds something else.
        """
        tensors, metadata = read(path, HOLDS)
        names = metadata.get("layers", "").split("\n") if tensors else []
        return cls({name: _unpacked(path, name, tensors) for name in names})


def _unpacked(path: str | os.PathLike[str], name: str, tensors: Mapping[str, Tensor]) -> Quantized:
    try:
        integers, step, bits, snr = (tensors[f"{part}.{name}"] for part in PARTS)
        k = check_bits(int(bits))
    except (KeyError, ValueError, RuntimeError, QuantizeError) as error:
        raise StorageError(f"{path} does not hold integers, step and bits of layer {name!r} ({error}). Make it anew.") from error
    low, high = (int(x) for x in integers.aminmax()) if integers.numel() else (0, 0)
    whole = integers.dtype == torch.int8 and max(-low, high) <= largest(k)
    steps = step.shape in ((), integers.shape[:1]) and bool((step > 0).all()) and torch.equal(exact_step(step), step)
    if not whole or not steps:
        raise StorageError(
            f"{path}: layer {name!r} has {integers.dtype} from {low} to {high} for {k} bits, and a step of shape {tuple(step.shape)}; this "
            "is not what was saved. Make it anew."
        )
    return Quantized(integers, step, k, float(snr))


def _check_fits(name: str, layer: Quantized, module: nn.Module | None) -> None:
    weight = getattr(module, "weight", None)
    if weight is not None and not isinstance(weight, nn.Parameter):
        raise ModelError(f"the weight of layer {name!r} is no longer a plain parameter; undo what parametrized it.")
    found = None if weight is None else tuple(weight.shape)
    if found != tuple(layer.integers.shape):
        raise QuantizeError(
            f"there are integers of shape {tuple(layer.integers.shape)} for layer {name!r}, where the model has {found or 'nothing'}. They "
            "belong to the model they were made from; quantize this one, or load the model they go with."
        )
