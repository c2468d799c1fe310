"""The folders of an export, and its comparison with the Keras towers."""

import contextlib
import logging
import os
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from avts_tf import UserError
from avts_tf.inference import export, verify
from avts_tf.inference.signatures import TowerSignatures
from tests.inference.small import call, small_config


@pytest.mark.parametrize('name', ['audio_tower', 'video_tower'])
def test_warmup_requests_are_answered(towers, loaded, name):
    path, answered = towers / name / '1' / export.WARMUP, []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == name
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        signature = request.model_spec.signature_name
        outputs = call(loaded[name].signatures[signature], **inputs)
        assert all(np.isfinite(value).all() for value in outputs.values())
        answered.append(signature)
    assert answered == list(loaded[name].signatures)


class Doubler(TowerSignatures):
    """The smallest thing that can be exported."""

    def __init__(self, name):
        numbers = keras.Input([1], name='numbers')
        dense = keras.layers.Dense(1, kernel_initializer='ones', name='dense')
        model = keras.Model(numbers, {'embedding': dense(numbers)})
        super().__init__(model, small_config(normalize='none'), name)
        inputs = tf.TensorSpec([None, 1], tf.float32, 'waveform')
        self.inputs = {'serving_default': [inputs]}

    def _end_to_end(self, inputs, training):
        return {'embedding': 2.0 * self._keras_tower()(inputs)['embedding'][:, None]}

    def serving_default(self, waveform):
        return self(waveform)

    def examples(self, rng):
        return {'serving_default': {'waveform': rng.uniform(size=[3, 1]).astype(np.float32)}}


@pytest.fixture
def small_towers(monkeypatch):
    """A stand-in for a model; its towers are `Doubler`s, because these tests are about folders."""
    for name in ('audio', 'video'):
        monkeypatch.setattr(export, f'{name.title()}Signatures',
                            lambda tower, config, name=name: Doubler(f'{name}_tower'))
    return types.SimpleNamespace(audio_tower=None, video_tower=None, config=None)


def write_name(tower, path, training):
    """Takes the place of saving a tower."""
    with open(os.path.join(path, 'saved_model.pb'), 'w') as file:
        file.write(tower.name)


def test_versions_count_up(small_towers, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(export, '_save', write_name)
    monkeypatch.setattr(export, 'verify_towers', lambda towers, paths: [0.0] * len(paths))
    (tmp_path / 'video_tower' / '9').mkdir(parents=True)
    (tmp_path / 'video_tower' / 'notes').mkdir()
    caplog.set_level(logging.INFO, logger='avts_tf')
    exports = [export.export_towers(small_towers, tmp_path) for _ in range(2)]
    assert [os.path.relpath(paths[name], tmp_path) for paths in exports
            for name in ('audio_tower', 'video_tower')] == [
        'audio_tower/1', 'video_tower/10', 'audio_tower/2', 'video_tower/11']
    assert sorted(os.listdir(tmp_path / 'audio_tower')) == ['1', '2']
    assert os.stat(exports[0]['audio_tower']).st_mode & 0o777 == 0o755
    assert (tmp_path / 'audio_tower' / '1' / 'saved_model.pb').read_text() == 'audio_tower'
    assert [f'{path}: written' in caplog.text for paths in exports for path in paths.values()]


def test_nothing_is_left_of_a_failed_export(small_towers, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, '_IMPORTS', 'raise SystemExit("no such thing")\n')
    with pytest.raises(RuntimeError, match='cannot be used.*\nno such thing'):
        export.export_towers(small_towers, str(tmp_path))
    assert os.listdir(tmp_path / 'audio_tower') == os.listdir(tmp_path / 'video_tower') == []


# A tower that multiplies, instead of one that TensorFlow reloads.
MULTIPLYING = '''
import json, sys
import numpy as np
for _, _, example, outputs in json.load(open(sys.argv[1])):
    np.savez(outputs, embedding=FACTOR * np.load(example)['waveform'])
raise SystemExit(0)
'''


@pytest.mark.parametrize(('factor', 'refused'), [(2.0, False), (2.001, True)])
def test_a_tower_whose_outputs_changed_is_refused(
    small_towers, tmp_path, monkeypatch, factor, refused,
):
    monkeypatch.setattr(verify, '_IMPORTS', MULTIPLYING.replace('FACTOR', str(factor)))
    expected = pytest.raises(RuntimeError, match='audio_tower/.*: outputs differ .* by 5.0e-04')
    with expected if refused else contextlib.nullcontext():
        export.export_towers(small_towers, str(tmp_path))
    assert os.listdir(tmp_path / 'audio_tower') == ([] if refused else ['1'])


def test_a_folder_that_cannot_be_written(small_towers, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match='^export_dir=.*file/models: cannot be written'):
        export.export_towers(small_towers, str(tmp_path / 'file' / 'models'))
    assert (tmp_path / 'file').read_text() == 'in the way'
