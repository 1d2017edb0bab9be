"""How the numbers of a study become verdicts: one rule for all papers."""

from collections.abc import Sequence

from spikeprune.report.findings import Spread
from spikeprune.report.page import Verdict

BEYOND = "the mean over seeds is larger than its sample standard deviation (of one seed: larger than 0)"


def ahead(found: Spread) -> bool:
    """Whether a difference is positive beyond its spread; of one seed, whether it is positive.

    Example:
        >>> ahead(Spread.of([1.0, 2.0])), ahead(Spread.of([-1.0, 2.0])), ahead(Spread.of([0.1]))
        (True, False, True)
    """
    return found.mean > 0 and found.clear is not False


def by_share(held: Sequence[bool]) -> Verdict:
    """Turn the tests of one claim into a verdict: all, some or none hold.

    Example:
        >>> by_share([True, True]), by_share([True, False]), by_share([False]), by_share([])
        ('reproduced', 'partly', 'refuted', 'not tested')
    """
    if not held:
        return "not tested"
    return "reproduced" if all(held) else "partly" if any(held) else "refuted"
