"""Compares written towers with the Keras towers, in a process that imports only TensorFlow."""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from avts_tf.inference.metadata import checksum
from avts_tf.inference.signatures import Outputs, TowerSignatures

# Greatest difference of an output, relative to the greatest value of the output. On a GPU the Keras
# tower has TF32 or bfloat16, with sums in another order than on the CPU that it is compared on;
# the variables are compared bit by bit all the same.
TOLERANCE, GPU_TOLERANCE = 1e-4, 5e-2
# A CPU without AVX-512 also adds up in bfloat16, which a GPU does in float32.
BFLOAT16_GPU_TOLERANCE = 0.25

_IMPORTS = '''
import hashlib
import json
import sys
from collections.abc import Sequence
import numpy as np
import tensorflow as tf
'''
_RELOAD = '''
with open(sys.argv[1]) as file:
    tasks = json.load(file)
towers = {path: tf.saved_model.load(path) for path in {task[0] for task in tasks}}
for tower in towers.values():
    with open(tower.metadata.asset_path.numpy()) as file:
        stated = json.load(file)['checksum']
    assert stated == checksum(tower.variables), 'the variables have changed'
for path, name, example_path, output_path in tasks:
    with np.load(example_path, allow_pickle=True) as example:
        inputs = {key: tf.constant(value) for key, value in example.items()}
    outputs = towers[path].signatures[name](**inputs)
    np.savez(output_path, **{key: value.numpy() for key, value in outputs.items()})
'''


def verify_towers(towers: Sequence[TowerSignatures], paths: Sequence[str]) -> list[float]:
    """Reloads towers in a fresh process and compares the outputs of every signature.

    Args:
        towers: traced.
        paths: the folders that they were saved to.

    Returns:
        For each tower the greatest difference, relative to the greatest value of an output.

    Raises:
        RuntimeError: a tower cannot be loaded there, or its outputs differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        # For each tower, outputs by the file to compare.
        expected: list[dict[str, dict[str, tf.Tensor]]] = []
        for tower, path in zip(towers, paths, strict=True):
            expected.append({})
            for name, example in tower.examples(np.random.default_rng(0)).items():
                base = os.path.join(folder, f'{tower.name}-{name}')
                # One of them might be called allow_pickle, which is a bool.
                np.savez(base, **example)  # type: ignore[arg-type]
                tasks.append((os.path.abspath(path), name, f'{base}.npz', f'{base}-outputs.npz'))
                inputs = {key: tf.constant(value) for key, value in example.items()}
                expected[-1][tasks[-1][-1]] = getattr(tower, name)(**inputs)
        task_path = os.path.join(folder, 'tasks.json')
        with open(task_path, 'w') as file:
            json.dump(tasks, file)
        program = _IMPORTS + inspect.getsource(checksum) + _RELOAD
        # On the CPU: a training may have left a GPU no memory for another process.
        process = subprocess.run([sys.executable, '-c', program, task_path], check=False,
                                 capture_output=True, text=True, cwd=folder,
                                 env={**os.environ, 'CUDA_VISIBLE_DEVICES': '-1'})
        if process.returncode:
            raise RuntimeError(f'{", ".join(paths)}: cannot be used in a process with only '
                               f'TensorFlow:\n{process.stderr[-2000:]}')
        differences = [max(_difference(path, outputs) for path, outputs in files.items())
                       for files in expected]
    for tower, path, difference in zip(towers, paths, differences, strict=True):
        if not difference < _tolerance(tower):
            raise RuntimeError(f'{path}: outputs differ from the Keras tower by {difference:.1e} '
                               '(relative).')
    return differences


def _tolerance(tower: TowerSignatures) -> float:
    if not tf.config.list_logical_devices('GPU'):
        return TOLERANCE
    return BFLOAT16_GPU_TOLERANCE if tower.config.towers.bfloat16 else GPU_TOLERANCE


def _difference(path: str, expected: Outputs):
    """Greatest relative difference of the outputs in a .npz file from the expected ones."""
    with np.load(path) as outputs:
        if outputs.keys() != expected.keys():
            return float('inf')
        expected = {name: value.numpy() for name, value in expected.items()}
        return max(np.abs(outputs[name] - value).max() / np.abs(value).max()
                   for name, value in expected.items())
