"""What an exported tower states about itself and its training."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from avts_tf import make_config
from avts_tf.inference import metadata
from avts_tf.training import checkpoints


def read_metadata(loaded):
    with open(loaded.metadata.asset_path.numpy()) as file:
        return json.load(file)


def test_signatures_are_what_the_metadata_states(loaded):
    names = {tower: list(signatures.signatures) for tower, signatures in loaded.items()}
    assert names == {'audio_tower': ['serving_default', 'windows', 'pcm', 'window'],
                     'video_tower': ['serving_default', 'jpeg', 'window']}
    for tower in loaded.values():
        stated = read_metadata(tower)['signatures']
        assert stated.keys() == tower.signatures.keys()
        for name, function in tower.signatures.items():
            found = {'inputs': function.structured_input_signature[1],
                     'outputs': function.structured_outputs}
            for kind, items in found.items():
                items = {key: [item.dtype.name, item.shape.as_list()]
                         for key, item in items.items()}
                assert items == {key: [item['dtype'], item['shape']]
                                 for key, item in stated[name][kind].items()}
    audio = read_metadata(loaded['audio_tower'])['signatures']
    assert audio['window']['inputs']['waveform']['shape'] == [None, 7680]
    assert audio['windows']['outputs']['embedding']['shape'] == [None, None, 16]
    assert audio['windows']['outputs']['timestamps']['unit'] == 'seconds, centre of each window'
    video = read_metadata(loaded['video_tower'])['signatures']
    assert video['window']['inputs']['frames']['shape'] == [None, 12, 16, 16, 3]


def test_metadata_and_checksum(model, loaded):
    stated = {name: read_metadata(tower) for name, tower in loaded.items()}
    for name, values in stated.items():
        assert values['tower'] == name and values['tensorflow_version'] == tf.__version__
        assert values['clip']['window_samples'] == 7680
        assert values['clip']['window_seconds'] == 0.48
        assert values['sample_rate'] == 16000 and values['embedding_size'] == 16
        assert values['unit_length'] is True
        assert values['config'] == json.loads(model.config.to_json())
        assert values['training'] == {'epochs': 3}
        # The same weights have the same checksum, before and after; others have another.
        variables = [variable.value for variable in getattr(model, name).variables]
        assert metadata.checksum(loaded[name].variables) == values['checksum']
        assert metadata.checksum(variables) == values['checksum']
        assert metadata.checksum(variables[::-1]) != values['checksum']
    assert stated['audio_tower']['feature_sizes'] == {'conv5': 16}
    assert stated['video_tower']['feature_sizes'] == {'features': 32}


def test_metadata_moves_with_the_folder(towers, loaded, tmp_path):
    shutil.copytree(towers / 'audio_tower' / '1', tmp_path / 'moved')
    moved = tf.saved_model.load(str(tmp_path / 'moved'))
    path = moved.metadata.asset_path.numpy().decode()
    assert os.path.dirname(path) == str(tmp_path / 'moved' / 'assets')
    assert read_metadata(moved) == read_metadata(loaded['audio_tower'])


def write_run(run, inputs, results):
    (run / 'checkpoints').mkdir(parents=True)
    checkpoints.write_checkpoint(str(run / 'checkpoints' / 'epoch-0007-step-000000.npz'), {}, {})
    config = json.loads(make_config('tiny').to_json())
    (run / 'config.json').write_text(json.dumps({**config, 'inputs': inputs}))
    (run / 'result.json').write_text(json.dumps(results))


def test_a_run_is_described_without_the_paths_of_this_machine(tmp_path):
    run, data = tmp_path / 'run', tmp_path / 'private' / 'data'
    data.mkdir(parents=True)
    for name, count in (('a-00000-of-00002', 2), ('a-00001-of-00002', 1), ('b-00000-of-00001', 4)):
        with tf.io.TFRecordWriter(str(data / name)) as writer:
            for _ in range(count):
                writer.write(b'record')
    (data / 'a.json').write_text('{"dataset_name": "first"}')
    skipped = {'lost': {'times': 1, 'first': [f'{data}/a-00000-of-00001', 'folder/clip']}}
    write_run(run, {'records': f'{data}/a-*-of-*, {data}/b-*', 'eval_records': f'{data}/gone-*'}, {
        'sync': {'threshold': 0.8, 'measured_on': f'{data}/gone-*'},
        'exported': {'audio_tower': f'{run}/1'}, 'training': {'skipped_records': skipped}})
    description = metadata.describe_training(str(run), 7)
    skipped['lost']['first'][0] = 'a-00000-of-00001'
    assert description == {
        'epochs': 7,
        'records': {'glob': 'a-*-of-*,b-*', 'records': 7, 'datasets': ['first']},
        'eval_records': {'glob': 'gone-*', 'records': None, 'datasets': []},
        'results': {'sync': {'threshold': 0.8, 'measured_on': 'gone-*'},
                    'training': {'skipped_records': skipped}}}
    assert str(tmp_path) not in json.dumps(description)


@pytest.mark.parametrize(('epochs', 'stated'), [(7, True), (3, False)])
def test_what_was_measured_on_other_weights_is_left_out(tmp_path, epochs, stated):
    write_run(tmp_path / 'run', {}, {'sync': {'threshold': 0.8, 'epochs': 7}})
    results = metadata.describe_training(str(tmp_path / 'run'), epochs)['results']
    assert ('sync' in results) == stated


def test_checksum_depends_on_every_value():
    values = np.zeros([3, 2], np.float32)
    first = metadata.checksum([tf.Variable(values)])
    values[2, 1] = 1e-30
    assert metadata.checksum([tf.Variable(values)]) != first
    assert metadata.checksum([tf.Variable(values.reshape(2, 3))]) != first
