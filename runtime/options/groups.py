"""Groups with titles in the --help of a command with many options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

REST = "Options"
OF_A_VERDICT: Mapping[str, tuple[str, ...]] = {
    "Images": ("--data", "--n", "--layout", "--size", "--classes", "--data-root"),
    "Model file": ("--mean", "--std", "--bgr", "--output"),
    "Attacks": ("--eps", "--attacks", "--gradient", "--gradient-backend", "--lattice", "--seed"),
    "Gate": (
        "--fail-under", "--max-drop", "--against", "--expect-clean", "--no-gate",
        "--until-decided", "--accept-blind-evidence",
    ),
    "Artifact and engine": (
        "--checkpoint", "--precision", "--on", "--backend", "--provider", "--provider-library", "--judge-command",
        "--tf32",
    ),
    "Trust in a bundle": ("--trust", "--state", "--allow-rollback", "--allow-unsigned"),
    "Run": ("--batch", "--shard", "--resume"),
    "Output": ("--out", "--attest", "--json", "--save-adversarial", "--quiet", "--verbose", "--help"),
}  # fmt: skip
"""The groups of commands that end in a verdict: flags by title, each in one group."""


class GroupedCommand(click.Command):
    """A command whose --help lists its options in groups.

    Args:
        groups: flags in their long form, by title. They may include flags of other commands. Options in no group come
            last.

    """

    def __init__(self, *arguments: Any, groups: Mapping[str, tuple[str, ...]], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups in order."""
        options = (each for each in self.get_params(ctx) if isinstance(each, click.Option))
        records = {flag(each): record for each in options if (record := each.get_help_record(ctx))}
        grouped = {name for names in self.groups.values() for name in names}
        rest = tuple(name for name in records if name not in grouped)
        for title, names in {**self.groups, REST: rest}.items():
            if rows := [records[name] for name in names if name in records]:
                with formatter.section(title):
                    formatter.write_dl(rows)


def flag(option: click.Option) -> str:
    """Return the long form of an option."""
    return max(option.opts, key=len)
