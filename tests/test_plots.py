"""Plots can be drawn from what evaluation returns, and say what they should."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from avts_tf import plots
from avts_tf.config import make_config


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figures that a test draws stay open: a list of them."""
    figures = []
    monkeypatch.setattr(plots.plt, 'close', figures.append)
    yield figures
    monkeypatch.undo()
    for figure in figures:
        plt.close(figure)
    assert plt.get_fignums() == []


def history(epochs=6, switch=4):
    return [{'epoch': float(epoch), 'loss': 1 / epoch, 'learning_rate': 0.1,
             'stage': float(epoch > switch),
             'distance_positive': 0.5, 'auc_easy': 0.6 + 0.01 * epoch}
             for epoch in range(1, epochs + 1)]


def test_training_curves_name_the_stages_and_count_whole_epochs(drawn, tmp_path):
    plots.training_curves(history(), tmp_path / 'a.png', ['easy', 'hard'])
    figure, = drawn
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ['stage 1: easy', 'stage 2: hard']
        assert all(float(tick).is_integer() for tick in axis.get_xticks())
    assert figure.axes[3].get_ylim() == pytest.approx((0.49, 1.01))
    assert (tmp_path / 'a.png').stat().st_size > 5000


def test_training_curves_of_one_epoch(drawn, tmp_path):
    plots.training_curves(history(1), tmp_path / 'a.png')
    assert not drawn[0].axes[0].texts
    assert [tick for tick in drawn[0].axes[0].get_xticks() if 0.5 < tick < 1.5] == [1]


def test_early_and_late_stand_on_every_offset_axis(drawn, tmp_path):
    offsets = np.linspace(-1, 1, 21)
    curve = {'offset_seconds': offsets.tolist(), 'distance': np.abs(offsets).tolist(),
             'interval': np.stack([np.abs(offsets)] * 2, -1).tolist(), 'clips': 3}
    plots.sync_curve(curve, np.abs(offsets), 'clip', tmp_path / 'a.png')
    plots.offset_curve(offsets, np.abs(offsets - 0.1), (0.1, 0.4), 'clip.mp4', tmp_path / 'b.png')
    plots.offset_errors({-0.1: [1.0, 2.0], 0.1: [3.0, 4.0], 0.2: []}, 40.0, tmp_path / 'c.png')
    for figure in drawn:
        label = figure.axes[0].get_xlabel()
        assert label.index('audio early') < label.index('audio late')
    assert len(drawn) == 3


def test_each_class_has_a_mark_of_its_own(drawn, tmp_path):
    rng = np.random.default_rng(0)
    for classes in (6, 50):
        labels = np.arange(2 * classes) % classes
        plots.embedding_map(rng.random((2 * classes, 2)), labels, [str(i) for i in range(classes)],
                            'title', tmp_path / 'a.png')
        paths = {points.get_paths()[0].vertices.tobytes()
                 for points in drawn[-1].axes[0].collections}
        assert len(paths) == classes


def test_frequencies_lie_on_the_bands_that_they_excite():
    from avts_tf.models.audio import build_frontend
    config = make_config('tiny')
    front_end = build_frontend(config)
    time = np.arange(config.clip.window_samples) / config.clip.sample_rate
    hertz, heights = plots._mel_ticks(config)
    assert hertz == ['250', '1,000', '2,000', '4,000']
    for frequency, height in zip(hertz, heights, strict=True):
        tone = 8000 * np.sin(2 * np.pi * float(frequency.replace(',', '')) * time)
        loudest = front_end.log_mel(tone[None].astype(np.int16)).numpy().mean((0, 1)).argmax()
        assert abs(loudest + 0.5 - height) < 1


def test_a_figure_that_fails_is_closed(tmp_path):
    with pytest.raises(ValueError, match='mistake'), plots.figure(tmp_path / 'a.png'):
        raise ValueError('mistake')
    assert plt.get_fignums() == [] and not (tmp_path / 'a.png').exists()
