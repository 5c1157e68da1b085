from __future__ import annotations

from dataclasses import dataclass

import pytest

from pathclip.export.search.pareto import best, choose, front


@dataclass
class Trial:
    speed: float
    faithful: float
    safe: bool = True


def trials(*pairs):
    return [Trial(*pair) for pair in pairs]


def test_the_front_holds_what_no_other_trial_beats():
    assert front(trials((1.0, 0.99), (2.0, 0.95), (1.5, 0.90), (0.9, 0.98))) == [0, 1]


def test_of_trials_alike_in_both_the_first_is_on_the_front():
    assert front(trials((1.0, 0.9), (1.0, 0.9))) == [0]


def test_as_faithful_but_slower_is_beaten():
    assert front(trials((1.0, 0.9), (1.1, 0.9))) == [1]


@pytest.mark.parametrize(("tolerance", "taken"), [(0.0, 0), (0.01, 1), (0.1, 2)])
def test_the_fastest_within_the_tolerance_of_the_best_is_taken(tolerance, taken):
    assert choose(trials((1.0, 0.99), (1.5, 0.985), (2.0, 0.9)), tolerance) == taken


def test_among_those_about_as_fast_the_most_faithful_is_taken():
    """A timing moves by 2 % from run to run, and the choice should not move with it."""
    assert choose(trials((2.00, 0.980), (1.97, 0.989), (1.5, 0.99)), 0.02) == 1


def test_a_trial_that_can_saturate_is_taken_only_where_all_can():
    unsafe = (2.0, 0.99, False)
    some = trials(unsafe, (1.0, 0.98))
    assert choose(some, 0.02) == best(some) == 1 and front(some) == [1]
    alone = trials(unsafe, (1.0, 0.98, False))
    assert choose(alone, 0.02) == best(alone) == 0


def test_of_the_most_faithful_the_fastest_is_the_best():
    some = trials((1.0, 0.99), (1.2, 0.99), (1.2, 0.99), (1.5, 0.9))
    assert best(some) == 1 and best(some) in front(some)


def test_what_is_taken_lies_on_the_front():
    some = trials((1.0, 0.99), (1.0, 0.985), (1.02, 0.985), (1.2, 0.97), (1.21, 0.97))
    for tolerance in (0.0, 0.004, 0.006, 0.03):
        assert choose(some, tolerance) in front(some)
