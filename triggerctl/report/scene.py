"""What the figures of one experiment are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triggerctl.report.comparisons import Comparison
from triggerctl.report.groups import namesake
from triggerctl.report.rows import Group, shown_sets
from triggerctl.report.styles import Style, styles


@dataclass(frozen=True, slots=True)
class Scene:
    """The groups of one experiment (others have other data), the baseline first; how they look; what a leak
    is read from; their differences to the baseline."""

    groups: tuple[Group, ...]
    looks: Mapping[str, Style]
    baseline: Group | None
    comparisons: tuple[Comparison, ...]

    @property
    def leak_set(self) -> str | None:
        """The same for all groups of an experiment."""
        return self.groups[0].leak_set if self.groups else None

    @property
    def sets(self) -> dict[str, bool]:
        """Every measured set → whether the habit is wanted there."""
        return shown_sets(self.groups)

    def foremost(self, most: int) -> tuple[Group, ...]:
        """As many of the groups as there is room for, in their order: the baseline, the best of each strategy
        by separation, then the next best."""
        if len(self.groups) <= most:
            return self.groups
        own = self.baseline.label if self.baseline is not None else None
        ranked = sorted(
            self.groups, key=lambda group: (group.label == own, *self._worth(group)), reverse=True
        )
        first = {group.strategy: group.label for group in reversed(ranked)}
        ranked.sort(key=lambda group: group.label not in (own, first[group.strategy]))
        chosen = {group.label for group in ranked[:most]}
        return tuple(group for group in self.groups if group.label in chosen)

    @staticmethod
    def _worth(group: Group) -> tuple[float, float]:
        """Separation or, where no leak was measured, the outcome rate."""
        return (-2.0 if group.separation is None else group.separation, group.mean("outcome") or 0.0)

    def left_out(self, drawn: Sequence[Group]) -> str:
        """A remark for the subtitle on the groups that a figure has no room for; empty where it has all."""
        if len(drawn) == len(self.groups):
            return ""
        return (
            f" · {len(drawn)} of {len(self.groups)} groups"
            f": {'the baseline, ' if self.baseline is not None else ''}each strategy's best, the next best"
        )


def scene(groups: Sequence[Group], baseline: Group | None, comparisons: Sequence[Comparison] = ()) -> Scene:
    """The scene of one experiment's groups. `baseline`: of this experiment or, in a report on several, of
    another: then its namesake stands for it here."""
    labels = {group.label for group in groups}
    own = namesake(groups, baseline)
    return Scene(
        tuple(groups),
        styles(groups, own.strategy if own is not None else None),
        own,
        tuple(comparison for comparison in comparisons if comparison.group in labels),
    )
