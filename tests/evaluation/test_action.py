"""Action recognition: its labels, windows, statistics and protocol."""

import csv
import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.data.state import PipelineState
from avts_tf.data.synthetic import write_world
from avts_tf.data.window_datasets import make_labelled_dataset
from avts_tf.errors import UserError
from avts_tf.evaluation import action
from avts_tf.evaluation.classification import classification_metrics, rank_of_truth, wilson_interval
from avts_tf.models.two_tower import build_two_tower
from avts_tf.training.run_folder import RunFolder, load_inputs
from tests.helpers import ROOT, counting_video, edit_record, read_frames, read_sound, write_records

QUIET = {'say': lambda line: None}



@pytest.fixture(scope='module')
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp('world')
    for name, videos, seed in (('train', 48, 0), ('test', 24, 1)):
        write_world(str(folder / name), videos=videos, seconds=1.5, size=24, seed=seed, difficulty=0.0)
    return {name: f'{folder}/{name}-*-of-*' for name in ('train', 'test')}


@pytest.fixture(scope='module')
def tiny():
    return make_config('tiny', frame_size=16, batch_size=8, warmup_steps=2, epochs=2)


def test_wilson_interval_by_hand():
    # Newcombe 1998: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx([0.0, 0.1611], abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_metrics_by_hand():
    scores = np.array([[5, 1, 0, 0, 0, 0], [1, 5, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0], [1, 1, 1, 1, 1, 1]], float)
    truth = np.array([0, 0, 5, 1])
    assert rank_of_truth(scores, truth).tolist() == [0, 1, 5, 5]           # equal scores count as wrong
    results = classification_metrics(scores, truth, list('abcdef'))
    assert results['top1'] == 0.25 and results['top5'] == 0.5
    assert results['per_class']['a'] == {'right': 1, 'videos': 2, 'accuracy': 0.5, 'interval': wilson_interval(1, 2)}
    assert 'c' not in results['per_class'] and results['chance'] == 0.5
    assert np.array(results['confusion'])[0].tolist() == [1, 1, 0, 0, 0, 0] and np.sum(results['confusion']) == 4
    assert 'top5' not in classification_metrics(scores[:, :3], np.array([0, 0, 1, 2]), list('abc'))


def test_labels_and_prefix(world):
    labels = action.read_labels(world['train'], 'object:', 'records')
    assert len(labels) == 48 and set(labels.values()) == {'disc', 'square', 'triangle', 'diamond', 'cross', 'ring'}
    with pytest.raises(UserError, match='has 2 labels.*object:.*motion:.*--label_prefix'):
        action.read_labels(world['train'], '', 'records')
    with pytest.raises(UserError, match="no labels that begin with 'shape:'"):
        action.read_labels(world['train'], 'shape:', 'records')


def test_stratified_by_hand():
    labels = {f'{name}{i}': name for name, count in (('a', 60), ('b', 30), ('c', 10)) for i in range(count)}
    chosen = action.stratified(labels, 20, seed=3)
    assert len(set(chosen)) == 20
    assert [sum(example[0] == name for example in chosen) for name in 'abc'] == [12, 6, 2]
    assert sorted(action.stratified(labels, 100, 0)) == sorted(labels)
    assert {example[0] for example in action.stratified(labels, 3, 0)} == set('abc')
    assert action.stratified(labels, 20, 3) == chosen != action.stratified(labels, 20, 4)
    with pytest.raises(UserError, match='--train_clips=2'):
        action.stratified(labels, 2, 0)


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
            assert read_sound(sound) == (clip, frames[0] * 640)            # 16000 / 25 samples a frame
            assert frames.tolist() == list(range(frames[0], frames[0] + 10))
            starts.append(frames[0])
        assert starts == [0, 10, 20, 30, 40]                               # of 50 frames the last window begins at 40
        assert classes[0] == clip + 10
        clips.append(clip)
    assert sorted(clips) == list(range(6))


def test_training_windows_are_random_in_sync_and_of_the_chosen_records(counting):
    config = make_config('tiny', frames=10, frame_size=32, batch_size=4, passes_per_epoch=20, flip=False, crop_scale_min=1.0)
    state = PipelineState()
    dataset = make_labelled_dataset(counting, config, {'clip-1': 7, 'clip-4': 8}, state=state)

    def epoch():
        seen = []
        for inputs, classes in dataset:
            for video, sound, index in zip(inputs['video'].numpy(), inputs['audio'].numpy(), classes.numpy(), strict=True):
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
    only = next(iter(make_labelled_dataset(counting, config, {'clip-1': 7, 'clip-4': 8}, streams=['audio'])))
    assert list(only[0]) == ['audio']


