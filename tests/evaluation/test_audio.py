"""Audio classification: independence of test clips, the report, and the command."""

import json
import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from avts_tf import command_line
from avts_tf.config import make_config
from avts_tf.errors import UserError
from avts_tf.evaluation import audio
from avts_tf.evaluation.folds import Fold
from avts_tf.evaluation.tower_features import ProbedTower
from avts_tf.models.two_tower import build_two_tower
from avts_tf.training.optimizer import make_optimizer
from avts_tf.training.run_folder import RunFolder, update_result
from tests.evaluation.sounds import RATE, sound


@pytest.fixture(scope='module')
def run_dir(tmp_path_factory):
    """The run folder of a tiny model that was saved and not trained."""
    path = str(tmp_path_factory.mktemp('run'))
    config = make_config('tiny', frame_size=16, seed=5)
    model = build_two_tower(config)
    model.compile(optimizer=make_optimizer(config))
    model.optimizer.build(model.trainable_variables)
    RunFolder(path, config, {'records': 'none'}).save(model, 1)
    return path


@pytest.mark.parametrize('features', [
    'mfcc', 'random', pytest.param('scratch', marks=pytest.mark.slow)])
def test_a_clip_is_classified_without_the_other_test_clips(features):
    rng = np.random.default_rng(8)
    kinds = ['low', 'high', 'noise'] * 4
    waveforms = [sound(kind, 2.2, rng) for kind in kinds]
    labels, groups = np.array([0, 1, 2] * 4), np.arange(12)
    fold = Fold('fold', np.arange(6), np.arange(6, 12))
    protocol = audio.Protocol(features, pooling='mean')
    config = make_config('tiny', epochs=1, batch_size=4)

    def scores_of_first(waveforms):
        [outcome] = audio._outcomes(protocol, None, config, waveforms, labels, groups, [fold], 3)
        return outcome.scores[0]

    usual = scores_of_first(waveforms)
    louder = [(20.0 * waveform).clip(-32768, 32767).astype(np.int16) for waveform in waveforms[7:]]
    np.testing.assert_array_equal(scores_of_first([*waveforms[:7], *louder]), usual)


def test_report_by_hand():
    labels = np.array([0, 0, 1, 1, 1, 0])
    scores = np.eye(2)[[0, 1, 1, 1, 0, 0]]
    folds = [Fold('one', np.array([2, 3, 4]), np.array([0, 1])),
             Fold('two', np.array([0, 1]), np.array([2, 3, 4]))]
    results = audio.report(scores, labels, ['a', 'b'], folds)   # the last clip is in no fold
    assert results['examples'] == 5 and results['chance'] == 0.6
    assert results['accuracy'] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert results['folds']['two'] == {'right': 2, 'examples': 3, 'accuracy': 2 / 3}
    assert results['confusion'] == [[1, 1], [1, 2]]
    low, high = results['accuracy_interval']
    assert low < 3 / 5 < high and results['per_class']['a']['examples'] == 2


@pytest.fixture
def few_windows(monkeypatch):
    """Two windows a clip, and no t-SNE."""
    plain = audio.DATASETS['']._replace(windows_per_clip=2)
    monkeypatch.setitem(audio.DATASETS, '', plain)
    monkeypatch.setattr(audio, 'project', lambda vectors, seed: vectors[:, :2])


def test_clips_are_mapped_to_the_plane():
    vectors = np.random.default_rng(14).standard_normal([12, 5])
    assert audio.project(vectors, 0).shape == (12, 2) and audio.project(vectors[:3],
                                                                        0).shape == (3, 2)
    assert audio.project(vectors[:3, :1], 0).shape == (3, 2)


def command(*flags):
    command_line.read(['--mode=audio_classification', *flags])()


def saved_result(folder):
    with open(os.path.join(folder, 'result.json')) as file:
        return json.load(file)


@pytest.mark.parametrize(('features', 'flags'), [
    ('mfcc', ['--classifier=svm']),
    pytest.param('scratch', ['--preset=tiny', '--epochs=12', '--batch_size=9', '--warmup_steps=5',
                             '--learning_rate=0.005'],
                 marks=pytest.mark.slow),
    pytest.param('random', ['--preset=tiny', '--conv5_pooling=mean'], marks=pytest.mark.slow),
    pytest.param('soundnet_random', [], marks=pytest.mark.slow),
])
def test_the_command_separates_tones_from_noise(
        collection, tmp_path, capsys, caplog, few_windows, features, flags):
    caplog.set_level(logging.INFO, logger='avts_tf')
    command(f'--input={collection}', f'--features={features}', f'--run_dir={tmp_path}/out', *flags)
    results = saved_result(tmp_path / 'out')[f'audio_classification_sounds_{features}_svm']
    assert results['examples'] == 28 and results['left_out'] == {'unreadable': 1, 'missing': 1}
    assert set(results['folds']) == {'fold1', 'fold2', 'fold3'}
    assert results['accuracy'] > 0.85, results['folds']
    assert all(os.path.getsize(path) > 5000 for path in results['plots'].values())
    shown = capsys.readouterr().out
    assert '2 of 30 sounds left out' in caplog.text and 'chance is 35.7 %' in shown


