"""The neuron of a deep network as one value, built anew for every layer."""

from dataclasses import dataclass
from typing import Any, Literal, final

from torch import Tensor, nn

from spikeprune.errors import MissingExtra, RecipeError
from spikeprune.zoo.fused import SURROGATES, FusedIF, FusedLIF
from spikeprune.zoo.names import unknown

try:
    from spikingjelly.activation_based.base import MemoryModule
    from spikingjelly.activation_based.neuron import ParametricLIFNode
except ImportError as error:
    raise MissingExtra.of("spikingjelly", "spikingjelly", "the deep networks") from error

SPIKING = {"if": FusedIF, "lif": FusedLIF, "plif": ParametricLIFNode}
KINDS = (*SPIKING, "relu")


@final
class ReLU(MemoryModule):  # type: ignore[misc]
    """The activation of an ANN twin: max(0, x), of each timestep by itself.

    It stands where a neuron stands and takes what a neuron takes, (T, N, ...), but keeps no state and is no spiking neuron.

    Example:
        >>> import torch
        >>> ReLU()(torch.tensor([[-1.0], [2.0]])).flatten()
        tensor([0., 2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Give max(0, x), of any shape."""
        return x.relu()


@dataclass(frozen=True)
class Neuron:
    """Integrate and fire, with or without leak: s[t] = 1 where h[t] >= threshold; or, for the ANN twin of a network, a ReLU.

    Charge h[t] of input x[t] and membrane v[t]::

        if                          h[t] = v[t-1] + x[t]
        lif, plif                   h[t] = v[t-1] + (x[t] - v[t-1]) / tau
        lif, plif, no decay_input   h[t] = v[t-1] (1 - 1 / tau) + x[t]
        hard reset                  v[t] = h[t] (1 - s[t])
        soft reset                  v[t] = h[t] - threshold s[t]

    There is no choice of backend: SpikingJelly 2.0 takes its CUDA or Triton kernels wherever the tensors lie on a GPU, and on the
    CPU "if" and "lif" take a native kernel if llvmlite is installed (the extra `runtime`); see `spikeprune.zoo.fused`.

    A network of "relu" has no spiking neurons: build it with `timesteps=1, coding="direct"` and view it with `spiking=False`. Its
    parameters have the names and shapes of those of the spiking network, so that weights go from one to the other.

    Attributes:
        kind: "if"; "lif"; "plif", whose tau is learned, one a layer; or "relu", to which all other options mean nothing.
        tau: membrane time constant in timesteps, above 1; the decay of a timestep is 1 - 1 / tau. Unused by "if".
        threshold: the potential at which it fires.
        reset: "hard", to zero, or "soft", by subtraction.
        surrogate: SpikingJelly's surrogate gradient, by name, with its default steepness.
        detach_reset: whether no gradient flows through the reset.
        decay_input: whether a leaky neuron's input decays too. Unused by "if".

    Raises:
        RecipeError: an unknown name, or an impossible value.

    Example:
        >>> Neuron("lif", tau=4 / 3, reset="soft")
        Neuron(kind='lif', tau=1.3333333333333333, threshold=1.0, reset='soft', surrogate='atan', detach_reset=True, decay_input=True)
    """

    kind: Literal["if", "lif", "plif", "relu"] = "lif"
    tau: float = 2.0
    threshold: float = 1.0
    reset: Literal["hard", "soft"] = "hard"
    surrogate: str = "atan"
    detach_reset: bool = True
    decay_input: bool = True

    def __post_init__(self) -> None:
        for what, known in (("kind", KINDS), ("reset", ("hard", "soft")), ("surrogate", SURROGATES)):
            if (word := getattr(self, what)) not in known:
                raise RecipeError(f"neuron: {unknown(what, word, known)}")
        if self.kind in ("lif", "plif") and not self.tau > 1:
            raise RecipeError(f"neuron: tau is {self.tau}, but a leaky neuron needs a time constant above 1 timestep.")
        if not self.threshold > 0:
            raise RecipeError(f"neuron: the threshold is {self.threshold}, but must be above 0.")

    def build(self) -> nn.Module:
        """Build one SpikingJelly neuron, or a ReLU, which takes all timesteps at once: (T, N, ...)."""
        if self.kind == "relu":
            return ReLU()
        leak: dict[str, Any] = {} if self.kind == "if" else {"decay_input": self.decay_input}
        if self.kind != "if":
            leak["init_tau" if self.kind == "plif" else "tau"] = float(self.tau)
        node: nn.Module = SPIKING[self.kind](
            v_threshold=float(self.threshold),
            v_reset=0.0 if self.reset == "hard" else None,
            surrogate_function=SURROGATES[self.surrogate](),
            detach_reset=self.detach_reset,
            step_mode="m",
            **leak,
        )
        return node


# lambda 0.9901, soft reset, triangle: what Chowdhury, Garg and Roy train with.
HYBRID = Neuron("lif", tau=101.0, reset="soft", surrogate="piecewise_quadratic", decay_input=False)
# The code of SCA: SpikingJelly's IF as it comes.
SCA = Neuron("if", surrogate="sigmoid", detach_reset=False)
# The code of UPR.
UPR = Neuron("lif")
# The code of LTH-SNN, as to tau.
LTH = Neuron("lif", tau=4 / 3)
