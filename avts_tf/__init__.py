"""AVTS for TensorFlow: audio and video features learned from synchronisation.

Two towers, one for video and one for audio, learn from unlabelled videos by one question: do this
audio and this video happen at the same moment?

    config = avts_tf.make_config('small')
    model = avts_tf.train(config, 'data/train-*', 'runs/mine', eval_records='data/test-*')
    avts_tf.evaluate_sync(model, 'data/train-*', 'data/test-*')
    avts_tf.export_towers(model, 'saved_models')

    tower = avts_tf.load_tower('saved_models/audio_tower')
    features = tower.embed(waveform, sample_rate)

Or with Keras alone:

    dataset = avts_tf.make_dataset('data/train-*', config)
    model = avts_tf.build_two_tower(config)
    model.compile(optimizer='adam', loss=avts_tf.ContrastiveLoss(margin=1.0))
    model.fit(dataset, epochs=10)
"""

import importlib
import os
import sys
import warnings

import lazy_loader


def _turn_onednn_on() -> None:
    """Has TensorFlow use oneDNN where the user has not said otherwise; warns where it is too late.

    Without AVX512-VNNI TensorFlow leaves it off, and convolutions are 2 to 25 times slower, by the
    processor. It reads the variable once, when it is imported: every program here imports this
    package first, and the processes that it starts inherit the setting.
    """
    if 'TF_ENABLE_ONEDNN_OPTS' in os.environ:
        return
    os.environ['TF_ENABLE_ONEDNN_OPTS'] = '1'
    if 'tensorflow' in sys.modules:
        port = importlib.import_module('tensorflow.python.util._pywrap_util_port')
        if not port.IsMklEnabled():
            warnings.warn(
                'TensorFlow was imported before avts_tf and has oneDNN off on this processor, '
                'where convolutions are many times slower. Import avts_tf first, or set '
                'TF_ENABLE_ONEDNN_OPTS=1.', stacklevel=3)


_turn_onednn_on()
# Else a process takes all memory of a GPU, and a run could not be evaluated while it is trained.
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')

__version__ = '0.1.0'

# __init__.pyi lists the public names. They are imported when asked for: TensorFlow takes seconds to
# load, and the command line should answer --help and a mistyped flag without it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
