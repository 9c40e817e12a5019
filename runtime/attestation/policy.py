"""Policies: what a device requires of an attestation before it installs a bundle. A policy is a TOML file."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from runtime.attacks import NAMES, any_bounded, stages
from runtime.attestation.statement import check_subjects, read_attestation
from runtime.bundle.signing import load_trust
from runtime.errors import BadAttestation, BadInput
from runtime.spec import Digest, Fraction, Frozen, Name, Text
from runtime.verdict.subject import attack_request
from runtime.words import did_you_mean, moment, percent, points, printable, radius

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.attestation.figures import AttackFigure, Figures
    from runtime.attestation.statement import Attestation
    from runtime.bundle.opening import Bundle
    from runtime.bundle.signing import Trust

SKEW = timedelta(minutes=5)
"""The most by which the clocks of two machines may differ."""
KEYS_HINT = "docs/attestations.md lists the keys of a policy"
BOUNDED = tuple(name for name in NAMES if any_bounded([name]))
"""The attacks that stay within eps."""
SHARE = "a number above 0, at most 1"
MAY_BE = {
    "schema": "edgeproof.policy/1",
    "keys": "the name of a file of public keys",
    "robust_accuracy": f"{SHARE}, as 0.45 or '45%'",
    "eps": f"{SHARE}, as 0.03 or '8/255'",
    "largest_eps": f"{SHARE}, as 0.03 or '8/255'",
    "attacks": f"a list of attacks within eps, of {', '.join(BOUNDED)}",
    "images": "a whole number, at least 1",
    "max_age_days": "a number of days above 0, at most 36500",
    "device": "a table of patterns, each a text, by the names of facts",
    "backends": "a list of names of backends, at least one",
    "data": "a list of SHA-256 digests, each 64 hexadecimal digits",
}
"""The keys of a policy, and in words the values that each may have."""


def _bounded_attack(name: str) -> str:
    """Accept the name of an attack that stays within eps."""
    if name not in BOUNDED:
        raise ValueError(name)
    return name


Some = Annotated[Fraction, Field(gt=0)]


class Policy(Frozen):
    """The requirements of a policy. A key with a default may be omitted, and then requires nothing.

    `keys` names a file of public keys beside the policy; one of them must have signed. `Figures.at_least` must reach
    `robust_accuracy`. `eps` is the smallest radius, and `largest_eps` the largest. Each of `attacks` must have run on
    every image that was correct before it, with the settings of this version of edgeproof. `device` maps facts of the
    machine to patterns. `data` lists the digests of image sets that are accepted besides the bundle's own.
    """

    schema_: Literal["edgeproof.policy/1"] = Field(alias="schema", default="edgeproof.policy/1")
    keys: Annotated[Text, Field(min_length=1)]
    robust_accuracy: Some
    eps: Some
    largest_eps: Some | None = None
    attacks: Annotated[tuple[Annotated[Text, AfterValidator(_bounded_attack)], ...], Field(min_length=1)]
    images: Annotated[int, Field(ge=1)] = 1
    max_age_days: Annotated[float, Field(gt=0, le=36500, allow_inf_nan=False)] | None = None
    device: dict[Text, Text] = Field(default_factory=dict)
    backends: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    data: tuple[Digest, ...] = ()


def load_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        BadInput: the file is not TOML, or has an unknown key or a wrong value.

    """
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise BadInput(f"{path}: {_fault(error)}", hint=KEYS_HINT) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no TOML: {error}", hint=KEYS_HINT) from None


def _fault(error: ValidationError) -> str:
    """Return the first error of a policy in words: the key, the values that it may have, and a likely name."""
    first = error.errors(include_url=False, include_context=False)[0]
    key, given = str(first["loc"][0]), first["input"]
    if key not in MAY_BE:
        return f"a policy has no key {printable(key)}{did_you_mean(key, MAY_BE)}"
    if first["type"] == "missing":
        return f"the key {key} is missing: {MAY_BE[key]}"
    meant = did_you_mean(given, BOUNDED) if key == "attacks" else ""
    return f"{key} has to be {MAY_BE[key]}, and holds {printable(repr(given))}{meant}"


