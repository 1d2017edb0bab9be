"""Principal components of channels from a running scatter: how many dimensions matter, and which channels lead."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spikeprune.errors import MeasureError


@dataclass(frozen=True, eq=False)
class Scatter:
    """What is kept of samples of C channels: their number, mean, and centred products. No sample is stored.

    Attributes:
        samples: how many.
        mean: float64 (C,).
        products: sum of (x - mean) (x - mean)^T over samples, float64 (C, C).

    Example:
        >>> Scatter.of(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).products
        tensor([[2., 4.],
                [4., 8.]], dtype=torch.float64)
    """

    samples: int
    mean: Tensor
    products: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Scatter":
        """Take samples (N, C), at least one."""
        x = x.double()
        mean = x.mean(0)
        x = x - mean
        return cls(x.shape[0], mean, x.T @ x)

    def joined(self, other: "Scatter") -> "Scatter":
        """Add more samples of the same: their common mean is taken out.

        Source: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
        """
        samples = self.samples + other.samples
        apart, share = other.mean - self.mean, other.samples / samples
        products = self.products + other.products + torch.outer(apart, apart) * (self.samples * share)
        return Scatter(samples, self.mean + apart * share, products)

    def pooled(self, other: "Scatter") -> "Scatter":
        """Put beside it the same channels seen at another place, whose mean is its own."""
        samples = self.samples + other.samples
        return Scatter(samples, (self.mean * self.samples + other.mean * other.samples) / samples, self.products + other.products)

    @cached_property
    def spectrum(self) -> Tensor:
        """The eigenvalues of the products, falling, float64 (C,); those that are rounding errors of zero are zero."""
        found = torch.linalg.eigvalsh(self.products).flip(0).clamp_min(0)
        noise = found.numel() * torch.finfo(torch.double).eps * found[0]
        return torch.where(found > noise, found, 0.0)


def significant(scatter: Scatter, variance: float) -> int:
    """Count the principal components that explain at least a share of the variance: the fewest that do, one or more.

    Args:
        scatter: of C channels.
        variance: the share, in (0, 1].

    Raises:
        MeasureError: nothing varies.

    Example:
        >>> significant(Scatter.of(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])), 0.999)
        1
    """
    spectrum = scatter.spectrum
    total = spectrum.sum()
    if not float(total) > 0:
        raise MeasureError(
            f"none of the {spectrum.numel()} channels varies over {scatter.samples} samples: all of them are dead."
        )
    explained = spectrum.cumsum(0)
    # What the components that are not zero explain together is all, whatever the sum rounds to.
    return int(torch.minimum((explained < variance * total).sum() + 1, (spectrum > 0).sum()))


def leading(scatter: Scatter) -> Tensor:
    """Rank channels: the one of largest variance first, then always the one that those before explain least; (C,), best first.

    This is a Cholesky decomposition with pivots. Channels that are explained wholly come last, in their order.

    Example:
        >>> leading(Scatter.of(torch.tensor([[3.0, 3.0, 0.0], [-3.0, -3.0, 1.0], [0.0, 0.0, -1.0]]))).tolist()
        [0, 2, 1]
    """
    left = scatter.products.clone()
    noise = left.shape[0] * torch.finfo(torch.double).eps * left.diagonal().max()
    order: list[int] = []
    while (free := left.diagonal()).max() > noise:
        best = int(free.argmax())
        order.append(best)
        left = left - torch.outer(left[:, best], left[best]) / left[best, best]
        left[best], left[:, best] = 0.0, 0.0
    rest = [i for i in range(left.shape[0]) if i not in order]
    return torch.tensor(order + rest)
