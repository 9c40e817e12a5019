"""`edgeproof pack`, and the packing of an ONNX file that `verify` is given. Neither needs PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export.foreign.order import Label, Order, name_of
from export.foreign.pack_model import pack_model
from export.precision.options import choice, precision_options
from runtime.images.classes import read_classes
from runtime.images.preprocessing import SIZE, Size
from runtime.options.engine import gradient_option
from runtime.options.groups import GroupedCommand
from runtime.options.preparers import Wanted, data_root_option, model_options
from runtime.options.record import NewDirectory, OneOf, reader
from runtime.options.trust import key_option, version_option, written
from runtime.spec import LONGEST_NAME, Fraction, Name, ThreatModel
from runtime.terminal.log import log
from runtime.verdict.options import CLASSES, FRACTION
from runtime.words import file_size, percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from runtime.bundle.manifest import Manifest


NAME = f"a name: letters and digits, after the first also '.', '_' and '-', {LONGEST_NAME} in all"


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return () if value is None else read_classes(value)


GROUPS = {
    "Model": ("--mean", "--std", "--bgr", "--output", "--layout", "--classes"),
    "Images": ("--data", "--data-root", "--size"),
    "Precisions": (
        "--precision", "--ships", "--calibration", "--calibration-method", "--calibration-images",
        "--keep-fp16", "--gradient",
    ),
    "Bundle": ("--name", "--version", "--eps", "--key"),
    "Output": ("--out", "--quiet", "--verbose", "--help"),
}  # fmt: skip
"""Options of `pack` in its --help."""


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--data", required=True, help="Evaluation images: an .npz with x and y, an image folder, or a set known by name."
)
@model_options
@click.option(
    "--layout",
    type=OneOf(["nchw", "nhwc"]),
    help="Position of the channels in the model and the .npz, if their shapes leave it open.",
)
@click.option(
    "--size",
    callback=reader(Size, SIZE),
    help="Resize the pictures of a folder to cover this size, then crop the centre: 224, 96x128, or 256:224 to resize "
    "to 256 and crop 224.",
)
@click.option(
    "--eps",
    callback=reader(Fraction, FRACTION, "/255"),
    default="8/255",
    show_default=True,
    help="L-infinity radius that the bundle claims.",
)
@precision_options(default=None)
@click.option(
    "--calibration",
    metavar="SET",
    help="Images from which int8 takes its ranges, preferably training images. Images of --data are left out.",
)
@gradient_option
@click.option("--name", callback=reader(Name, NAME), help="Name of the model.  [default: the file's]")
@click.option("--classes", callback=_names, help=CLASSES)
@version_option
@data_root_option
@click.option("--out", type=NewDirectory(), help="Bundle to write.  [default: bundles/NAME]")
@key_option
def pack(
    model: Path,
    eps: float,
    calibration: str | None,
    out: Path | None,
    key: EllipticCurvePrivateKey | None,
    **options: Any,
) -> None:
    """Turn an ONNX classifier of any origin into a bundle."""
    chosen = choice(options)
    label = Label(*(options.pop(field) for field in ("name", "version")))
    wanted = Wanted(**{**options, "gradient": options["gradient"] == "auto"})
    out = out or Path("bundles") / (label.name or name_of(model))
    _say(pack_model(Order(model, wanted, ThreatModel(eps=eps), label, chosen, calibration), out, key))
    click.echo(written(out, key))


def prepare(path: Path, out: Path, wanted: Wanted, threat_model: ThreatModel) -> None:
    """Pack a model for a verdict, and log on stderr how it was changed."""
    _say(pack_model(Order(path, wanted, threat_model), out), log.info)


def _say(manifest: Manifest, say: Callable[[str], None] = click.echo) -> None:
    packed = manifest.packed
    assert packed is not None
    for precision, graph in manifest.graphs.items():
        parity = graph.parity
        assert parity is not None
        say(
            f"{precision}: opset {graph.opset}, {file_size(manifest.files[graph.forward].size)}; against "
            f"{packed.file}: same prediction {percent(parity.prediction_agreement, 2)}, outputs within "
            f"{parity.max_logit_error:.0e}" + ("" if graph.gradient else "; no gradient graph")
        )
    for change in packed.changes:
        say(f"  {change}")
