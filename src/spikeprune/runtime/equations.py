"""Integrate and fire, and its gradient, each equation written once.

They are given whatever adds, multiplies and has `abs`, `exp` and `clamp_min`: tensors, or the numbers of a native kernel. The
order of the operations is that of SpikingJelly 2.0, so that in float32 its spikes and ours are equal bit by bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spikeprune.errors import RecipeError

Number = Any  # a Tensor, or spikeprune.runtime.code.Number
One = Number | float


def _sigmoid(x: Number, alpha: float) -> Number:
    tail = (-abs(x * alpha)).exp()  # sigmoid'(x) = sigmoid'(-x): of the two, the exponential that cannot overflow
    return alpha * tail / ((1 + tail) * (1 + tail))


def _atan(x: Number, alpha: float) -> Number:
    z = x * (math.pi / 2 * alpha)
    return (alpha / 2) / (1 + z * z)


def _piecewise_quadratic(x: Number, alpha: float) -> Number:
    return (alpha - alpha * alpha * abs(x)).clamp_min(0.0)


def _piecewise_exp(x: Number, alpha: float) -> Number:
    return (alpha / 2) * (-alpha * abs(x)).exp()


def _soft_sign(x: Number, alpha: float) -> Number:
    z = 1 / alpha + abs(x)
    return 1 / (2 * alpha * z * z)


def _super_spike(x: Number, alpha: float) -> Number:
    z = 1 + abs(x)
    return alpha / (z * z)


def _erf(x: Number, alpha: float) -> Number:
    z = alpha * x
    return (alpha / math.sqrt(math.pi)) * (-z * z).exp()


# Surrogate gradient at a distance from the threshold, by name and steepness alpha.
SLOPES: dict[str, Callable[[Number, float], Number]] = {
    "atan": _atan,
    "erf": _erf,
    "piecewise_exp": _piecewise_exp,
    "piecewise_quadratic": _piecewise_quadratic,
    "sigmoid": _sigmoid,
    "soft_sign": _soft_sign,
    "super_spike": _super_spike,
}


@dataclass(frozen=True)
class IntegrateAndFire:
    """A neuron over timesteps: charge h[t], spike s[t] = 1 where h[t] >= threshold, membrane v[t].

    ::

        tau None                h[t] = v[t-1] + x[t]
        tau                     h[t] = v[t-1] + (x[t] - (v[t-1] - v_rest)) / tau
        tau, no decay_input     h[t] = v[t-1] - (v[t-1] - v_rest) / tau + x[t]
        hard reset              v[t] = s[t] reset + (1 - s[t]) h[t]
        soft reset              v[t] = h[t] - s[t] threshold

    v_rest is the value of the hard reset, and 0 under the soft one.

    Attributes:
        tau: time constant in timesteps; None for no leak.
        decay_input: whether the input is divided by tau too. Unused without leak.
        threshold: the charge at which it fires.
        reset: the membrane after a spike; None for the soft reset.
        surrogate: the gradient of a spike by its charge, by name: one of SLOPES.
        alpha: its steepness.
        detach_reset: whether no gradient flows through the spike of a reset.

    Raises:
        RecipeError: an unknown surrogate, a tau of 1 or less, or a number that is not finite.

    Example:
        >>> IntegrateAndFire(tau=2.0).charge(0.5, 1.5)
        1.0
    """

    tau: float | None = None
    decay_input: bool = True
    threshold: float = 1.0
    reset: float | None = 0.0
    surrogate: str = "atan"
    alpha: float = 2.0
    detach_reset: bool = True

    def __post_init__(self) -> None:
        if self.surrogate not in SLOPES:
            raise RecipeError(f"the surrogate is {self.surrogate!r}, but must be one of {', '.join(SLOPES)}.")
        if self.tau is not None and not self.tau > 1:
            raise RecipeError(f"tau is {self.tau}, but a leaky neuron needs a time constant above 1 timestep; None is no leak.")
        for what in ("tau", "threshold", "reset", "alpha"):
            if (value := getattr(self, what)) is not None and not math.isfinite(value):
                raise RecipeError(f"{what} is {value}, but must be a finite number.")

    def charge(self, v: One, x: One) -> Number:
        """Return h[t] of v[t-1] and x[t]."""
        if self.tau is None:
            return v + x
        leak = v - (self.reset or 0.0)
        return v + (x - leak) / self.tau if self.decay_input else v - leak / self.tau + x

    def membrane(self, h: One, s: One) -> Number:
        """Return v[t] of h[t] and s[t]."""
        return h - s * self.threshold if self.reset is None else s * self.reset + (1.0 - s) * h

    def slope(self, h: One) -> Number:
        """Return ds[t] / dh[t], the surrogate gradient."""
        return SLOPES[self.surrogate](h - self.threshold, self.alpha)

    def to_charge(self, ds: One, dv: One, h: One, s: One) -> Number:
        """Return the gradient of h[t], given those of s[t] and of v[t]."""
        slope = self.slope(h)
        if self.reset is None:
            kept = 1.0 if self.detach_reset else 1.0 - self.threshold * slope
        else:
            kept = 1.0 - s
            if not self.detach_reset:
                kept = kept + (self.reset - h) * slope
        return ds * slope + dv * kept

    def to_input(self, dh: One) -> Number:
        """Return the gradient of x[t], given that of h[t]."""
        return dh if self.tau is None or not self.decay_input else dh / self.tau

    def to_before(self, dh: One) -> Number:
        """Return the gradient of v[t-1], given that of h[t]."""
        return dh if self.tau is None else dh - dh / self.tau
