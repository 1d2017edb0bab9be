"""The network of a recipe: the LIF MLP, or one of the zoo's deep networks by name; a table, and how it is built."""

from dataclasses import replace
from inspect import signature
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator
from torch import nn

from spikeprune import zoo
from spikeprune.recipes.tables import LARGE, Table, late
from spikeprune.zoo.names import unknown

MLP = "mlp"


class Net(Table):
    """The LIF MLP between the image and the classes."""

    name: Literal["mlp"] = late(MLP)
    hidden: list[Annotated[int, Field(ge=1, le=LARGE)]] = Field([256, 128])
    beta: float = Field(0.9, gt=0, le=1)
    timesteps: int = Field(10, ge=1, le=LARGE)
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0)

    @property
    def title(self) -> str:
        """Name it with its size."""
        return f"LIF MLP {'-'.join(str(size) for size in self.hidden)}, T = {self.timesteps}"

    def build(self, image: tuple[int, int, int], classes: int, *, events: bool) -> nn.Module:
        """Build it for images (channels, height, width); its weights are drawn from torch's random state."""
        channels, height, width = image
        sizes = (channels * height * width, *self.hidden, classes)
        return zoo.SpikingMLP(sizes, beta=self.beta, timesteps=self.timesteps, dropout=self.dropout, noise=self.noise)


class NeuronTable(Table):
    """Options of `zoo.Neuron`; those left out are the network's own."""

    kind: str | None = None
    tau: float | None = None
    threshold: float | None = None
    reset: str | None = None
    surrogate: str | None = None
    detach_reset: bool | None = None
    decay_input: bool | None = None


class DeepNet(Table):
    """One of `zoo.networks()`; image size and classes follow from the data."""

    name: str
    width: float = Field(1.0, gt=0)
    timesteps: int = Field(4, ge=1, le=LARGE)
    coding: Literal["direct", "poisson"] | None = Field(None, description="of images: direct; that of events is events")
    neuron: NeuronTable = NeuronTable()
    norm: Literal["batch", "gain", "none"] | None = late(None, description="of networks that have the option; batch")
    dropout: float | None = late(None, ge=0, lt=1, description="of networks that have the option; 0")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in zoo.networks():
            raise ValueError(unknown("network", name, [MLP, *zoo.networks()]))
        return name

    @property
    def title(self) -> str:
        """Name it with its size."""
        poisson = ", poisson" if self.coding == "poisson" else ""
        return f"{self.name} width {self.width:g}, T = {self.timesteps}{poisson}"

    def build(self, image: tuple[int, int, int], classes: int, *, events: bool) -> nn.Module:
        """Build it for images or frames (channels, height, width); its weights are drawn from torch's random state.

        Raises:
            RecipeError: the images are too small, an option of the neuron is impossible, or the network has no norm or dropout to
                choose.
            MissingExtra: SpikingJelly is not installed.
        """
        own = signature(getattr(zoo, self.name)).parameters["neuron"].default
        neuron = replace(own, **self.neuron.model_dump(exclude_none=True))
        coding = "events" if events else self.coding or "direct"
        chosen = {key: value for key, value in (("norm", self.norm), ("dropout", self.dropout)) if value is not None}
        return zoo.make(
            self.name,
            classes=classes,
            timesteps=self.timesteps,
            image=image,
            width=float(self.width),
            neuron=neuron,
            coding=coding,
            **chosen,
        )


# How an error names the kind of network between "net" and its key.
KINDS: dict[str, type[Net] | type[DeepNet]] = {"<mlp>": Net, "<deep>": DeepNet}


def _kind(table: Any) -> str:
    name = table.get("name", MLP) if isinstance(table, dict) else getattr(table, "name", MLP)
    return "<mlp>" if name == MLP else "<deep>"


AnyNet = Annotated[Annotated[Net, Tag("<mlp>")] | Annotated[DeepNet, Tag("<deep>")], Discriminator(_kind)]
