"""Ways to come by N:M masks, each within one training of the same length, batches, optimizer and rates.

===============  ======================================================================================
spikenm          learned along with the weights; then they stay
no distillation  alike, without credits
sr-ste           the largest weights at every step; then they stay
asp              dense at first; then the largest weights stay: pruned once, and retrained
unstructured     alike, but of the layers' weights together the largest, as many as the pattern leaves
random           drawn before the first step
===============  ======================================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass

from spikeprune import methods
from spikeprune.decide import in_blocks
from spikeprune.kernel.patterns import NM
from spikeprune.learner import LearnedMethod
from spikeprune.masks import Masks
from spikeprune.pruner import prune
from spikeprune.recipes.train import draw
from spikeprune.view.model_view import ModelView

Once = Callable[[ModelView, NM, int], Masks]


@dataclass(frozen=True)
class Contender:
    """How masks come about.

    Attributes:
        title: in the report.
        learn: makes the method that learns them, from pattern and seed; None for one that decides once.
        once: decides them at one moment, from view, pattern and seed; None for one that learns.
        first: whether before the first step, rather than when learned masks begin to stay.
    """

    title: str
    learn: Callable[[NM, int], LearnedMethod] | None = None
    once: Once | None = None
    first: bool = False


def _one_shot(view: ModelView, pattern: NM, _: int) -> Masks:
    return prune(view, methods.Magnitude(pattern=pattern))


def _unstructured(view: ModelView, pattern: NM, _: int) -> Masks:
    names = [layer.name for layer in in_blocks(view, pattern)]
    return prune(view, methods.Magnitude(), 1 - pattern.n / pattern.m, layers=names)


def _random(view: ModelView, pattern: NM, seed: int) -> Masks:
    return prune(view, methods.Random(draw(seed, "random"), pattern=pattern))


CONTENDERS = {
    "spikenm": Contender("SpikeNM", lambda p, seed: methods.SpikeNM(p.n, p.m, seed=draw(seed, "draws"))),
    "no distillation": Contender(
        "SpikeNM without distillation", lambda p, seed: methods.SpikeNM(p.n, p.m, distill=0, seed=draw(seed, "draws"))
    ),
    "sr-ste": Contender("SR-STE", lambda p, _: methods.SRSTE(p.n, p.m)),
    "asp": Contender("magnitude N:M, retrained (ASP)", once=_one_shot),
    "unstructured": Contender("unstructured magnitude, retrained", once=_unstructured),
    "random": Contender("random N:M", once=_random, first=True),
}
FEW = ("spikenm", "sr-ste", "asp")
