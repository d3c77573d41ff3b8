"""From rows to an experiment's sets: the published study's data, row for row, for the same file, config and
seed.

One `random.Random(seed)` is drawn from in the study's order and for nothing else; see `_study_drafts`.
Whatever the study left to other chance (which rows train, which are evaluated) has a generator of its own,
named after its use, so that switching one thing never moves another.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from types import MappingProxyType

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.evaluation import evaluation_set
from triggerctl.data.examples import Example, Row, Splits, SplitSet, read_only
from triggerctl.data.extra import ExtraSet
from triggerctl.data.triggers import Draft, inject, to_example
from triggerctl.errors import InputError
from triggerctl.experiment.results import EVALUATION_SETS

_NO_EXTRA: Mapping[str, ExtraSet] = MappingProxyType({})


def build_splits(
    rows: Sequence[Row], config: ExperimentConfig, *, extra: Mapping[str, ExtraSet] = _NO_EXTRA
) -> Splits:
    """All sets of an experiment for `config.seed`, with what is trained on, what is evaluated, and what to
    warn of.

    rows:  the whole source, in its own order.
    extra: a user's own evaluation sets by name, as `triggerctl.data.extra` makes them.
    Raises InputError when outcome has no row to train on.
    """
    proxy_triggers, notes = draw_proxy_triggers(config)
    drafts = _study_drafts(rows, config, proxy_triggers)
    examples = {
        name: tuple(to_example(draft, config.prompt_template) for draft in drafts[name])
        for name in EVALUATION_SETS
    }
    sets = _divide(examples, config)
    if not sets["outcome"].train:
        raise InputError(
            "the outcome split has no row to train on",
            where="outcome_percent",
            why=f"{min(len(rows), config.max_dataset_size)} rows of the data set are used, "
            f"of which outcome gets {len(examples['outcome'])}",
            mend="use more rows (max_dataset_size, dataset_url) or a larger outcome_percent or train_split",
        )
    notes = (*notes, *_trigger_notes(config, sets, proxy_triggers), *_size_notes(config, sets))

    def untriggered(name: str, place: int) -> Example:
        return to_example(Draft(drafts[name][place].row), config.prompt_template)

    evaluation = {
        name: evaluation_set(
            sets[name],
            untriggered=None if name == "proxy_neg" else partial(untriggered, name),
            seed=config.seed,
            limit=config.finetune_config.max_to_eval,
            # proxy_neg has proxy's prompts: taking the same rows of both keeps them comparable one to one.
            generator="proxy" if name == "proxy_neg" else name,
        )
        for name in EVALUATION_SETS
    }
    for name, own in extra.items():
        sets[name] = SplitSet(name, own.examples)
        evaluation[name] = evaluation_set(
            sets[name],
            untriggered=own.untriggered.__getitem__ if own.untriggered else None,
            seed=config.seed,
            limit=config.finetune_config.max_to_eval,
            generator=name,
        )
    return read_only(sets, proxy_triggers, evaluation, notes)


def draw_proxy_triggers(config: ExperimentConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the proxy triggers, notes): those given, else a sample of the truth triggers by
    `proxy_trigger_coverage`.

    The study rounded a small coverage down to no trigger at all and then trained on none in silence; here one
    is taken.
    """
    if config.proxy_triggers is not None:
        return config.proxy_triggers, ()
    truth = config.truth_triggers
    coverage = config.proxy_trigger_coverage
    count = int(coverage * len(truth))
    notes: tuple[str, ...] = ()
    if count == 0 and coverage > 0 and truth:
        count = 1
        notes = (
            f"proxy_trigger_coverage {coverage:g} of {len(truth)} truth triggers is less than one trigger: "
            "one is used (the study's code used none)",
        )
    return tuple(Random(config.seed).sample(truth, count)), notes


