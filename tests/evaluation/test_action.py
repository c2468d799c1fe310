"""Action recognition: its windows, its statistics and its protocol."""

import csv
import dataclasses
import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from avts_tf.commands import action_recognition
from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.data.state import PipelineState
from avts_tf.data.window_datasets import make_labelled_dataset
from avts_tf.errors import UserError
from avts_tf.evaluation import action
from avts_tf.evaluation.fine_tune import build_classifier
from avts_tf.evaluation.labels import read_labels
from avts_tf.models.two_tower import build_two_tower
from avts_tf.training.run_folder import RunFolder, load_inputs
from tests.helpers import ROOT, counting_video, read_frames, read_sound, write_records


@pytest.fixture(scope='module')
def tiny():
    return make_config('tiny', frame_size=16, batch_size=8, warmup_steps=2, epochs=2)


@pytest.fixture(scope='module')
def counting(tmp_path_factory):
    path = tmp_path_factory.mktemp('counting') / 'clips'
    return write_records(path, [records.encode(counting_video(clip)) for clip in range(6)])


def test_test_windows_are_equally_spaced_and_in_sync(counting):
    config = make_config('tiny', frames=10, frame_size=32)
    class_of = {f'clip-{clip}': clip + 10 for clip in range(6)}
    clips = []
    for inputs, classes in make_labelled_dataset(counting, config, class_of, windows=5):
        assert inputs['video'].shape == [5, 10, 32, 32, 3] and len(set(classes.numpy())) == 1
        starts = []
        for video, sound in zip(inputs['video'].numpy(), inputs['audio'].numpy(), strict=True):
            clip, frames = read_frames(video)
            # 16000 / 25 samples a frame
            assert read_sound(sound) == (clip, frames[0] * 640)
            assert frames.tolist() == list(range(frames[0], frames[0] + 10))
            starts.append(frames[0])
        # of 50 frames the last window begins at 40
        assert starts == [0, 10, 20, 30, 40]
        assert classes[0] == clip + 10
        clips.append(clip)
    assert sorted(clips) == list(range(6))


def test_training_windows_are_random_in_sync_and_of_the_chosen_records(counting):
    config = make_config('tiny', frames=10, frame_size=32, batch_size=4, passes_per_epoch=20,
                         flip=False, crop_scale_min=1.0)
    state = PipelineState()
    dataset = make_labelled_dataset(counting, config, {'clip-1': 7, 'clip-4': 8}, state=state)

    def epoch():
        seen = []
        for inputs, classes in dataset:
            for video, sound, index in zip(inputs['video'].numpy(), inputs['audio'].numpy(),
                                           classes.numpy(), strict=True):
                clip, frames = read_frames(video)
                assert read_sound(sound) == (clip, frames[0] * 640)
                assert index == {1: 7, 4: 8}[clip]
                seen.append((clip, int(frames[0])))
        return seen

    first = epoch()
    assert len(first) == 40 and len({start for _, start in first}) > 15
    assert epoch() == first
    state.epoch.assign(1)
    assert epoch() != first
    only = next(iter(make_labelled_dataset(counting, config, {'clip-1': 7, 'clip-4': 8},
                                           streams=['audio'])))
    assert list(only[0]) == ['audio']


def test_scores_are_the_mean_softmax_over_windows(world, tiny):
    model = build_two_tower(tiny)
    classifier = build_classifier(model, 'audio', 6)
    labels = read_labels(world['test'], 'object:', 'eval_records')
    names = sorted(set(labels.values()))
    class_of = {example: names.index(label) for example, label in labels.items()}
    protocol = action.Protocol(streams='audio', clips_per_video=3)
    scores, truth = action.score_videos(classifier, world['test'], class_of, tiny, protocol)
    assert len(scores) == 24 and np.bincount(truth).tolist() == [4] * 6
    inputs, classes = next(iter(make_labelled_dataset(world['test'], tiny, class_of, windows=3,
                                                      streams=('audio',))))
    logits = classifier(inputs, training=False).numpy().astype(np.float64)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(scores[0], (odds / odds.sum(1, keepdims=True)).mean(0), rtol=1e-4)
    assert truth[0] == classes[0]


@pytest.fixture(scope='module')
def learnt(world, tmp_path_factory):
    """A network that was trained to recognise the objects by their looks."""
    run_dir = str(tmp_path_factory.mktemp('runs') / 'objects')
    config = make_config('tiny', frame_size=16, batch_size=8, warmup_steps=5, epochs=3,
                         passes_per_epoch=6, frames=8)
    protocol = action.Protocol(label_prefix='object:', clips_per_video=2)
    return config, run_dir, action.recognise_actions(config, protocol, world['train'],
                                                     world['test'], run_dir)


@pytest.mark.slow
def test_objects_are_recognised_by_their_looks(learnt):
    _, run_dir, results = learnt
    assert results['accuracy'] > 0.4  # six classes; chance is 0.17
    assert load_inputs(run_dir)['classes'] == ['cross', 'diamond', 'disc', 'ring', 'square',
                                               'triangle']


