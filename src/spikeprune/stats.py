"""What a measuring pass can be asked for, and what it gives: means by layer, and NotMeasured for all that was not asked."""

from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType

from torch import Tensor

from spikeprune.errors import NotMeasured
from spikeprune.kernel.pca import Scatter


class Need(Enum):
    """A statistic that a method or a metric asks the pass for.

    Example:
        >>> from spikeprune import methods
        >>> Need.WEIGHT_GRADIENT in methods.CQP().needs
        True
    """

    WEIGHT_GRADIENT = "weight_gradient"
    """Mean over batches of |dL/dw|, each weighing as many samples as it has, through the surrogate and all timesteps; of the
    weight's shape. L is a batch's mean loss: with larger batches, gradients of opposite sign cancel before the absolute value."""
    ELIGIBILITY = "eligibility"
    """Mean over batches of |sum of dL/ds[t] psi[t] a[t]| over samples, timesteps and places, weighted as WEIGHT_GRADIENT and of the
    weight's shape: s are the spikes of the neuron that the layer drives, psi is the slope of its surrogate, and a the trace of
    TRACE_POWER. The credit of e-prop, which no reset cuts short; see `measure.eligibility`. Without a neuron, |dL/dw|."""
    INPUT_COUNT = "input_count"
    """Mean number of non-zero inputs a sample; (T, channels, space ...), or (1, ...) for a layer called once a pass."""
    INPUT_POWER = "input_power"
    """Mean squared input of each channel a sample, summed over places; (T, C_in), also for a layer called once a pass."""
    TRACE_POWER = "trace_power"
    """The same of the leaky trace of the inputs, a[t] = leak a[t-1] + s[t], with the leak of the neuron that the layer drives."""
    STEP_WEIGHT = "step_weight"
    """Mean |dL/dh[t]|^2 a sample of the neurons that the layer drives, up to one factor for all timesteps; (T,)."""
    NEAR_THRESHOLD = "near_threshold"
    """Share of the neurons that the layer drives whose charge lies within half a threshold of the threshold; (T,)."""
    SPIKE_RATE = "spike_rate"
    """Spikes a neuron and timestep of every neuron layer; (T,), read from `Stats.rates`."""
    CHANNEL_MEMBRANE = "channel_membrane"
    """Mean |v[t]| after the reset, over samples, timesteps and places, of the neurons that each output channel passes; (C_out,)."""
    CHANNEL_RATE = "channel_rate"
    """Spikes a neuron and timestep of each output channel; (C_out,)."""
    GAIN_GRADIENT = "gain_gradient"
    """Mean over batches of |dL/d gain| of the norm behind each output channel, weighted as WEIGHT_GRADIENT; (C_out,)."""
    CURRENT_SCATTER = "current_scatter"
    """How the output channels vary together: a `kernel.pca.Scatter` of the current that each neuron gets, a mean over timesteps."""
    CHARGE_SCATTER = "charge_scatter"
    """The same of the charge, which knows leak and resets."""


GRADIENTS = frozenset({Need.WEIGHT_GRADIENT, Need.ELIGIBILITY, Need.STEP_WEIGHT, Need.GAIN_GRADIENT})
# Told by timestep at a layer rather than at a neuron: step weights are, where a layer drives none.
AT_LAYERS = frozenset({Need.INPUT_COUNT, Need.INPUT_POWER, Need.TRACE_POWER, Need.STEP_WEIGHT})


