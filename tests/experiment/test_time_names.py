"""pytest tests/experiment/test_time_names.py"""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

from triggerctl.experiment.time_names import age_key, names_at

SUMMER, WINTER, NEW_YORK = (timezone(timedelta(hours=hours)) for hours in (2, 1, -4))


def test_names_sort_by_age_on_the_night_that_clocks_are_set_back_and_across_zones() -> None:
    times = [
        datetime(2025, 10, 26, 2, 30, tzinfo=SUMMER),
        datetime(2025, 10, 26, 2, 10, tzinfo=WINTER),
        datetime(2025, 10, 25, 22, 0, tzinfo=NEW_YORK),
        datetime(2025, 10, 26, 3, 30, tzinfo=WINTER),
    ]
    names = [next(names_at(time)) for time in times]
    assert names == sorted(names, key=age_key)
    assert names[0] == "20251026_003000"


def test_names_of_one_second_sort_in_the_order_they_are_given() -> None:
    names = list(itertools.islice(names_at(datetime(2025, 10, 26, tzinfo=SUMMER)), 11))
    assert names[-1] == "20251025_220000_11"
    assert sorted(names, key=age_key) == names
    assert min([*names, "slurm", "2025"], key=age_key) == "slurm"
