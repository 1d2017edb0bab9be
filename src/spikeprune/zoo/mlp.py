"""The fully connected LIF network of the CQP paper, on snnTorch neurons."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from spikeprune.errors import MissingExtra, RecipeError

try:
    import snntorch
except ImportError as error:
    raise MissingExtra.of("snntorch", "recipes", "the spiking MLP") from error


class SpikingMLP(nn.Module):
    """Linear layers `fc1`, `fc2`, ... each followed by a LIF neuron `lif1`, `lif2`, ...; the output is the spike count.

    The image drives the first layer as a constant current (direct coding). Without input noise that current is the same
    at every timestep, so `fc1` is computed once for all of them; with noise it is computed anew at each.

    Neurons: v[t] = beta v[t-1] + current - threshold s[t-1], s = 1 where v > 1; ATan surrogate.

    Source: the CQP paper's network, 784-256-128-10, beta 0.9, T = 10 (arXiv:2606.30676 and its author's notebooks).

    Args:
        sizes: neurons of every layer, inputs first.
        beta: decay of the membrane each timestep, in (0, 1].
        timesteps: T.
        dropout: share of first-layer spikes dropped in training, anew at each timestep.
        noise: standard deviation of Gaussian noise added to the input in training, anew at each timestep.

    Example:
        >>> SpikingMLP((784, 256, 128, 10))(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, sizes: Sequence[int], *, beta: float = 0.9, timesteps: int = 10, dropout: float = 0.0, noise: float = 0.0
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1 or timesteps < 1:
            raise RecipeError(
                f"a spiking MLP needs two sizes or more, and one timestep or more; got {tuple(sizes)} and T = {timesteps}."
            )
        self.depth, self.timesteps, self.noise = len(sizes) - 1, timesteps, noise
        for i, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"fc{i}", nn.Linear(n_in, n_out))
            self.add_module(f"lif{i}", snntorch.Leaky(beta=beta))
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Run all timesteps; images (N, ...) in [0, 1] to spike counts (N, classes)."""
        images = images.flatten(1)
        noisy = self.noise > 0 and self.training
        membranes = [self.get_submodule(f"lif{i}").reset_mem() for i in range(1, self.depth + 1)]  # type: ignore[operator]
        current: Tensor = images if noisy else self.get_submodule("fc1")(images)
        count = images.new_zeros(())
        for _ in range(self.timesteps):
            if noisy:
                current = self.get_submodule("fc1")(images + self.noise * torch.randn_like(images))
            spikes = current
            for i in range(1, self.depth + 1):
                if i > 1:
                    spikes = self.get_submodule(f"fc{i}")(self.dropout(spikes) if i == 2 else spikes)
                spikes, membranes[i - 1] = self.get_submodule(f"lif{i}")(spikes, membranes[i - 1])
            count = count + spikes
        return count
