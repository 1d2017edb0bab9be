"""The channel graph: which layers' channels live and die together, who reads them, and why some cannot go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations


@dataclass(frozen=True)
class Use:
    """Where a family's channels lie in what a module keeps a value for each of.

    Attributes:
        module: qualified name of a layer that reads them, of a norm, or of a neuron.
        offset: place of the first channel's first entry: above 0 after a concatenation.
        repeat: entries that each channel takes: 1, or height x width after a flatten.
        trailing: axes behind that of the channels in what a neuron is given: 2 for images.
    """

    module: str
    offset: int = 0
    repeat: int = 1
    trailing: int = 0


@dataclass(frozen=True)
class Family:
    """Layers whose output channels can only be removed together, since they are added, or one acts on the other's one by one.

    Attributes:
        layers: their names, in call order.
        channels: how many each has.
        readers: layers that read them, and where among their inputs.
        norms: norms that normalize them one by one.
        neurons: neurons that they pass.
        constants: those of the neurons that keep a constant for each of them.
        bare: those of the layers whose output reaches a reader or an addition through no norm with gain and shift.
        why: why none can be removed; None if they can.
    """

    layers: tuple[str, ...]
    channels: int
    readers: tuple[Use, ...] = ()
    norms: tuple[Use, ...] = ()
    neurons: tuple[Use, ...] = ()
    constants: tuple[Use, ...] = ()
    bare: tuple[str, ...] = ()
    why: str | None = None

    @property
    def name(self) -> str:
        """That of its first layer."""
        return self.layers[0]


@dataclass(frozen=True)
class ChannelGraph:
    """All families of a model, in call order of their first layers."""

    families: tuple[Family, ...]

    def of(self, layer: str) -> Family:
        """Give the family of a layer.

        Raises:
            KeyError: no such layer.
        """
        for family in self.families:
            if layer in family.layers:
                return family
        raise KeyError(layer)

    def explain(self) -> str:
        """Tell each family in a few lines: its layers, its channels, what depends on them, or why they must stay."""
        return "\n".join(line for family in self.families for line in _told(family))


def _told(family: Family) -> Iterable[str]:
    free = f"{family.channels} channels" if family.why is None else f"{family.channels} channels that must stay"
    yield f"{' + '.join(family.layers)}: {free}"
    if family.why is not None:
        yield f"    because {family.why}"
    for what, uses in (("normalized by", family.norms), ("constants in", family.constants), ("read by", family.readers)):
        if uses:
            yield f"    {what} {', '.join(_use(use) for use in uses)}"


def _use(use: Use) -> str:
    offset = f" from {use.offset}" if use.offset else ""
    repeat = f" (x{use.repeat})" if use.repeat > 1 else ""
    return f"{use.module}{offset}{repeat}"


KINDS = ("readers", "norms", "neurons", "constants")


class Notes:
    """What a trace writes down; `graph` sorts it into families."""

    def __init__(self) -> None:
        self.channels: dict[str, int] = {}
        self.uses: dict[str, dict[str, list[Use]]] = {kind: {} for kind in KINDS}
        self.bare: set[str] = set()
        self.why: dict[str, str] = {}
        self._root: dict[str, str] = {}

    def open(self, space: str, channels: int) -> None:
        """Note a layer and how many channels it gives."""
        self.channels[space] = channels
        self._root.setdefault(space, space)

    def tie(self, one: str, other: str) -> None:
        """Note that two layers' channels live and die together."""
        self._root[self._find(other)] = self._find(one)

    def use(self, kind: str, space: str, use: Use) -> None:
        """Note a use of a layer's channels."""
        known = self.uses[kind].setdefault(space, [])
        if use not in known:
            known.append(use)

    def refuse(self, spaces: Iterable[str], why: str) -> None:
        """Note why layers' channels must stay; the first reason is kept."""
        for space in spaces:
            self.why.setdefault(space, why)

    def graph(self) -> ChannelGraph:
        """Sort layers into families."""
        members: dict[str, list[str]] = {}
        for space in self.channels:
            members.setdefault(self._find(space), []).append(space)
        families = [self._family(names) for names in members.values()]
        return ChannelGraph(tuple(replace(x, why=x.why or why) for x, why in zip(families, _shared(families), strict=True)))

    def _find(self, space: str) -> str:
        while self._root[space] != space:
            space = self._root[space]
        return space

    def _family(self, names: list[str]) -> Family:
        uses = {kind: _merged(self.uses[kind], names) for kind in KINDS}
        why = next((self.why[name] for name in names if name in self.why), None)
        if why is None and not uses["readers"]:
            why = "no layer reads them"
        bare = tuple(name for name in names if name in self.bare)
        return Family(tuple(names), self.channels[names[0]], bare=bare, why=why, **uses)


def _shared(families: list[Family]) -> list[str | None]:
    """Say for each family why it must stay, if a module has another one's channels in the same place: it is used twice."""
    places: dict[tuple[str, str], list[tuple[range, str]]] = {}
    for family in families:
        for kind in KINDS:
            for use in getattr(family, kind):
                entries = range(use.offset, use.offset + family.channels * use.repeat)
                places.setdefault((kind, use.module), []).append((entries, family.name))
    told: dict[str, str] = {}
    for (_, module), found in places.items():
        for (one, name), (two, other) in combinations(found, 2):
            if name != other and max(one.start, two.start) < min(one.stop, two.stop):
                why = f"{module} is used for the channels of {' and '.join(sorted((name, other)))} alike"
                told |= {name: why, other: why}
    return [told.get(family.name) for family in families]


def _merged(uses: Mapping[str, list[Use]], names: list[str]) -> tuple[Use, ...]:
    return tuple(dict.fromkeys(use for name in names for use in uses.get(name, ())))
