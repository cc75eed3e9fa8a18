"""The published table of planted bugs: every one is found, is called what it is, and the table says so."""

import gradcheck_detection as detection
import pytest
from gradcheck_planted import RAISES_LATER, wrong_forwards

from transformer_np.gradcheck import check_against

PUBLISHED = detection.TABLE.read_text().splitlines()
BUGS = {bug.name: bug for bug in detection.bugs()}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_called_what_it_is(name):
    bug = BUGS[name]
    kinds = detection.kinds_of(detection.check(bug.wrong))
    assert bug.kind in kinds, f"{kinds or 'not found'}, expected {bug.kind}"
    row = f"| {bug.number or ''} | {name} | {', '.join(kinds)} |"
    assert any(line.startswith(row) for line in PUBLISHED), f"not in the table: {row}"


def test_the_table_has_every_bug_and_counts_those_that_are_found():
    text = "\n".join(PUBLISHED)
    for name in (*BUGS, *(wrong.name for wrong in wrong_forwards())):
        assert f" | {name} | " in text
    assert f"| **found, of {len(BUGS)}** | **{len(BUGS)}** |" in text


def test_no_bug_is_expected_to_be_called_just_wrong():
    named = {bug.kind for name, bug in BUGS.items() if name != RAISES_LATER}  # to raise an error is just that
    assert not {"wrong or missing term", "wrong", "does not run"} & named


def test_at_least_forty_bugs_are_not_of_the_list_of_those_found():
    assert sum(bug.number is None for bug in BUGS.values()) >= 40


def test_the_pairs_without_the_bugs_are_right():
    for pair in detection.right_pairs():
        detection.check(pair).raise_if_failed()


@pytest.mark.parametrize("wrong", list(wrong_forwards()), ids=lambda wrong: wrong.name)
def test_a_wrong_forward_with_a_backward_of_its_own_is_found_by_the_reference_alone(wrong):
    assert detection.check(wrong.pair).ok
    assert not check_against(wrong.reference, wrong.pair.forward, wrong.pair.backward).ok
