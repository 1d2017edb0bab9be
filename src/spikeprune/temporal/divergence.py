"""How much the output still changes from timestep to timestep, and how many timesteps that makes necessary.

Reading of the paper (Hamza, CQP, arXiv:2606.30676, and its author's notebooks)
  stated    P_t = mean output spikes of the samples at timestep t, normalised over classes; KL_t = sum_c P_{t-1}(c)
            log(P_{t-1}(c) / P_t(c)); t* = the least t at which 95% of the sum of all |KL| is reached; energy (1 - s) t*/T.
  inferred  1e-6 is added to every mean before it is normalised; t* is the index of the term, so it lies in 1 .. T-1.
  differs   `Decision` tells that index (`term`) from the timesteps that are run (`steps`), and gives both savings.
            `per_sample` compares what a decision sees, the running output of each sample; so no constant is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeprune.errors import MeasureError, NonFinite, SparsityError

EPSILON = 1e-6  # the paper's: no class has probability zero


@dataclass(frozen=True)
class Decision:
    """Where a divergence series has reached its share, and the timesteps that this asks for.

    Term r is the change between timesteps r and r + 1; to see it, r + 1 timesteps are run. The paper reports the saving
    of r. There are T - 1 terms, so its index is never T: `floor` = 1/T is the least saving that it can report, even for
    a network that uses every timestep. Read `paper_saving` against that floor; `saving` has none.

    Attributes:
        term: the paper's t*, the 1-based index of the term at which the share is reached; 1 when nothing ever changes.
        steps: the timesteps needed, term + 1; 1 when nothing ever changes.
        timesteps: T.

    Example:
        >>> found = Decision(term=9, steps=10, timesteps=10)
        >>> found.saving, found.paper_saving, found.floor
        (0.0, 0.1, 0.1)
    """

    term: int
    steps: int
    timesteps: int

    @property
    def saving(self) -> float:
        """The share of timesteps that need not be run, (T - steps) / T."""
        return (self.timesteps - self.steps) / self.timesteps

    @property
    def paper_saving(self) -> float:
        """The paper's share, (T - term) / T; never below `floor`."""
        return (self.timesteps - self.term) / self.timesteps

    @property
    def floor(self) -> float:
        """The least that `paper_saving` can be, 1 / T; 0 for a single timestep, which has no term."""
        return 1 / self.timesteps if self.timesteps > 1 else 0.0


def batch_mean(means: Tensor) -> Tensor:
    """Compare the mean output of all samples at each timestep with that at the timestep before: the paper's estimator.

    Args:
        means: (T, C), mean output spikes at each timestep (not added up).

    Returns:
        (T - 1,) float64, in nats.

    Raises:
        NonFinite: a mean is NaN or infinite.
        MeasureError: it is no (T, C), or a mean is negative and so no part of a distribution.

    Example:
        >>> batch_mean(torch.tensor([[1.0, 1.0], [1.0, 1.0], [3.0, 1.0]])).numpy().round(4).tolist()
        [0.0, 0.1438]
    """
    _check(means, "means", ("T", "C"))
    if bool((means < 0).any()):
        raise MeasureError(
            f"{int((means < 0).sum())} of {means.numel()} mean outputs are negative, the least {means.min().item():.4g}: spikes cannot "
            "be. The batch mean estimator is of spikes; use per_sample for a readout that does not spike."
        )
    p = means.double() + EPSILON
    p = p / p.sum(1, keepdim=True)
    return (p[:-1] * (p[:-1] / p[1:]).log()).sum(1)


