import math

import pytest

from dexml.evaluation import inverse_propensity, propensity_constants


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("AmazonCat-13K", (0.55, 1.5)),
        ("Wiki10-31K", (0.55, 1.5)),
        ("EURLEX57K", (0.55, 1.5)),
        ("LF-WikiSeeAlsoTitles-320K", (0.55, 1.5)),
        ("Wiki-500K", (0.5, 0.4)),
        ("WikipediaLarge-500K", (0.5, 0.4)),
        ("LF-Wikipedia-500K", (0.5, 0.4)),
        ("Amazon-670K", (0.6, 2.6)),
        ("LF-AmazonTitles-1.3M", (0.6, 2.6)),
        ("lf-amazontitles-131k", (0.6, 2.6)),
    ],
)
def test_constants_are_looked_up_by_the_whole_name(name: str, constants: tuple[float, float]) -> None:
    assert propensity_constants(name) == (*constants, True)


def test_an_unknown_name_takes_the_default_and_says_so() -> None:
    assert propensity_constants("MyWikiAmazonSet") == (0.55, 1.5, False)


def test_given_constants_win() -> None:
    assert propensity_constants("Amazon-670K", A=0.5) == (0.5, 2.6, True)
    assert propensity_constants("mine", A=0.5, B=0.4) == (0.5, 0.4, True)
    assert propensity_constants("mine", A=0.5) == (0.5, 1.5, False)


@pytest.mark.parametrize(("A", "B"), [(0.55, 1.5), (0.5, 0.4), (0.6, 2.6)])
def test_one_training_point_gives_log_n(A: float, B: float) -> None:
    assert inverse_propensity([1], 100, A, B)[0] == pytest.approx(math.log(100), abs=1e-12)


@pytest.mark.parametrize(
    ("n_l", "N", "constants", "expected"),
    [
        ([6, 2, 5, 1, 1], 8, (0.55, 1.5), (1.589905, 1.897075, 1.638210, 2.079442, 2.079442)),
        ([6, 2, 5, 1, 1], 8, (0.6, 2.6), (1.640150, 1.931807, 1.689434, 2.079442, 2.079442)),
        ([50, 20, 10, 5, 2, 1], 100, (0.55, 1.5), (1.682808, 2.103956, 2.557432, 3.131525, 3.996093, 4.605170)),
        ([0, 1, 3645], 45000, (0.55, 1.5), (13.865705, 10.714418, 1.176706)),
        ([3645], 45000, (0.5, 0.4), (1.190374,)),
        ([3645], 45000, (0.6, 2.6), (1.152754,)),
    ],
)
def test_worked_values(n_l: list[int], N: int, constants: tuple[float, float], expected: tuple[float, ...]) -> None:
    assert inverse_propensity(n_l, N, *constants).tolist() == pytest.approx(expected, abs=1e-6)


def test_unseen_labels_weigh_most_and_tiny_sets_weigh_all_alike() -> None:
    assert inverse_propensity([0], 100, 0.6, 2.6)[0] == pytest.approx(5.382513, abs=1e-6)
    assert inverse_propensity([0, 1, 2], 2, 0.55, 1.5).tolist() == [1.0, 1.0, 1.0]


def test_counts_that_cannot_be_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label 1 has n_l=12, outside 0\.\.N=10"):
        inverse_propensity([3, 12], 10, 0.55, 1.5)
    with pytest.raises(ValueError, match="label 0"):
        inverse_propensity([float("nan")], 10, 0.55, 1.5)
    with pytest.raises(ValueError, match="B > 0"):
        inverse_propensity([1], 10, 0.55, 0.0)
