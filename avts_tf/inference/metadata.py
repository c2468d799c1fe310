"""What is written into `assets/metadata.json` of an exported tower.

saved_models/README.md states for users what it holds; `saved_towers.read_metadata` reads it.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

import avts_tf
from avts_tf.data.shards import find_shards, summary_path, total_records
from avts_tf.errors import UserError
from avts_tf.inference.signatures import TowerSignatures
from avts_tf.training.run_folder import load_inputs, load_result

# By name and dtype of an input or output.
UNITS = {
    ('waveform', 'float32'): 'mono, full scale is 1, at sample_rate',
    ('waveform', 'int16'): 'mono, full scale is 32768, at sample_rate',
    ('hop_seconds', 'float32'): 'seconds',
    ('frames', 'uint8'): 'RGB, 0 to 255, at clip.fps',
    ('frames', 'string'): 'JPEG files, at clip.fps',
    ('timestamps', 'float32'): 'seconds, centre of each window',
}


def make_metadata(
    tower: TowerSignatures, training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The metadata of an exported tower, as a dict that JSON can hold.

    Args:
        tower: what is exported.
        training: result of `describe_training`, or None.
    """
    config = json.loads(tower.config.to_json())
    clip, sizes = tower.config.clip, tower.sizes()
    embedding_size = sizes.pop('embedding')
    return {
        'tower': tower.name,
        'avts_tf_version': avts_tf.__version__,
        'tensorflow_version': tf.__version__,
        'keras_version': keras.__version__,
        'clip': {**config['clip'], 'window_seconds': clip.window_seconds,
                 'window_samples': clip.window_samples},
        'sample_rate': clip.sample_rate,
        'embedding_size': embedding_size,
        'feature_sizes': sizes,
        'unit_length': tower.config.towers.normalize == 'length',
        'signatures': describe_signatures(tower),
        'config': config,
        'training': training,
        'checksum': checksum(tower.variables),
    }


def describe_signatures(tower: TowerSignatures) -> dict[str, dict[str, Any]]:
    """The signatures of a tower.

    Returns:
        Dict from the name of each to its `inputs` and `outputs`: dicts from a name to dtype,
        shape and unit.
    """
    def describe(name: str, dtype: tf.DType, shape: Iterable[int | None]):
        unit = UNITS.get((name, dtype.name))
        return {'dtype': dtype.name, 'shape': list(shape), 'unit': unit}

    result = {}
    for signature, specifications in tower.inputs.items():
        windows = [None] if signature == 'windows' else []
        outputs = {name: describe(name, tf.float32, [None, *windows, size])
                   for name, size in sorted(tower.sizes().items())}
        if windows:
            outputs['timestamps'] = describe('timestamps', tf.float32, windows)
        inputs = {item.name: describe(item.name, item.dtype, item.shape) for item in specifications}
        result[signature] = {'inputs': inputs, 'outputs': outputs}
    return result


def describe_training(run_dir: str, epochs: int) -> dict[str, Any]:
    """What an exported tower states about its training, without the paths of this machine.

    Args:
        run_dir: run folder.
        epochs: how many the exported weights were trained for.

    Returns:
        dict of `epochs`, `records` and `eval_records` (None, or a dict of base names of the globs,
        number of records, names of the datasets), and `results`, what `result.json` holds; what
        was measured after other epochs is left out.
    """
    inputs = load_inputs(run_dir)
    results = load_result(run_dir)
    results.pop('exported', None)
    if results.get('sync', {}).get('epochs', epochs) != epochs:
        del results['sync']
    return {
        'epochs': epochs,
        'records': _describe_records(inputs.get('records')),
        'eval_records': _describe_records(inputs.get('eval_records')),
        'results': _without_folders(results),
    }


def _without_folders(value: Any):
    """A value of JSON in which paths and globs have lost the folders of this machine."""
    if isinstance(value, dict):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    is_path = isinstance(value, str) and value.startswith(os.sep)
    return _base_names(value) if is_path else value


def _base_names(pattern: str):
    return ','.join(os.path.basename(part.strip().rstrip('/')) for part in pattern.split(','))


def _describe_records(pattern: str | None) -> dict[str, Any] | None:
    """Base names, number and datasets of records; the number is None where they are gone."""
    if not pattern:
        return None
    try:
        shards = find_shards(pattern)
    except UserError:
        return {'glob': _base_names(pattern), 'records': None, 'datasets': []}
    names = set()
    for prefix in sorted({re.sub(r'-\d{5}-of-\d{5}$', '', path) for path, _ in shards}):
        with (contextlib.suppress(tf.errors.NotFoundError, ValueError),
              tf.io.gfile.GFile(summary_path(prefix)) as file):
            names.add(json.load(file).get('dataset_name') or '')
    return {'glob': _base_names(pattern), 'records': total_records(shards),
            'datasets': sorted(names - {''})}


def checksum(variables: Sequence[tf.Variable]) -> str:
    """Checksum of weights: the same weights have the same.

    Returns:
        SHA-256, in hexadecimal, over dtype, shape and little-endian bytes of the variables in
        their order.
    """
    digest = hashlib.sha256()
    for variable in variables:
        value = variable.numpy()
        digest.update(f'{value.dtype.name} {list(value.shape)}\n'.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