def per_sample(cumulative: Tensor) -> Tensor:
    """Compare, sample by sample, the softmax of the output added up to each timestep with that up to the one before.

    The softmax of the running output is what cross-entropy and the decision see. Its logarithm is finite, so nothing
    needs to be smoothed.

    Args:
        cumulative: (T, N, C), outputs added up to each timestep.

    Returns:
        (T - 1, N) float64, in nats; its mean over samples is the series.

    Raises:
        NonFinite: an output is NaN or infinite.
        MeasureError: it is no (T, N, C).

    Example:
        >>> running = torch.tensor([[[1.0, 1.0]], [[3.0, 1.0]]]).log()
        >>> per_sample(running).numpy().round(4).tolist()  # from (1/2, 1/2) to (3/4, 1/4)
        [[0.1438]]
    """
    _check(cumulative, "cumulative outputs", ("T", "N", "C"))
    logs = cumulative.double().log_softmax(2)
    return (logs[:-1].exp() * (logs[:-1] - logs[1:])).sum(2)


def decision(series: Tensor | Sequence[float], share: float = 0.95) -> Decision:
    """Find the first term at which the running sum of a divergence series reaches a share of its whole.

    Args:
        series: the T - 1 terms; their absolute values are taken. An empty one stands for T = 1.
        share: of the sum of all terms, in (0, 1].

    Raises:
        NonFinite: a term is NaN or infinite.
        MeasureError: the share lies outside (0, 1], or the series is no list of numbers.

    Example:
        >>> decision([0.5, 0.3, 0.15, 0.05], share=0.75)
        Decision(term=2, steps=3, timesteps=5)
    """
    terms = torch.as_tensor(series, dtype=torch.double).detach().cpu().abs()
    if terms.dim() != 1:
        raise MeasureError(
            f"a divergence series has one axis, (T - 1,); this has shape {tuple(terms.shape)}. Take the mean over samples."
        )
    refuse_share(share, "share")
    _refuse_nonfinite(terms, "terms of the divergence series")
    running = terms.cumsum(0)
    if not len(terms) or not running[-1] > 0:
        return Decision(1, 1, len(terms) + 1)
    # The last running sum is the total: summed in another order it could differ, and a share of 1 never be reached.
    term = int(torch.nonzero(running >= share * running[-1])[0]) + 1
    return Decision(term, term + 1, len(terms) + 1)


def relative_energy(sparsity: float, steps: int, timesteps: int) -> float:
    """Multiply surviving weights by surviving timesteps, the paper's compound arithmetic: (1 - sparsity) * steps / T.

    This presumes that energy is proportional to surviving weights times timesteps, that spike rates do not change with
    either, and that the sparsity given (in the paper, one layer's) stands for the whole network. Report it beside the
    exact energy of SynOps (`course`, `profile`), not in place of it.

    Args:
        sparsity: the fraction of weights removed.
        steps: timesteps run; in the paper t*, which is `Decision.term`.
        timesteps: T.

    Raises:
        SparsityError: the sparsity lies outside [0, 1].
        MeasureError: steps lie outside 1 .. T.

    Example:
        >>> round(relative_energy(0.7, 9, 10), 6)
        0.27
    """
    if not 0 <= sparsity <= 1:
        raise SparsityError(f"sparsity is a fraction of weights, from 0 to 1; got {sparsity}.")
    if not 1 <= steps <= timesteps:
        raise MeasureError(f"steps must be from 1 to T = {timesteps}; got {steps}.")
    return (1 - sparsity) * steps / timesteps


def refuse_share(value: float, what: str) -> None:
    """Raise MeasureError unless the value lies in (0, 1]; `what` names it."""
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise MeasureError(
            f"{what} must be above 0 and at most 1; got {value!r}. Give a fraction, such as 0.95, not a percentage."
        )


def _check(values: Tensor, what: str, axes: tuple[str, ...]) -> None:
    if values.dim() != len(axes) or not values.numel():
        raise MeasureError(f"{what} must be ({', '.join(axes)}), none of them zero; got shape {tuple(values.shape)}.")
    _refuse_nonfinite(values, what)


def _refuse_nonfinite(values: Tensor, what: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFinite(f"{bad} of {values.numel()} {what} are NaN or infinite. Check the batches and the model's weights.")
