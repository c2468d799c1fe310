"""What the benchmarks of the training step share: nets, batches, the step and its arithmetic."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# From name to preset and what it changes: `full` has MC3 and the audio tower at full width; `quick`
# is for a check that a benchmark runs.
CASES = {'full': ('large', {'bfloat16': False, 'frames': 16, 'frame_size': 112}),
         'small': ('small', {}),
         'quick': ('tiny', {'frame_size': 16, 'video_width': 0.05, 'audio_width': 0.05,
                            'embedding_size': 16, 'batch_size': 4})}
RECORD_SIZE = 256, 342  # pixels of a frame in the records that the benchmarks write
NO_BFLOAT16 = 'bfloat16 is left out: this processor has no instructions for it.'


def make_case(name: str, **values: Any) -> object:
    """The `Config` of a case; None leaves a value as it is."""
    from avts_tf.config import make_config
    preset, own = CASES[name]
    given = {key: value for key, value in values.items() if value is not None}
    return make_config(preset, **{'passes_per_epoch': 1000, 'shuffle_records': 8, **own, **given})


def make_model(config: object, xla: bool = False) -> object:
    """A model that is ready to be trained; XLA compiles the towers of its step, or not."""
    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.optimizer import make_optimizer
    model = build_two_tower(config)
    model.compile(optimizer=make_optimizer(config), jit_compile=xla)
    model.optimizer.build(model.trainable_variables)
    return model


def make_batches(pattern: str, config: object, strategy: object) -> Iterator[dict]:
    """Batches of records by the whole input pipeline, as a training takes them."""
    from avts_tf.data.pipeline import make_dataset
    from avts_tf.training.devices import machine_share, own_batches
    return iter(own_batches(make_dataset(pattern, config, share=machine_share()), strategy))


def in_memory(batches: Iterator[dict]) -> Iterator[dict]:
    """The first batch again and again; it lies on the devices."""
    return itertools.repeat(next(batches))


def make_step(model: object, strategy: object) -> Callable[[dict], Any]:
    """A function that trains on a batch and returns the loss, which nobody has waited for."""
    from avts_tf.training.loop import make_train_step
    train_step = make_train_step(model, strategy)
    return lambda batch: train_step(batch)['loss']


def over(step: Callable[[dict], Any], batches: Iterable[dict]) -> Callable[[], Any]:
    """A function that takes a step on the next batch."""
    batches = iter(batches)
    return lambda: step(next(batches))


def matmul(bfloat16: bool) -> tuple[Callable[[], Any], float]:
    """A function that multiplies two square matrices, and its floating-point operations."""
    import tensorflow as tf
    size = 8192 if tf.config.list_physical_devices('GPU') else 2048
    a = tf.cast(tf.random.normal([size, size]), tf.bfloat16 if bfloat16 else tf.float32)
    return lambda: tf.matmul(a, a)[0, 0], 2.0 * size**3


def multiplications(model: object) -> float:
    """Floating-point operations of a step by clip, in convolutions and dense layers."""
    audio, total = model.audio_tower.get_layer('audio_network'), 0
    for tower, passes in ((model.video_tower, 1), (audio, model.config.pairs.audio_windows)):
        layers = [layer for layer in tower.layers if hasattr(layer, 'kernel')]
        for number, layer in enumerate(layers):
            positions = 1
            for size in layer.output.shape[1:-1]:
                positions *= size
            kernel = 1
            for size in layer.kernel.shape:
                kernel *= size
            # Backwards once for the weights and once for the input, which the first layer of a
            # tower does not need.
            total += passes * 2 * kernel * positions * (2 if number == 0 else 3)
    return total
