"""What can go wrong, as one tree; every message says what, where, with which numbers, and what to do.

::

    SpikepruneError
    ├── SparsityError        a sparsity outside [0, 1), or one that no allocation can meet
    ├── ScheduleError        a schedule whose targets or steps make no sense
    ├── MethodError          something that is no method, pattern or allocation
    ├── ModelError           a model we cannot view
    │   ├── NoPrunableLayers     nothing to prune, or a layer name that fits none
    │   ├── LayoutError          a tensor whose time or batch axis cannot be told
    │   └── PlanError            a network that no plan is made of, or a plan that is not the network
    ├── MeasureError         a measuring pass that cannot give what was asked
    │   ├── EmptyCalibration     no batch in the calibration data
    │   ├── MissingLoss          a statistic that takes gradients, without a loss_fn
    │   └── NotMeasured          a statistic read that was never gathered
    ├── NonFinite            NaN or infinity in weights, gradients or scores
    ├── MaskMismatch         a mask made for another model
    ├── ShrinkError          a smaller network that cannot run, or is not the same
    ├── QuantizeError        bits outside 1 to 8, or a network that cannot be quantized, folded or balanced
    ├── UnsupportedOptimizer an optimizer whose memory `hold` cannot reach
    ├── DataError            a data set that is missing, cut short or wrong
    │   └── DownloadError        it could not be fetched
    ├── RecipeError          a recipe with an unknown key, a wrong type or an impossible value
    ├── StorageError         a file that cannot be written or read back
    └── MissingExtra         an optional package that is not installed
"""


class SpikepruneError(Exception):
    """The root of every error that spikeprune raises on purpose."""


class SparsityError(SpikepruneError, ValueError):
    """A sparsity outside [0, 1), or one that the allocation cannot meet."""


class ScheduleError(SpikepruneError, ValueError):
    """A schedule whose targets or steps make no sense."""


class MethodError(SpikepruneError, TypeError):
    """Something given as a method, or as a part of one, that is none."""


class ModelError(SpikepruneError):
    """A model that cannot be viewed."""


class NoPrunableLayers(ModelError):
    """No synaptic layer to prune, or a layer name that fits none."""


class LayoutError(ModelError):
    """A tensor whose time or batch axis cannot be told."""


class PlanError(ModelError):
    """A network that no plan is made of, or a plan that is not the network."""


class MeasureError(SpikepruneError):
    """A measuring pass that cannot give what was asked of it."""


class EmptyCalibration(MeasureError):
    """The calibration data held no batch."""


class MissingLoss(MeasureError):
    """A statistic that takes gradients was asked for without a loss function."""


class NotMeasured(MeasureError, AttributeError):
    """A statistic was read that the pass did not gather."""


class NonFinite(SpikepruneError, ArithmeticError):
    """NaN or infinity where a number must be."""


class MaskMismatch(SpikepruneError):
    """Masks that belong to another model."""


class ShrinkError(SpikepruneError):
    """A smaller network that cannot run, or whose spikes are not those of the silenced one."""


class QuantizeError(SpikepruneError):
    """Bits outside 1 to 8, or a network that cannot be quantized, folded or balanced as asked."""


class UnsupportedOptimizer(SpikepruneError):
    """An optimizer whose memory of dead units cannot be reached."""


class DataError(SpikepruneError):
    """A data set that is missing, cut short or wrong."""


class DownloadError(DataError):
    """A data set that could not be fetched."""


class RecipeError(SpikepruneError):
    """A recipe with an unknown key, a wrong type or an impossible value."""


class StorageError(SpikepruneError):
    """A file that cannot be written, or read back."""


class MissingExtra(SpikepruneError, ImportError):
    """An optional package that is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> "MissingExtra":
        """Name the package, what it is for and the extra that installs it."""
        return cls(f"{purpose} needs {package}, which is not installed. Install it with: pip install 'spikeprune[{extra}]'")
