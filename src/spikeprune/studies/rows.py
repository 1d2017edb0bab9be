"""The rows of a study, asked by their facts: what every table and figure is made from."""

from collections.abc import Iterable, Iterator
from typing import Any

from spikeprune.errors import MeasureError
from spikeprune.report.findings import Spread
from spikeprune.studies.ledger import Row


class Rows:
    """Finished trials of all seeds.

    Example:
        >>> rows = Rows([{"part": "alpha", "alpha": 0.5, "seed": s, "accuracy": a} for s, a in [(0, 0.9), (1, 0.8)]])
        >>> rows.where(alpha=0.5).by_seed("accuracy"), f"{rows.percent('accuracy'):.1f}"
        ({0: 0.9, 1: 0.8}, '85.0 ± 7.1')
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, **facts: Any) -> "Rows":
        """Pick the rows in which all of the facts hold."""
        return Rows(row for row in self._rows if all(key in row and row[key] == value for key, value in facts.items()))

    def distinct(self, name: str) -> list[Any]:
        """Give the values of a fact, each once, in the order in which they were tried."""
        return list(dict.fromkeys(row[name] for row in self._rows))

    def by_seed(self, name: str, factor: float = 1.0) -> dict[int, float]:
        """Give one number a seed.

        Raises:
            MeasureError: no row, or two of one seed: the facts do not single out a trial.
        """
        found = {row["seed"]: factor * row[name] for row in self._rows}
        if not found or len(found) < len(self._rows):
            raise MeasureError(f"{len(self._rows)} rows of {len(found)} seeds hold {name!r}, where one a seed is needed.")
        return found

    def spread(self, name: str, factor: float = 1.0) -> Spread:
        """Give mean and deviation over the seeds."""
        return Spread.of(self.by_seed(name, factor).values())

    def percent(self, name: str) -> Spread:
        """Give mean and deviation of a share, in percent."""
        return self.spread(name, 100.0)

    def series(self, x: str, y: str, *, x_factor: float = 1.0, y_factor: float = 1.0) -> dict[float, list[float]]:
        """Give x -> the values of y, one a seed."""
        return {
            round(x_factor * value, 9): list(self.where(**{x: value}).by_seed(y, y_factor).values()) for value in self.distinct(x)
        }
