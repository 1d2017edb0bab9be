"""The tables of a recipe that say how: data, training, pruning, machine. Each key is checked by itself; `config` checks them together."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spikeprune import data
from spikeprune.zoo.names import unknown

LARGE = 1_000_000  # beyond it a number is a slip of the hand
LATE = {"late": True}
AugmentImages = Literal["auto_augment", "crop", "flip", "cutout"]
AugmentFrames = Literal["flip_frames", "roll_frames"]


def late(default: Any, **checks: Any) -> Any:
    """Add a key to a table that results were published with: at its default it does not enter the budget's digest."""
    return Field(default, json_schema_extra=dict(LATE), **checks)


class Table(BaseModel):
    """A table of a recipe: no unknown keys, no silent conversion, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def digested(self) -> Mapping[str, Any]:
        """Give what enters the budget's digest: all keys, but for late ones at their defaults."""
        fields = type(self).model_fields.items()
        same = {name for name, key in fields if key.json_schema_extra == LATE and getattr(self, name) == key.default}
        return self.model_dump(exclude=same, exclude_none=True)


class Data(Table):
    """Which data, how much of the training part is held out for every choice, and how samples become the network's input."""

    name: str
    validation: int = Field(gt=0)
    by: Literal["count", "time"] | None = late(None, description="how events are cut into frames; count")
    side: int | None = late(None, ge=1, le=LARGE, description="pixels that frames are resized to; the sensor's")
    pad: int = late(0, ge=0, le=LARGE, description="black pixels set around images, on every side")
    augment: list[AugmentImages | AugmentFrames] = late([], description="of training batches, in this order")
    normalize: Literal["none", "channel"] = late("none", description="images by each channel's mean and deviation")

    @property
    def events(self) -> bool:
        """Whether it is recordings of events, not images."""
        return self.name in data.event_names()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        known = [*data.names(), *data.event_names()]
        if name not in known:
            raise ValueError(unknown("data set", name, known))
        return name

    @model_validator(mode="after")
    def _of_one_kind(self) -> "Data":
        fitting = get_args(AugmentFrames if self.events else AugmentImages)
        kind = "events" if self.events else "images"
        for word in self.augment:
            if word not in fitting:
                raise ValueError(f"augment has {word!r}, but {self.name} holds {kind}, which take {', '.join(fitting)}")
        wrong = [key for key in ("by", "side") if getattr(self, key) is not None and not self.events]
        if self.events:
            wrong += [key for key, off in (("normalize", "none"), ("pad", 0)) if getattr(self, key) != off]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} cannot be asked of {self.name}, which holds {kind}; leave it out")
        return self


class Training(Table):
    """What training and fine-tuning have in common; abstract."""

    batch: int = Field(128, ge=1, le=LARGE)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0)
    loss: Literal["ce", "tet"] = late("ce", description="of the output, or of every timestep's")
    tet_lambda: float = late(0.05, ge=0, le=1, description="of tet: the share of the distance to the threshold")
    smoothing: float = late(0.0, ge=0, lt=1, description="of labels")
    clip: float = late(0.0, ge=0, description="the largest norm of all gradients together; 0 is off")
    warmup: int = late(0, ge=0, le=LARGE, description="epochs in which the learning rate rises from 0, of those of the stage")


class Train(Training):
    """Training of the dense network."""

    epochs: int = Field(ge=1, le=LARGE)
    lr: float = Field(1e-3, gt=0)
    decay: Literal["cosine", "constant"] = "cosine"
    ema: float = late(0.0, ge=0, lt=1, description="decay of the running average of weights and norm statistics; 0 is off")

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        _refuse_long_warmup(self.warmup, self.epochs)
        return self


class Prune(Training):
    """What every method of the run does alike: layers, targets, fine-tuning, calibration. The budget."""

    layers: list[str] = ["*"]
    pattern: Literal["unstructured", "column", "channel", "block"] = "unstructured"
    stages: list[float] = Field(min_length=1)
    epochs: int = Field(1, ge=0, le=LARGE, description="of fine-tuning after each stage")
    lr: float = Field(5e-4, gt=0)
    decay: Literal["constant", "cosine"] = late("constant", description="within each stage")
    calibration: int = Field(8, ge=1, le=LARGE, description="batches")
    calibration_batch: int = Field(512, ge=1, le=LARGE)

    @field_validator("stages")
    @classmethod
    def _rising(cls, stages: list[float]) -> list[float]:
        if any(not 0 <= s < 1 for s in stages) or any(b <= a for a, b in pairwise(stages)):
            raise ValueError(f"stages must rise and lie in [0, 1); got {stages}")
        return stages

    @model_validator(mode="after")
    def _fits(self) -> "Prune":
        _refuse_long_warmup(self.warmup, self.epochs)
        return self


class Machine(Table):
    """Where it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: Literal["auto"] | bool = "auto"  # the memory layout of convolutions; auto takes it on a GPU


def _refuse_long_warmup(warmup: int, epochs: int) -> None:
    if warmup > epochs:
        raise ValueError(f"warmup takes {warmup} epochs, but there are {epochs}; it is a part of them")