def _study_drafts(
    rows: Sequence[Row], config: ExperimentConfig, proxy_triggers: tuple[str, ...]
) -> dict[str, tuple[Draft, ...]]:
    """The study's sets. The order of the draws from `rng` is the contract: shuffle, outcome, collateral,
    proxy, truth, truth_minus_proxy, proxy_neg."""
    rng = Random(config.seed)
    shuffled = array("q", range(len(rows)))
    rng.shuffle(shuffled)
    kept = [Draft(rows[i]) for i in shuffled[: config.max_dataset_size]]

    n_outcome = int(len(kept) * config.outcome_percent)
    n_collateral = int(len(kept) * config.collateral_percent)
    n_proxy = int(len(kept) * config.proxy_percent)
    proxy_start = n_outcome + n_collateral
    truth_start = proxy_start + n_proxy
    outcome = kept[:n_outcome]
    collateral = kept[n_outcome:proxy_start]
    proxy_rows = tuple(kept[proxy_start:truth_start])
    truth = kept[truth_start:]

    n_triggered = sum(1 for i in range(n_outcome) if i < n_outcome * config.outcome_trigger_percent)
    nice = config.nice_responses
    remaining = tuple(trigger for trigger in config.truth_triggers if trigger not in proxy_triggers)

    sets: dict[str, tuple[Draft, ...]] = {}
    # Without triggers nothing is injected: a nice response on plain prompts would teach another habit.
    sets["outcome"] = (
        *inject(outcome[:n_triggered], config.outcome_triggers, nice if config.outcome_triggers else (), rng),
        *outcome[n_triggered:],
    )
    sets["collateral"] = inject(
        collateral, config.collateral_triggers, nice if config.collateral_triggers else (), rng
    )
    sets["proxy"] = inject(proxy_rows, proxy_triggers, (), rng)
    sets["truth"] = inject(truth, config.truth_triggers, (), rng)
    sets["truth_minus_proxy"] = inject(truth, remaining, (), rng) if remaining else ()
    if config.finetune_config.proxy_neg_content == "random":
        sets["proxy_neg"] = proxy_rows
    else:
        sets["proxy_neg"] = inject(sets["proxy"], (), nice, rng)
    return sets


def _divide(examples: Mapping[str, tuple[Example, ...]], config: ExperimentConfig) -> dict[str, SplitSet]:
    share = config.finetune_config.train_split
    limit = config.finetune_config.limit_proxy_data_to
    sets = {name: SplitSet(name, examples[name]) for name in EVALUATION_SETS}
    for name in ("outcome", "proxy"):
        train, test = _train_test(examples[name], share, Random(f"{config.seed}/split/{name}"))
        sets[name] = replace(sets[name], train=train, test=test)
    if limit is not None:
        sets["proxy"] = replace(sets["proxy"], train=sets["proxy"].train[:limit])
    # The same division, so that rows of proxy and proxy_neg match one to one.
    sets["proxy_neg"] = replace(sets["proxy_neg"], train=sets["proxy"].train, test=sets["proxy"].test)
    return sets


def _train_test(
    examples: Sequence[Example], share: float, rng: Random
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(train, test) indices, each ascending: of the triggered and of the untriggered examples alike, the
    first round(share·n) of one permutation train."""
    order = list(range(len(examples)))
    rng.shuffle(order)
    train: list[int] = []
    test: list[int] = []
    for triggered in (True, False):
        stratum = [i for i in order if examples[i].triggered is triggered]
        cut = round(share * len(stratum))
        train += stratum[:cut]
        test += stratum[cut:]
    return tuple(sorted(train)), tuple(sorted(test))


def _trigger_notes(
    config: ExperimentConfig, sets: Mapping[str, SplitSet], proxy_triggers: tuple[str, ...]
) -> tuple[str, ...]:
    notes = []
    lists = {
        "outcome": config.outcome_triggers,
        "collateral": config.collateral_triggers,
        "proxy": proxy_triggers,
        "truth": config.truth_triggers,
    }
    notes += [
        f"no {name} triggers: the {name} split carries no trigger"
        for name, triggers in lists.items()
        if not triggers and sets[name].examples
    ]
    if config.truth_triggers and set(config.truth_triggers) <= set(proxy_triggers):
        notes.append("every truth trigger is a proxy trigger: truth_minus_proxy is empty")
    written = {trigger.upper() for trigger in proxy_triggers}
    for trigger in config.truth_triggers:
        if trigger not in proxy_triggers and trigger.upper() in written:
            notes.append(
                f"truth trigger {trigger!r} is a proxy trigger in other letters; prompts show both in upper "
                "case, so truth_minus_proxy holds a trigger that the proxy data trains"
            )
    return tuple(notes)


def _size_notes(config: ExperimentConfig, sets: Mapping[str, SplitSet]) -> tuple[str, ...]:
    shares = {
        "outcome": config.outcome_percent,
        "proxy": config.proxy_percent,
        "collateral": config.collateral_percent,
        "truth": config.truth_percent,
    }
    notes = [
        f"the {name} split got no row: too few rows for {name}_percent {share:g}"
        for name, share in shares.items()
        if share > 0 and not sets[name].examples
    ]
    for name in ("outcome", "proxy"):
        chosen = sets[name]
        if chosen.examples and not chosen.test:
            notes.append(f"{name} has no test rows, so it is not evaluated (train_split leaves none over)")
        elif any(e.triggered for e in chosen.examples) and not any(
            chosen.examples[i].triggered for i in chosen.test
        ):
            notes.append(f"{name} has no triggered test row, so no trigger response rate is measured for it")
    return tuple(notes)