def test_a_layer_is_chosen_on_the_training_folds_alone(collection, few_windows):
    def layers(windows):
        spectrum = np.abs(np.fft.rfft(windows[:, :4096] / 32768.0))
        known = np.log(spectrum[:, :2048].reshape(-1, 32, 64).mean(2) + 1e-3)
        nothing = np.random.default_rng(0).standard_normal([len(windows), 8])
        return {'nothing': nothing, 'known': known}

    tower = ProbedTower(RATE, layers=layers)
    found = audio.classify_sounds(str(collection), '', audio.Protocol(), make_config('tiny'), tower)
    assert {chosen['layer'] for chosen in found.results['chosen'].values()} == {'known'}
    assert found.results['accuracy'] > 0.85


@pytest.mark.slow
def test_towers_of_a_run_and_exported(collection, run_dir, tmp_path, few_windows):
    command(f'--input={collection}', f'--run_dir={run_dir}', f'--output={tmp_path}/run',
            '--conv5_pooling=mean')
    probed = saved_result(tmp_path / 'run')['audio_classification_sounds_tower_svm']
    assert probed['accuracy'] > 0.85 and probed['tower'] == run_dir and probed['pooling'] == 'mean'
    assert all('C' in chosen for chosen in probed['chosen'].values())

    # Results of other features stand beside them.
    update_result(str(tmp_path / 'run'), {'another': {}})
    assert set(saved_result(tmp_path / 'run')) == {'audio_classification_sounds_tower_svm',
                                                   'another'}

    class Exported(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int16, 'waveform')])
        def pcm(self, waveform):
            spectrum = tf.abs(tf.signal.stft(tf.cast(waveform, tf.float32) / 32768, 400, 200, 512))
            return {'conv5': tf.reduce_mean(tf.math.log(spectrum + 1e-4), 1)[:, ::8]}

    exported, version = Exported(), tmp_path / 'towers/3'
    tf.saved_model.save(exported, str(version), signatures={'pcm': exported.pcm})
    (version / 'assets').mkdir(exist_ok=True)
    metadata = {'tower': 'audio_tower', 'sample_rate': 8000, 'clip': {'window_samples': 8000}}
    (version / 'assets/metadata.json').write_text(json.dumps(metadata))
    command(f'--input={collection}', f'--tower={tmp_path}/towers', f'--output={tmp_path}/exported')
    probed = saved_result(tmp_path / 'exported')['audio_classification_sounds_tower_svm']
    assert probed['accuracy'] > 0.85 and probed['pooling'] == 'mean'
    assert probed['tower'].endswith('towers')


@pytest.mark.parametrize(('flags', 'words'), [
    ([], ['--input']),
    (['--input=nowhere', '--features=mfcc'], ['--input=nowhere']),
    (['--input={csv}', '--dataset=esc11', '--run_dir={run}'], ['--dataset=esc11', 'esc10']),
    (['--input={csv}', '--run_dir=nowhere'], ['nowhere', 'no run']),
    (['--input={csv}', '--features=mfcc', '--audio_width=0.5'], ['--audio_width', 'mfcc']),
    (['--input={csv}', '--run_dir={run}', '--preset=tiny'], ['--preset', 'leave it out']),
    (['--input={csv}', '--run_dir={run}', '--features=random', '--epochs=3'],
     ['--epochs', 'leave it out']),
    (['--input={csv}', '--tower=nowhere'], ['nowhere', 'no such folder']),
    (['--input={csv}', '--tower=x', '--conv5_pooling=cells'], ['--conv5_pooling=cells', 'mean']),
    (['--input={csv}', '--tower=x', '--features=mfcc'], ['--tower=x', 'no meaning for', 'mfcc']),
    (['--input={csv}', '--features=mfcc', '--make_folds=40'], ['--make_folds=40', 'recording']),
    (['--input={csv}', '--features=soundnet'], ['--weights', 'sound8.npy']),
    (['--input={csv}', '--features=soundnet', '--weights=nowhere'],
     ['--weights=nowhere', 'no such file']),
    (['--input={csv}', '--features=soundnet', '--weights={csv}'], ['--weights=', 'as weights']),
    (['--input={csv}', '--features=soundnet_random', '--weights={csv}'], ['--weights', 'leave it']),
    (['--input={csv}', '--features=soundnet_random', '--preset=tiny'], ['--preset', 'leave it']),
])
def test_mistakes(collection, run_dir, tmp_path, flags, words):
    with pytest.raises(UserError) as error:
        command(f'--output={tmp_path}/out',
                *(flag.format(csv=collection, run=run_dir) for flag in flags))
    shown = error.value.on_command_line()
    assert all(word in shown for word in words), shown


@pytest.mark.slow
@pytest.mark.skipif('AVTS_DATA' not in os.environ, reason='needs ESC-10')
def test_published_baselines_on_esc10(tmp_path):
    """Training on 11 of 12 parts of the folds that are there equals Piczak's four of five."""
    for classifier, published in (('random_forest', 72.7), ('svm', 67.5), ('knn', 66.7)):
        command(f'--input={os.environ["AVTS_DATA"]}/esc10.csv', '--dataset=esc10',
                '--features=mfcc', f'--classifier={classifier}',
                '--make_folds=12', f'--output={tmp_path}')
        found = saved_result(tmp_path)[f'audio_classification_esc10_mfcc_{classifier}']
        accuracy = 100 * found['accuracy']
        assert abs(accuracy - published) < 4, (classifier, accuracy)
