"""The signature `window` of towers of all kinds in TensorFlow Lite and ONNX."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from avts_tf.inference.audio_signatures import AudioSignatures
from avts_tf.inference.video_signatures import VideoSignatures
from tests.inference.small import (
    FRAMES,
    WINDOW,
    call,
    check,
    floats,
    formula_sounds,
    keras_outputs,
    random_frames,
    random_sounds,
    small_model,
)


def run_tflite(path, **inputs):
    """Outputs of a TensorFlow Lite model, all of whose operations are built in."""
    builtin = tf.lite.experimental.OpResolverType.BUILTIN
    interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=builtin)
    return interpreter.get_signature_runner('window')(**inputs)


def run_onnx(path, **inputs):
    import onnx
    import onnxruntime
    model = onnx.load(str(path))
    opsets = [(opset.domain, opset.version) for opset in model.opset_import
              if opset.domain in ('', 'ai.onnx')]
    assert opsets == [('', 17)] and {node.domain for node in model.graph.node} == {''}
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def compare(run, path, signature, tolerance=1e-5):
    """Asserts that a converted model gives what the signature `window` gives, for any batch."""
    specification = signature.structured_input_signature[1]
    if 'waveform' in specification:
        batches = [{'waveform': floats(random_sounds(batch, WINDOW))} for batch in (20, 1)]
        # Tones, silence and clipped sound.
        batches.append({'waveform': np.stack(list(formula_sounds(WINDOW).values()))})
    else:
        shape = specification['frames'].shape[1:4]
        batches = [{'frames': random_frames(batch, *shape)} for batch in (6, 1)]
    for inputs in batches:
        check(run(path, **inputs), call(signature, **inputs), tolerance)


def save_window(module, path):
    """Saves a tower with the signature `window` alone."""
    function = tf.function(module.window, input_signature=module.inputs['window'], autograph=False)
    tf.saved_model.save(module, path, signatures={'window': function})
    return tf.saved_model.load(path).signatures['window']


def to_tflite(path):
    """Path of a TensorFlow Lite model of a tower."""
    converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=['window'])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    model = converter.convert()
    with open(f'{path}.tflite', 'wb') as file:
        file.write(model)
    return f'{path}.tflite'


def to_onnx(path):
    """Path of an ONNX model of a tower."""
    process = subprocess.run(
        [sys.executable, '-m', 'tf2onnx.convert', '--saved-model', path, '--signature_def',
         'window', '--opset', '17', '--output', f'{path}.onnx'],
        capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    return f'{path}.onnx'


@pytest.mark.slow
@pytest.mark.parametrize('options', [
    {'bfloat16': True}, {'video_tower': 'i3d', 'frame_size': 32}, {'video_tower': 'mc2'}],
    ids=['bfloat16', 'i3d', 'mc2'])
@pytest.mark.parametrize('name', ['audio', 'video'])
def test_towers_convert(name, options, tmp_path):
    if name == 'audio' and 'video_tower' in options:
        pytest.skip('the audio tower is the same')
    model = small_model(**options)
    module = {'audio': AudioSignatures, 'video': VideoSignatures}[name](
        getattr(model, f'{name}_tower'), model.config)
    signature = save_window(module, str(tmp_path / name))
    path = str(tmp_path / name)
    compare(run_onnx, to_onnx(path), signature)
    if options.get('video_tower') == 'i3d':     # TensorFlow Lite has no 3-D max pooling
        with pytest.raises(Exception, match='MaxPool3D'):
            to_tflite(path)
    else:
        compare(run_tflite, to_tflite(path), signature)


@pytest.mark.parametrize('name', ['audio', pytest.param('video', marks=pytest.mark.slow)])
def test_a_window_of_a_bfloat16_tower_is_computed_in_float32(name):
    model, reference = small_model(bfloat16=True), small_model()
    tower, expected = (getattr(pair, f'{name}_tower') for pair in (model, reference))
    signatures, inputs, keras_inputs = {
        'audio': (AudioSignatures, {'waveform': floats(random_sounds(2, WINDOW))},
                  random_sounds(2, WINDOW)),
        'video': (VideoSignatures, {'frames': random_frames(2, FRAMES)}, random_frames(2, FRAMES)),
    }[name]
    expected = keras_outputs(expected, keras_inputs)
    window = tf.function(signatures(tower, model.config).window)
    check(call(window, **inputs), expected)
    # The tower itself stays as it was trained.
    error = keras_outputs(tower, keras_inputs)['embedding'] - expected['embedding']
    assert 1e-4 < np.abs(error).max() < 0.1