def require(path: Path, policy_path: Path, bundle: Bundle, now: datetime | None = None) -> Attestation:
    """Return an attestation, after checking that it is about a bundle and meets a policy.

    Args:
        path: of the attestation.
        policy_path: of the policy.
        bundle: the bundle that the attestation must be about.
        now: the current time; by default the clock's.

    Raises:
        BadAttestation: it is not valid, is about something else, or does not meet the policy; the message says why.
        BadInput: the policy or its keys cannot be read.

    """
    policy = load_policy(policy_path)
    attestation = read_attestation(path, _keys(policy, policy_path))
    check_subjects(path, attestation, bundle)
    fault = next(faults(policy, attestation, bundle, now or datetime.now(timezone.utc)), None)
    if fault is not None:
        raise BadAttestation(
            f"{path} does not meet {policy_path}: {fault}", hint="verify the bundle again, as the policy asks"
        )
    return attestation


def _keys(policy: Policy, path: Path) -> Trust:
    try:
        return load_trust(path.parent / policy.keys)
    except OSError as error:
        raise BadInput(
            f"the keys of {path} cannot be read: {error.strerror}",
            hint="`keys` names a file of public keys beside the policy",
        ) from None


def faults(policy: Policy, attestation: Attestation, bundle: Bundle, now: datetime) -> Iterator[str]:
    """Yield the requirements of a policy that an attestation of this bundle does not meet."""
    figures = attestation.figures
    if attestation.result == "FAILED":
        yield f"the verdict is {figures.verdict}"
    yield from _threat(policy, figures)
    if figures.at_least < policy.robust_accuracy:
        yield (
            f"the run shows a robust accuracy of at least {percent(max(figures.at_least, 0.0))} (the low end of its "
            f"interval is {percent(figures.low)}, and attacks may have missed up to {points(figures.may_hide)}), "
            f"but the policy asks for {percent(policy.robust_accuracy)}"
        )
    for name in policy.attacks:
        yield from _attack(name, figures, len(bundle.manifest.classes))
    if figures.data.n < policy.images:
        yield f"it judges {figures.data.n} images, but the policy asks for at least {policy.images}"
    if figures.data.sha256 not in (bundle.manifest.evaluation.sha256, *policy.data):
        yield f"it judges other images than the bundle's own: {figures.data.name}"
    yield from _circumstances(policy, figures)
    yield from _age(policy, figures, now)


def _threat(policy: Policy, figures: Figures) -> Iterator[str]:
    eps = figures.threat_model.eps
    if eps < policy.eps:
        yield f"eps is {radius(eps)}, but the policy asks for at least {radius(policy.eps)}"
    if policy.largest_eps is not None and eps > policy.largest_eps:
        yield f"eps is {radius(eps)}, but the policy allows at most {radius(policy.largest_eps)}"


def _attack(name: str, figures: Figures, classes: int) -> Iterator[str]:
    """Yield what is wrong with the rows of one attack. A stage of a cascade does not count: it saw only some images."""
    rows: list[AttackFigure] = [row for row in figures.attacks if row.name == name and not row.cascade]
    if not rows:
        yield f"{name} did not run"
    for row in rows:
        if row.attacked < figures.correct:
            yield f"{name} ran on {row.attacked} of {figures.correct} images that were classified correctly"
        own = attack_request(name, stages(name, classes)).settings
        if row.settings != own:
            yield f"{name} ran with other settings than this edgeproof gives it"


def _circumstances(policy: Policy, figures: Figures) -> Iterator[str]:
    for fact, pattern in policy.device.items():
        its = str(figures.device.get(fact, ""))
        if not fnmatchcase(its, pattern):
            yield f"the device's {fact} is {its or 'not known'}, but the policy asks for {pattern}"
    if policy.backends is not None and figures.backend not in policy.backends:
        yield f"it ran on {figures.backend}, but the policy asks for {' or '.join(policy.backends)}"


def _age(policy: Policy, figures: Figures, now: datetime) -> Iterator[str]:
    measured = moment(figures.measured)
    if measured > now + SKEW:
        yield f"it dates from {figures.measured}, which is in the future: check this machine's clock"
    elif policy.max_age_days is not None and now - measured > timedelta(days=policy.max_age_days):
        yield f"it dates from {figures.measured}, which is more than {policy.max_age_days:g} days ago"
