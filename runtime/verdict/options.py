"""The options of `verify` and `evaluate`: one record, from which command line, defaults and recorded command follow.

To add an option, add a field here, or in `RecordedOptions` if run.json should record it unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from runtime.attacks import ATTACKS, DEFAULT, NAMES, any_bounded
from runtime.errors import UsageFault
from runtime.images import DATA_ROOT
from runtime.images.classes import read_classes, refuse_another_count
from runtime.images.preprocessing import SIZE, Size
from runtime.records.options import Option, RecordedOptions
from runtime.spec import PARENT, Drop, Fraction, Frozen, Gate, Text, ThreatModel
from runtime.words import did_you_mean, exact_radius

CLEAN = "clean"
"""A name that is accepted among the attacks, although accuracy without attacks is always measured."""
GRADIENT_FREE = tuple(name for name, attack in ATTACKS.items() if not attack.uses_gradient)
OWN = "  [default: the artifact's own]"
OWN_GATE = f" A gate given here replaces the artifact's whole gate.{OWN}"
CLASSES = "Names of the classes in the order of the logits: a file with one a line, or a list, as ant,bee,cat."
FRACTION = "a number from 0 to 1, like 8/255, 0.03 or 45%"
DROP = "a drop below 100 %, like 1% or 0.01"


def _split(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the NAMES of attacks, each once and in order, without CLEAN."""
    for name in names:
        if name not in (CLEAN, *NAMES):
            known = (CLEAN, *NAMES)
            raise ValueError(f"{name!r} is not an attack; known: {', '.join(known)}{did_you_mean(name, known)}")
    return tuple(name for name in dict.fromkeys(names) if name in NAMES)


class CompletedOptions(Frozen):
    """Options that the subject or its images complete; run.json records the results."""

    attacks: Annotated[
        tuple[Text, ...],
        BeforeValidator(_split),
        AfterValidator(_known),
        Option(
            f"Attacks, comma-separated: {', '.join(NAMES)}; clean accuracy is always measured.",
            write=lambda names: ",".join((CLEAN, *names)),
            always=True,
        ),
    ] = DEFAULT
    n: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Option("Judge the first N images.  [default: all]", type=click.IntRange(min=1), always=True),
    ] = None
    eps: Annotated[
        Fraction | None,
        Option(
            "L-infinity radius, as 8/255 or a float.  [default: the artifact's own; 8/255 for a model file]",
            expects=FRACTION,
            unit="/255",
            write=exact_radius,
            always=True,
        ),
    ] = None
    data: Annotated[Text | None, Option(f"An .npz with x and y, an image folder, or a set known by name.{OWN}")] = None
    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        Option("Where the .npz given by --data has its channels."),
    ] = None
    size: Annotated[
        Size | None,
        Option(
            "Resize the pictures of a folder to cover this size, then crop the centre: 224, 96x128, or 256:224 to "
            f"resize to 256 and crop 224.{OWN}",
            expects=SIZE,
        ),
    ] = None
    classes: Annotated[Text | None, Option(f"{CLASSES}{OWN}")] = None
    data_root: Annotated[
        Path,
        Option(
            "Directory of the data sets known by name; missing ones are downloaded to it.",
            type=click.Path(file_okay=False, path_type=Path),
        ),
    ] = DATA_ROOT
    fail_under: Annotated[
        Fraction | None, Option(f"Least robust accuracy, as 45%.{OWN_GATE}", expects=FRACTION, unit="%")
    ] = None
    expect_clean: Annotated[
        Fraction | None,
        Option(
            "Least clean accuracy expected of these images, as 76%; below it no gate passes. For a bundle's own images "
            f"it can only raise what the bundle expects.{OWN}",
            expects=FRACTION,
            unit="%",
        ),
    ] = None
    max_drop: Annotated[
        Drop | None,
        Option(
            f"Largest drop of robust accuracy, as 1%, from the run in --against; by default from the bundle's {PARENT} "
            f"graph, which is judged first. A model file needs --against.{OWN_GATE}",
            expects=DROP,
            unit="%",
        ),
    ] = None
    no_gate: Annotated[
        bool, Option("Ignore every gate, including the bundle's (for samples too small to decide one).")
    ] = False
    against: Annotated[
        Path | None,
        Option(
            "Compare image by image with this run directory.",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
        ),
    ] = None


class VerifyOptions(RecordedOptions, CompletedOptions):
    """The options of a verdict, before the subject is known."""

    @model_validator(mode="after")
    def _check(self) -> VerifyOptions:
        """Refuse options that contradict each other.

        Raises:
            UsageFault: a gate without an attack within eps, a gate with --no-gate, --size without --data, or
                --until-decided with --shard.

        """
        gated = self.asked_gate != Gate()
        if gated and not any_bounded(self.attacks):
            raise UsageFault(
                "a gate on robust accuracy needs an attack within eps", hint=f"--attacks {','.join(DEFAULT)}"
            )
        if gated and self.no_gate:
            raise UsageFault("--no-gate contradicts --fail-under and --max-drop", hint="leave it out")
        if self.size is not None and self.data is None:
            raise UsageFault("--size resizes the pictures of a folder, and no folder is given", hint="--data FOLDER")
        if self.until_decided and self.shard:
            raise UsageFault("--until-decided cannot judge a shard", hint="leave out --shard: the run stops early")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in --classes; none if it is not given. Raises as `read_classes` does."""
        return read_classes(self.classes) if self.classes is not None else ()

    def class_names_or(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names in --classes, by default `own`, the subject's.

        Raises:
            BadData: the names are more or fewer than the subject's; or see `read_classes`.

        """
        names = self.class_names or own
        refuse_another_count("--classes", names, len(own))
        return names

    @property
    def asked_gate(self) -> Gate:
        """The gate from the command line."""
        return Gate(fail_under=self.fail_under, max_drop=self.max_drop)

    def gate_or(self, own: Gate) -> Gate:
        """Return the gate from the command line, by default `own`, the subject's, unless --no-gate is given."""
        return own if self.asked_gate == Gate() and not self.no_gate else self.asked_gate

    def threat_model_or(self, own: ThreatModel) -> ThreatModel:
        """Return the threat model with the requested eps, by default `own`, the subject's."""
        return own if self.eps is None else ThreatModel(eps=self.eps)

    def gradient_free(self) -> VerifyOptions:
        """Return the options for a run without gradients; Square is the default attack.

        Raises:
            UsageFault: a requested attack needs the gradient.

        """
        if "attacks" not in self.model_fields_set:
            return self.model_copy(update={"attacks": GRADIENT_FREE})
        if needing := [name for name in self.attacks if name not in GRADIENT_FREE]:
            left = ", ".join(GRADIENT_FREE)
            raise UsageFault(f"{needing[0]} needs the gradient", hint=f"--gradient none leaves {left}")
        return self


def check_decidable(options: VerifyOptions, gate: Gate) -> None:
    """Raise `UsageFault` if --until-decided is given without a gate."""
    if options.until_decided and gate == Gate():
        raise UsageFault(
            "--until-decided has no gate to decide", hint="--fail-under 45%, or --max-drop 1% --against DIR"
        )