def test_scaled_layers_learn_so_much_slower():
    steps = []
    for factors in (None, [0.5, 1.0, 0.0]):
        variables = [keras.Variable([1.0, 2.0], name=name) for name in 'abc']
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.0)
        optimizer.build(variables)
        if factors:
            action.scale_layers(optimizer, factors)
        before = [variable.numpy() for variable in variables]
        for _ in range(2):
            optimizer.apply_gradients(zip([tf.constant([1.0, -3.0])] * 3, variables, strict=True))
        steps.append([variable.numpy() - old for variable, old in zip(variables, before, strict=True)])
    plain, scaled = steps
    for step, factor in zip(scaled, [0.5, 1.0, 0.0], strict=True):
        np.testing.assert_allclose(step, plain[0] * factor, rtol=1e-5)


def test_depths_of_the_stages(tiny):
    model = build_two_tower(tiny)
    classifier = action.build_classifier(model, 'both', 4, False, 0)
    depth = {(variable.path, variable.shape[-2:]): depth for variable, depth in
             zip(classifier.trainable_variables, action.depths(classifier), strict=True)}
    by_path = {}
    for (path, _), stages in depth.items():
        by_path.setdefault(path, set()).add(stages)
    assert by_path['conv1/kernel'] == {5} and by_path['conv3/kernel'] == {3}       # of both towers
    assert by_path['conv5_2_conv2/kernel'] == by_path['conv5_bn/gamma'] == {1}
    assert by_path['softmax/kernel'] == {0}
    assert not any('fc6' in path or 'projection' in path for path in by_path)      # above the pooled features: not trained


def test_scores_are_the_mean_softmax_over_windows(world, tiny):
    model = build_two_tower(tiny)
    classifier = action.build_classifier(model, 'video', 6, False, 0)
    labels = action.read_labels(world['test'], 'object:', 'eval_records')
    names = sorted(set(labels.values()))
    class_of = {example: names.index(label) for example, label in labels.items()}
    protocol = action.Protocol(clips_per_video=3)
    scores, truth = action.score_videos(classifier, world['test'], class_of, tiny, protocol, **QUIET)
    assert len(scores) == 24 and np.bincount(truth).tolist() == [4] * 6
    inputs, classes = next(iter(make_labelled_dataset(world['test'], tiny, class_of, windows=3, streams=('video',))))
    logits = classifier(inputs, training=False).numpy().astype(np.float64)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(scores[0], (odds / odds.sum(1, keepdims=True)).mean(0), rtol=1e-4)
    assert truth[0] == classes[0]


@pytest.fixture(scope='module')
def learnt(world, tmp_path_factory):
    """A net that was trained to tell the objects by their looks."""
    run_dir = str(tmp_path_factory.mktemp('runs') / 'objects')
    config = make_config('tiny', frame_size=16, batch_size=8, warmup_steps=5, epochs=3, passes_per_epoch=8, frames=8)
    protocol = action.Protocol(label_prefix='object:', clips_per_video=2)
    return config, run_dir, action.recognise_actions(config, protocol, world['train'], world['test'], run_dir, **QUIET)


def test_objects_are_told_by_their_looks(learnt):
    _, run_dir, results = learnt
    assert results['top1'] > 0.6                                           # six classes; chance is 0.17
    with open(f'{run_dir}/result.json') as file:
        assert json.load(file)[action.MODE]['top1'] == results['top1']
    assert tf.io.gfile.exists(f'{run_dir}/plots/confusion.png')
    assert load_inputs(run_dir)['classes'] == ['cross', 'diamond', 'disc', 'ring', 'square', 'triangle']


def test_frozen_towers_of_a_run_stay_and_still_tell(learnt, world, tmp_path):
    config, run_dir, _ = learnt
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, passes_per_epoch=2))
    protocol = action.Protocol('trained', run_dir, freeze=True, label_prefix='object:', clips_per_video=2)
    before = action._initial_model(config, protocol).video_tower.get_layer('conv1').kernel.numpy()
    lines = []
    frozen = action.recognise_actions(config, protocol, world['train'], world['test'], str(tmp_path / 'frozen'), say=lines.append)
    assert frozen['top1'] > 0.6
    kept = action._initial_model(config, action.Protocol('trained', str(tmp_path / 'frozen')))
    np.testing.assert_array_equal(kept.video_tower.get_layer('conv1').kernel.numpy(), before)
    np.testing.assert_array_equal(kept.video_tower.get_layer('conv1_bn').moving_mean.numpy(),
                                  action._initial_model(config, protocol).video_tower.get_layer('conv1_bn').moving_mean.numpy())
    # The same command again trains nothing; another protocol on the same folder is refused.
    again = action.recognise_actions(config, protocol, world['train'], world['test'], str(tmp_path / 'frozen'), say=lines.append)
    assert again['top1'] == frozen['top1'] and any('epochs are done' in line for line in lines)
    with pytest.raises(UserError, match='holds another run .freeze is True, asked for False'):
        action.recognise_actions(config, protocol._replace(freeze=False), world['train'], world['test'], str(tmp_path / 'frozen'),
                                 **QUIET)