class LayerStats:
    """What was gathered of one layer; reading what was not gathered raises NotMeasured."""

    def __init__(
        self,
        name: str,
        values: Mapping[Need, Tensor | Scatter],
        *,
        binary: bool,
        absent: Mapping[Need, str] = MappingProxyType({}),
    ) -> None:
        self._name, self._values, self._binary, self._absent = name, values, binary, absent

    @property
    def weight_gradient(self) -> Tensor:
        """Mean over batches, weighted by their samples, of |dL/dw|; float64, of the weight's shape."""
        return self._tensor(Need.WEIGHT_GRADIENT)

    @property
    def eligibility(self) -> Tensor:
        """Mean over batches, weighted by their samples, of each weight's credit by way of spikes; float64, of the weight's shape."""
        return self._tensor(Need.ELIGIBILITY)

    @property
    def input_count(self) -> Tensor:
        """Mean number of non-zero inputs a sample, float64: (T, channels, space ...), or (1, ...) if called once a pass."""
        return self._tensor(Need.INPUT_COUNT)

    @property
    def input_power(self) -> Tensor:
        """Mean squared input a sample, float64: (T, C_in)."""
        return self._tensor(Need.INPUT_POWER)

    @property
    def trace_power(self) -> Tensor:
        """Mean squared leaky trace of the inputs a sample, float64: (T, C_in)."""
        return self._tensor(Need.TRACE_POWER)

    @property
    def step_weight(self) -> Tensor:
        """Mean |dL/dh[t]|^2 a sample at the neurons that the layer drives, float64: (T,)."""
        return self._tensor(Need.STEP_WEIGHT)

    @property
    def near_threshold(self) -> Tensor:
        """Share of the neurons that the layer drives whose charge is near their threshold, float64: (T,)."""
        return self._tensor(Need.NEAR_THRESHOLD)

    @property
    def channel_membrane(self) -> Tensor:
        """Mean |v| after the reset, float64 (C_out,); over the neurons that the channels of the layer's family pass."""
        return self._tensor(Need.CHANNEL_MEMBRANE)

    @property
    def channel_rate(self) -> Tensor:
        """Spikes a neuron and timestep, float64 (C_out,); over the neurons that the channels of the layer's family pass."""
        return self._tensor(Need.CHANNEL_RATE)

    @property
    def gain_gradient(self) -> Tensor:
        """Mean |dL/d gain|, float64 (C_out,); over the norms behind the channels of the layer's family."""
        return self._tensor(Need.GAIN_GRADIENT)

    @property
    def current_scatter(self) -> Scatter:
        """Scatter of the time-averaged currents of C_out channels, over samples and places of the neurons that the family's channels pass."""
        return self._scatter(Need.CURRENT_SCATTER)

    @property
    def charge_scatter(self) -> Scatter:
        """The same of the charge."""
        return self._scatter(Need.CHARGE_SCATTER)

    @property
    def binary_input(self) -> bool:
        """Whether every input seen was -1, 0 or 1: then a synapse adds; otherwise it multiplies and adds."""
        self._read(Need.INPUT_COUNT)
        return self._binary

    def _tensor(self, need: Need) -> Tensor:
        found = self._read(need)
        assert isinstance(found, Tensor)
        return found

    def _scatter(self, need: Need) -> Scatter:
        found = self._read(need)
        assert isinstance(found, Scatter)
        return found

    def _read(self, need: Need) -> Tensor | Scatter:
        if need not in self._values:
            why = self._absent.get(need, f"; add Need.{need.name} to the needs of measure().")
            raise NotMeasured(f"{need.value} of layer {self._name!r} was not gathered{why}")
        return self._values[need]


class Stats(Mapping[str, LayerStats]):
    """Means from one pass, by layer name, and how large the pass was."""

    def __init__(self, layers: Mapping[str, LayerStats], rates: Mapping[str, Tensor] | None, batches: int, samples: int) -> None:
        self._layers, self._rates = layers, rates
        self.batches, self.samples = batches, samples

    @property
    def rates(self) -> Mapping[str, Tensor]:
        """Spikes a neuron and timestep, float64 (T,), by the neuron layer's name."""
        if self._rates is None:
            raise NotMeasured("spike rates were not gathered; add Need.SPIKE_RATE to the needs of measure().")
        return self._rates

    def __getitem__(self, name: str) -> LayerStats:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)
