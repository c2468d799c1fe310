"""Regimes, schedules in words, and what the callback tells the pipeline."""

import pytest

from avts_tf.data.sampling import Kind
from avts_tf.data.state import PipelineState
from avts_tf.errors import UserError
from avts_tf.training.curriculum import (
    REGIMES,
    CurriculumCallback,
    NegativeMix,
    parse_mix,
    parse_regime,
)

EASY, MIXED, HARD = NegativeMix(easy=1.0), NegativeMix(easy=0.75, hard=0.25), NegativeMix(hard=1.0)
TABLE = {  # of the paper: the mix of epochs 1-50 and that of epochs 51-90
    'easy': (EASY, EASY), 'mixed': (MIXED, MIXED), 'hard': (HARD, HARD),
    'curriculum_mixed': (EASY, MIXED),
    'curriculum_hard': (EASY, HARD),
}


@pytest.mark.parametrize('regime', TABLE)
def test_regimes_of_the_table(regime):
    curriculum = parse_regime(regime, 90)
    assert curriculum.epochs == 90
    assert [curriculum.mix(epoch)
            for epoch in range(90)] == [TABLE[regime][0]] * 50 + [TABLE[regime][1]] * 40


def test_no_other_regimes():
    assert set(REGIMES) == set(TABLE)


@pytest.mark.parametrize(('epochs', 'first'), [(2, 1), (3, 2), (9, 5), (18, 10), (1000, 556)])
def test_two_stages_share_the_epochs_as_in_the_paper(epochs, first):
    curriculum = parse_regime('curriculum_hard', epochs)
    assert [stage.epochs for stage in curriculum.stages] == [first, epochs - first]


def test_words():
    curriculum = parse_regime(' easy:2, easy=0.5 + hard=0.3+super-hard=0.2 : 3,super_hard:1',
                              epochs=90)
    assert curriculum.epochs == 6 and curriculum.stage_starts == (0, 2, 5)
    assert [curriculum.stage(epoch) for epoch in range(8)] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert curriculum.mix(2) == NegativeMix(easy=0.5, hard=0.3, super_hard=0.2)
    assert curriculum.mix(2).vector() == [0.5, 0.3, 0.2]
    assert curriculum.mix(100) == NegativeMix(super_hard=1.0)
    assert parse_regime(str(curriculum), 1) == curriculum
    assert str(curriculum) == 'easy:2,easy=0.5+hard=0.3+super_hard=0.2:3,super_hard:1'


def test_parts_that_are_rounded_add_up():
    assert parse_mix('easy=0.3333333+hard=0.3333333+super_hard=0.3333334')[Kind.HARD] == 0.3333333


@pytest.mark.parametrize('words', [
    '', 'simple', 'easy+hard', 'easy:0', 'easy:-1', 'easy:1.5', 'easy:x', 'easy:2,', ',easy:2',
    'easy:2;hard:2', 'medium:3',
    'easy=0.5:3', 'easy=0.7+hard=0.7:3', 'easy=1.5+hard=-0.5:3', 'easy=half+hard=half:3',
    'easy=0.5+easy=0.5:3', 'positive:3',
    'easy=nan:3', 'easy=inf:3', 'easy=0.5+hard=nan:3',
])
def test_wrong_words_name_the_parameter(words):
    with pytest.raises(UserError, match='^regime='):
        parse_regime(words, 90)


def test_the_wrong_word_is_quoted():
    with pytest.raises(UserError, match="'medium'"):
        parse_regime('easy:2,medium:3', 90)
    with pytest.raises(UserError, match='^epochs=1'):
        parse_regime('curriculum_mixed', 1)


@pytest.mark.parametrize('initial_epoch', [0, 2, 5])
def test_callback_sets_epoch_and_mix_before_the_epoch_begins(initial_epoch):
    # Resuming needs no memory: whatever epoch it starts with, the rest is as if it had never
    # stopped.
    curriculum, state = parse_regime('easy:2,easy=0.75+hard=0.25:2,super_hard:2',
                                     90), PipelineState()
    callback = CurriculumCallback(curriculum, state, initial_epoch)
    for epoch in range(initial_epoch, 6):
        assert state.epoch.numpy() == epoch
        assert state.mix.numpy().tolist() == curriculum.mix(epoch).vector()
        logs = {}
        callback.on_epoch_end(epoch, logs)
        assert logs == {'stage': epoch // 2}