def test_mistakes(world, tiny, tmp_path):
    def recognise(train, test, **protocol):
        action.recognise_actions(tiny, action.Protocol(**protocol), train, test, str(tmp_path / 'run'), **QUIET)

    with pytest.raises(UserError, match='--eval_records'):
        recognise(world['train'], None, label_prefix='object:')
    sound = np.zeros(32000, np.int16)
    for name, classes in (('two', 'ab'), ('other', 'az'), ('one', 'a')):
        write_records(tmp_path / name, [
            records.encode(records.Video(f'{name}{i}', [b''], 25.0, 8, 8, sound, 16000, labels=((0, label),)))
            for i, label in enumerate(classes)])
    with pytest.raises(UserError, match="class 'z' is not among the 2 classes"):
        recognise(str(tmp_path / 'two'), str(tmp_path / 'other'))
    with pytest.raises(UserError, match="one class only, 'a'"):
        recognise(str(tmp_path / 'one'), str(tmp_path / 'one'))
    with pytest.raises(UserError, match='no full batch of --batch_size=8'):
        recognise(str(tmp_path / 'two'), str(tmp_path / 'two'))
    with pytest.raises(UserError, match='wants {split} in it'):
        action.recognise_splits(tiny, action.Protocol(), world['train'], world['test'], str(tmp_path / 'splits'), ['1'], **QUIET)
    with pytest.raises(UserError, match='--frames.*leave it out'):
        (tmp_path / 'source').mkdir()
        (tmp_path / 'source/config.json').write_text(tiny.to_json())
        action.take_sizes(tiny, {'frames': 3}, str(tmp_path / 'source'))
    twice = [edit_record(records.encode(counting_video(0)), lambda example, name=name: example.context.feature[
        records.LABEL_STRING].bytes_list.value.append(name)) for name in (b'a', b'b')]
    with pytest.raises(UserError, match="two records are called 'clip-0'"):
        action.read_labels(write_records(tmp_path / 'twice', twice), '', 'records')


def test_splits_and_their_mean(tiny, tmp_path, monkeypatch):
    asked = []

    def recognise(config, protocol, pattern, eval_pattern, run_dir, devices, say):
        asked.append((pattern, eval_pattern, run_dir))
        return {'top1': 0.5 if 'train1' in pattern else 0.7, 'top1_interval': [0.4, 0.8], 'videos': 100}

    monkeypatch.setattr(action, 'recognise_actions', recognise)
    (tmp_path / 'run').mkdir()
    lines = []
    summary = action.recognise_splits(tiny, action.Protocol(), 'train{split}-*', 'test{split}-*', str(tmp_path / 'run'), ['1', '2'],
                                      say=lines.append)
    assert asked == [(f'train{n}-*', f'test{n}-*', f'{tmp_path}/run/split{n}') for n in '12']
    assert summary['top1'] == pytest.approx(0.6) and 'mean of 2 splits: top1 60.0 % [50.2, 69.1]' in lines
    with open(tmp_path / 'run/result.json') as file:
        assert json.load(file)[action.MODE] == summary


def test_a_stopped_run_goes_on_to_the_same_end(world, tmp_path):
    config = make_config('tiny', frame_size=16, batch_size=8, warmup_steps=0, frames=8, epochs=2, audio_width=0.1)
    protocol = action.Protocol(streams='audio', freeze=True, label_prefix='object:', clips_per_video=1)

    def recognise(name, say):
        return action.recognise_actions(config, protocol, world['test'], world['test'], str(tmp_path / name), say=say)

    def stop(line):
        if line.startswith('epoch 1/2'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recognise('stopped', stop)
    lines = []
    recognise('stopped', lines.append)
    recognise('unbroken', lines.append)
    assert any('going on after epoch 1 of 2' in line for line in lines)
    stopped, unbroken = (RunFolder(str(tmp_path / name), config).read_checkpoint().arrays for name in ('stopped', 'unbroken'))
    assert stopped.keys() == unbroken.keys() and len(stopped) > 10
    for name, values in unbroken.items():
        np.testing.assert_allclose(stopped[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_devices_train_as_one(world, tmp_path):
    root = ROOT
    losses = []
    for devices in (1, 2):
        run_dir = tmp_path / f'devices{devices}'
        subprocess.run(
            [sys.executable, str(root / 'main.py'), '--mode=action_recognition', '--preset=tiny', '--frame_size=16', '--epochs=2',
             '--batch_size=8', '--streams=both', '--label_prefix=object:', '--clips_per_video=1', f'--devices={devices}',
             f'--records={world["train"]}', f'--eval_records={world["test"]}', f'--run_dir={run_dir}'],
            check=True, capture_output=True)
        with open(run_dir / 'history.csv', newline='') as file:
            losses.append([float(row['loss']) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_an_epoch_is_made_of_the_records_alone(learnt):
    """Keras's own loop ends an epoch under a strategy with a step on a batch of zeros."""
    config, run_dir, _ = learnt
    steps = 48 * config.train.passes_per_epoch // config.train.batch_size * config.train.epochs
    optimizer = RunFolder(run_dir, config).read_checkpoint().arrays['optimizer-0000']
    assert int(optimizer) == steps
