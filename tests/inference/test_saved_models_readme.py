"""saved_models/README.md runs, word for word; its converted models equal the signatures."""

import contextlib
import re
import subprocess
import sys

import keras
import pytest

from tests.helpers import ROOT
from tests.inference.test_conversion import compare, run_onnx, run_tflite

README = ROOT / 'saved_models' / 'README.md'
TEXT = README.read_text()
BLOCKS = re.findall(r'^```(python|sh)\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)


def run_blocks(blocks, folder):
    """Runs blocks in a folder; returns the names that they made."""
    names = {}
    keras.utils.set_random_seed(0)
    with contextlib.chdir(folder):
        for language, block in blocks:
            if language == 'python':
                exec(compile(block, str(README), 'exec'), names)
                continue
            for line in block.splitlines():
                if not line.startswith('pip install'):
                    process = subprocess.run([sys.executable, *line.split()[1:]],
                                             capture_output=True, text=True, check=False)
                    assert process.returncode == 0, process.stderr[-3000:]
    return names


@pytest.fixture(scope='module')
def folder(towers, tmp_path_factory):
    """A folder with `saved_models`, which is read only."""
    folder = tmp_path_factory.mktemp('readme')
    (folder / 'saved_models').symlink_to(towers)
    return folder


def test_the_tables_name_all_signatures(loaded):
    table = TEXT[:TEXT.index('### Errors')]
    stated = set(re.findall(r'^\| `(\w+)` \|', table, re.MULTILINE))
    assert stated == {name for tower in loaded.values() for name in tower.signatures}


def test_embedding_metadata_and_conversion(folder, loaded):
    """All but training and ONNX; of the conversions to TensorFlow Lite that of audio."""
    first = [block for block in BLOCKS if 'GradientTape' not in block[1]][:3]
    lite, = [block for block in BLOCKS if 'TFLiteConverter' in block[1]]
    both = "('audio_tower', 'video_tower')"
    assert both in lite[1] and 'def checksum' in first[2][1]
    run_blocks([*first, ('python', lite[1].replace(both, "('audio_tower',)"))], folder)
    signature = loaded['audio_tower'].signatures['window']
    compare(run_tflite, folder / 'audio_tower.tflite', signature)


@pytest.mark.slow
def test_everything(folder, loaded):
    """Both ways of training further bring the loss down."""
    names = run_blocks(BLOCKS, folder)
    assert names['losses'][-1] < 0.9 * names['losses'][0]
    history = names['history'].history['loss']
    assert history[-1] < history[0]
    assert isinstance(names['tower'], keras.layers.TFSMLayer)
    for name, tower in loaded.items():
        compare(run_tflite, folder / f'{name}.tflite', tower.signatures['window'])
        compare(run_onnx, folder / f'{name}.onnx', tower.signatures['window'])
