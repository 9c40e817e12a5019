"""The networks, by their names in recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from pipeline.models import wideresnet
from pipeline.models.factory import Factory, made_by
from pipeline.models.mobilenet_v2 import MobileNetV2
from pipeline.models.resnet import ResNet18
from pipeline.models.wideresnet import WideResNet
from runtime.spec import Frozen


@dataclass(frozen=True)
class Architecture:
    """One row of the table of networks.

    Args:
        build: makes the network from channels, classes, width, mean, std and, where there are depths, depth.
        head: the name of the last layer, whose outputs are the classes.
        depths: the known depths; none if there is only one.
        depth: the default depth.
        unused: prefixes of keys in published checkpoints that the network does not use.
        ours: maps a weight's name in other files of this network to its name here.
        measure: describes the shapes of given weights, for a message.
        normalised: whether its published weights expect normalised images, although their files may not record how.

    """

    build: Callable[..., nn.Module]
    head: str = "head"
    depths: Sequence[int] = ()
    depth: int | None = None
    unused: str | None = None
    ours: Callable[[str], str] = str
    measure: Callable[[Mapping[str, Tensor]], str] | None = None
    normalised: bool = False


NETWORKS = {
    "resnet18": Architecture(ResNet18),
    "mobilenet_v2": Architecture(MobileNetV2),
    "wideresnet": Architecture(
        WideResNet,
        head="fc",
        depths=wideresnet.DEPTHS,
        depth=34,
        unused="sub_block1.",
        measure=wideresnet.measure,
    ),
    "dm_wideresnet": Architecture(
        partial(WideResNet, style=wideresnet.DEEPMIND),
        head="fc",
        depths=wideresnet.DEPTHS,
        depth=28,
        ours=wideresnet.from_deepmind,
        measure=partial(wideresnet.measure, of="DeepMind's WideResNet"),
        normalised=True,
    ),
}

if TYPE_CHECKING:
    Arch = str
else:
    Arch = Literal[tuple(NETWORKS)]
Width = Annotated[float, Field(gt=0)]
Depth = Annotated[int | None, Field(validate_default=True)]


def known_depth(depth: int | None, info: ValidationInfo) -> int | None:
    """Return the depth of the record's `arch`: the given one, or the default. A validator.

    Raises:
        ValueError: the architecture has no such depth.

    """
    network = NETWORKS.get(info.data.get("arch") or "")
    if network is None or depth in network.depths:
        return depth
    if depth is not None:
        some = ", ".join(map(str, network.depths[:5]))
        raise ValueError(f"{info.data['arch']} has " + (f"the depths {some}, ..." if some else "one depth only"))
    return network.depth


class Blueprint(Frozen):
    """A network: its architecture, width and, if there are several, its depth; or the factory that makes it.

    `factory` names a user's function, instead of an architecture; see `pipeline.models.factory`.
    """

    arch: Arch | None = None
    width: Width = 1.0
    depth: Depth = None
    factory: Factory | None = None

    _known_depth = field_validator("depth")(known_depth)

    @model_validator(mode="after")
    def _one_network(self) -> Blueprint:
        if (self.arch is None) == (self.factory is None):
            raise ValueError(f"give either arch ({', '.join(NETWORKS)}) or factory")
        if self.factory is not None and (self.width != 1.0 or self.depth is not None):
            raise ValueError("width and depth belong to an arch: a factory sets its own")
        return self

    @property
    def architecture(self) -> Architecture:
        """The row of the table of networks; of a factory one that knows nothing of its layers."""
        return NETWORKS[self.arch] if self.arch else Architecture(made_by, head="")


def build_network(
    arch: str | None,
    *,
    channels: int,
    classes: int,
    width: float = 1.0,
    depth: int | None = None,
    factory: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build a freshly initialised network; `mean` and `std` (per channel) default to no normalisation.

    Raises:
        BadRecipe: see `pipeline.models.factory.made_by`.

    """
    mean = tuple(mean) if mean is not None else (0.0,) * channels
    std = tuple(std) if std is not None else (1.0,) * channels
    if factory is not None:
        return made_by(factory, channels=channels, classes=classes, mean=mean, std=std)
    assert arch is not None
    deep = {} if depth is None else {"depth": depth}
    return NETWORKS[arch].build(channels=channels, classes=classes, width=width, mean=mean, std=std, **deep)