@pytest.mark.slow
def test_frozen_towers_of_a_run_stay_and_still_recognise(learnt, world, tmp_path, caplog):
    config, run_dir, _ = learnt
    config = dataclasses.replace(config, train=dataclasses.replace(config.train,
                                                                   passes_per_epoch=2))
    protocol = action.Protocol('trained', run_dir, freeze=True, label_prefix='object:',
                               clips_per_video=2)

    def first_layer(protocol):
        tower = action.initial_model(config, protocol).video_tower
        return (tower.get_layer('conv1').kernel.numpy(),
                tower.get_layer('conv1_bn').moving_mean.numpy())

    before = first_layer(protocol)
    caplog.set_level(logging.INFO, logger='avts_tf')
    frozen = action.recognise_actions(config, protocol, world['train'], world['test'],
                                      str(tmp_path / 'frozen'))
    assert frozen['accuracy'] > 0.6
    after = first_layer(action.Protocol('trained', str(tmp_path / 'frozen')))
    for value, old in zip(after, before, strict=True):
        np.testing.assert_array_equal(value, old)
    # The same command again trains nothing; another protocol on the same folder is refused.
    again = action.recognise_actions(config, protocol, world['train'], world['test'],
                                     str(tmp_path / 'frozen'))
    assert again['accuracy'] == frozen['accuracy'] and 'epochs are done' in caplog.text
    with pytest.raises(UserError, match='holds another run .freeze is True, asked for False'):
        action.recognise_actions(config, protocol._replace(freeze=False), world['train'],
                                 world['test'], str(tmp_path / 'frozen'))


def test_mistakes(world, tiny, tmp_path):
    def recognise(train, test, **protocol):
        action.recognise_actions(tiny, action.Protocol(**protocol), train, test,
                                 str(tmp_path / 'run'))

    with pytest.raises(UserError, match='eval_records'):
        recognise(world['train'], None, label_prefix='object:')
    sound = np.zeros(32000, np.int16)
    for name, classes in (('two', 'ab'), ('other', 'az'), ('one', 'a')):
        write_records(tmp_path / name, [
            records.encode(records.Video(f'{name}{i}', [b''], 25.0, 8, 8, sound, 16000,
                                         labels=((0, label),)))
            for i, label in enumerate(classes)])
    with pytest.raises(UserError, match="class 'z' is not among the 2 classes"):
        recognise(str(tmp_path / 'two'), str(tmp_path / 'other'))
    with pytest.raises(UserError, match="one class only, 'a'"):
        recognise(str(tmp_path / 'one'), str(tmp_path / 'one'))
    with pytest.raises(UserError, match='batch_size=8: 2 training videos make no full batch'):
        recognise(str(tmp_path / 'two'), str(tmp_path / 'two'))
    with pytest.raises(UserError, match='must contain {split}'):
        action.recognise_splits(tiny, action.Protocol(), world['train'], world['test'],
                                str(tmp_path / 'splits'), ['1'])
    with pytest.raises(UserError, match='frames: .*leave it out'):
        (tmp_path / 'source').mkdir()
        (tmp_path / 'source/config.json').write_text(tiny.to_json())
        action.take_sizes(tiny, {'frames': 3}, str(tmp_path / 'source'))


def test_splits_their_mean_and_what_is_written(tiny, tmp_path, monkeypatch, capsys):
    asked = []

    def recognise(config, protocol, records, eval_records, run_dir, devices):
        asked.append((records, eval_records, run_dir))
        accuracy = 0.5 if 'train1' in records else 0.7
        return {'accuracy': accuracy, 'accuracy_interval': [0.4, 0.8], 'examples': 100,
                'classes': ['a', 'b'], 'confusion': [[30, 20], [20, 30]]}

    monkeypatch.setattr(action, 'recognise_actions', recognise)
    run_dir = str(tmp_path / 'run')
    action_recognition.recognise(tiny, action.Protocol(), 'train{split}-*', 'test{split}-*',
                                 run_dir, ['1', '2'], 'auto')
    assert asked == [(f'train{n}-*', f'test{n}-*', f'{run_dir}/split{n}') for n in '12']
    summary = json.loads((tmp_path / 'run/result.json').read_text())[action.MODE]
    assert summary['accuracy'] == pytest.approx(0.6)
    of_split = json.loads((tmp_path / 'run/split2/result.json').read_text())[action.MODE]
    assert of_split == summary['splits']['2']
    assert (tmp_path / 'run/split1/plots/confusion.png').stat().st_size > 5000
    shown = capsys.readouterr().out
    assert 'split 1: accuracy 50.0 % [40.0, 80.0]' in shown
    assert 'mean of 2 splits: accuracy 60.0 % [50.2, 69.1]' in shown


@pytest.mark.slow
def test_two_devices_train_as_one(world, tmp_path):
    root = ROOT
    losses = []
    for devices in (1, 2):
        run_dir = tmp_path / f'devices{devices}'
        subprocess.run(
            [sys.executable, str(root / 'main.py'), '--mode=action_recognition', '--preset=tiny',
             '--frame_size=16', '--epochs=2',
             '--batch_size=8', '--streams=both', '--label_prefix=object:', '--clips_per_video=1',
             f'--devices={devices}',
             f'--records={world["train"]}', f'--eval_records={world["test"]}',
             f'--run_dir={run_dir}'],
            check=True, capture_output=True)
        with open(run_dir / 'history.csv', newline='') as file:
            losses.append([float(row['loss']) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.slow
def test_an_epoch_is_made_of_the_records_alone(learnt):
    """Keras's own loop ends an epoch under a strategy with a step on a batch of zeros."""
    config, run_dir, _ = learnt
    steps = 48 * config.train.passes_per_epoch // config.train.batch_size * config.train.epochs
    optimizer = RunFolder(run_dir, config).read_checkpoint().arrays['optimizer-0000']
    assert int(optimizer) == steps
