"""SoundNet (Aytar, Vondrick and Torralba 2016): audio learns from an image net.

A net of 1-D convolutions on the waveform, the student, learns to give the distribution over
classes that an image net, the teacher, gives for the middle frame of the same moment; the loss is
the KL divergence. The published student had two teachers (ImageNet objects, Places scenes) and 5 s
at 22.05 kHz.
"""

import os
from collections.abc import Callable

import keras
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.sampling import Kind
from avts_tf.errors import UserError
from avts_tf.models.baselines.common import (
    FRONTEND,
    MiddleFrame,
    SplitLike,
    Waveform,
    batch_inputs,
)
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.layers import scaled
from avts_tf.models.published.efficientnet_lite import (
    CLASSES,
    SIZE,
    SOURCE,
    load_efficientnet_lite0,
)
from avts_tf.models.published.soundnet import CONVOLUTIONS, STRIDE
from avts_tf.models.sync_model import Batch, JoinWindows, SyncModel


class SoundNet(SyncModel):
    """Student and teacher.

    The distance of a pair is the KL divergence of the student's distribution from the teacher's.
    Outputs: `video` float32 [B, C], the teacher's distribution; `audio` float32 [B, K, C], the
    student's logits. Its video tower is None: it learns none.

    Args:
        config: `Config` with a `teacher` and at least 2 `audio_windows`.

    Raises:
        UserError: it lacks one of them.
    """

    def __init__(self, config: Config) -> None:
        clip = config.clip
        if config.pairs.audio_windows < 2:
            raise UserError('audio_windows', config.pairs.audio_windows, '`system=soundnet` learns '
                            'from the audio in sync, which every clip has from 2 on.')
        teacher = load_teacher(config.train.teacher, clip.frame_size)

        waveform = keras.Input([clip.window_samples], dtype='int16', name='waveform')
        samples = Waveform(name=FRONTEND)(waveform)                        # [batch, samples, 1]
        network = _student(config, samples.shape[1:], teacher.classes)
        audio_tower = keras.Model(waveform, network(samples), name='audio_tower')

        inputs = batch_inputs(config)
        windows = JoinWindows(autocast=False, name='join_windows')(inputs['audio'])
        audio = audio_tower(windows)['embedding']                              # [B * K, C]
        frame = MiddleFrame(autocast=False, name='middle_frame')(inputs['video'])
        outputs = {
            'video': teacher(frame),                                                # [B, C]
            'audio': SplitLike(name='split_windows')([audio, inputs['audio']]),     # [B, K, C]
        }
        super().__init__(config, inputs, outputs, None, audio_tower, name='soundnet')

    def distances(self, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
        teacher, student = outputs['video'][:, None], tf.nn.log_softmax(outputs['audio'])
        return tf.reduce_sum(teacher * (tf.math.log(teacher + 1e-9) - student), -1)        # [B, K]

    def batch_loss(self, outputs: dict[str, tf.Tensor], batch: Batch) -> tf.Tensor:
        return tf.reduce_mean(self.distances(outputs)[:, Kind.POSITIVE])


SYSTEM = SoundNet


def _student(config: Config, shape: tuple[int, ...], classes: int) -> keras.Model:
    """[batch, samples, 1] -> `embedding` [batch, classes], logits, and `conv5` [batch, C]."""
    samples = x = keras.Input(shape, name='samples')
    for name, (channels, kernel, pool) in CONVOLUTIONS.items():
        x = keras.layers.Conv1D(
            scaled(channels, config.towers.audio_width), kernel, STRIDE, padding='same',
            use_bias=False, kernel_initializer='he_normal', name=name)(x)
        x = BatchNorm(synchronized=config.towers.sync_batchnorm, name=f'{name}_bn')(x)
        x = keras.layers.ReLU(name=f'{name}_relu')(x)
        if pool:
            x = keras.layers.MaxPooling1D(pool, padding='same', name=f'{name}_pool')(x)
        if name == 'conv5':
            pool5 = keras.layers.GlobalAveragePooling1D(name='conv5_mean', dtype='float32')(x)
    x = keras.layers.GlobalAveragePooling1D(name='average_time')(x)                 # [batch, 1024]
    logits = keras.layers.Dense(classes, name='posteriors', dtype='float32')(x)
    return keras.Model(samples, {'embedding': logits, 'conv5': pool5}, name='audio_network')


class Teacher(keras.layers.Layer):
    """The distribution over classes that an image net gives; it has no weights here.

    uint8 [batch, size, size, 3] -> float32 [batch, classes].

    Args:
        classify: function from float32 [batch, size, size, 3] in [0, 255] to distributions.
        classes: their number.
    """

    def __init__(self, classify: Callable[[tf.Tensor], tf.Tensor], classes: int) -> None:
        super().__init__(autocast=False, name='teacher', dtype='float32')
        # In a closure and not an attribute that Keras sees: the teacher's weights are no part of
        # the checkpoints.
        self.classify = lambda frames: classify(frames)
        self.classes = classes

    def call(self, frames: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(self.classify(tf.cast(frames, tf.float32)))

    def compute_output_spec(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((frames.shape[0], self.classes), 'float32')


def load_teacher(name: str, size: int) -> Teacher:
    """The teacher that `teacher` names.

    Args:
        name: folder of a SavedModel whose `serving_default` takes images in [0, 1] (or uint8)
            [batch, height, width, 3]; or a Keras application, such as MobileNetV2, with its
            ImageNet weights; or a file of EfficientNet-Lite0's published weights. Its output is a
            distribution, or logits.
        size: height and width of a frame, where the SavedModel takes any.

    Returns:
        `Teacher`.

    Raises:
        UserError: there is no such teacher.
    """
    if not name:
        raise UserError('teacher', None, '`system=soundnet` needs the image net it learns from: '
                        f'a SavedModel, a Keras application such as MobileNetV2, or {SOURCE}.')
    if tf.saved_model.contains_saved_model(name):
        return _saved_teacher(name, size)
    if os.path.isfile(name):
        return _efficientnet_teacher(name)
    application = getattr(keras.applications, name, None)
    module = getattr(application, '__module__', '').rpartition('.')[2]
    if not callable(application) or not hasattr(keras.applications, module):
        raise UserError('teacher', name, 'neither a SavedModel nor a Keras application such as '
                        f'MobileNetV2 nor {SOURCE}.')
    try:
        network = application(weights='imagenet')
    except Exception as error:  # what the download raises: URL errors, hash mismatches, a full disk
        raise UserError('teacher', name, f'cannot load its ImageNet weights: {error}') from error
    prepare = getattr(keras.applications, module).preprocess_input
    side = network.input_shape[1]

    def classify(frames: tf.Tensor) -> tf.Tensor:
        return network(prepare(tf.image.resize(frames, [side, side])), training=False)

    return Teacher(classify, network.output_shape[-1])


def _efficientnet_teacher(path: str) -> Teacher:
    network = load_efficientnet_lite0(path)

    def classify(frames: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(network(tf.image.resize(frames, [SIZE, SIZE]), training=False))

    return Teacher(classify, CLASSES)


def _saved_teacher(path: str, size: int) -> Teacher:
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures.get('serving_default')
    inputs = list(signature.structured_input_signature[1].items()) if signature else []
    if (len(inputs) != 1 or inputs[0][1].shape.rank != 4
            or len(signature.structured_outputs) != 1):
        raise UserError('teacher', path, 'needs a signature serving_default with one input '
                        '[batch, height, width, 3] and one output [batch, classes].')
    (argument, specification), = inputs
    (output, outputs), = signature.structured_outputs.items()
    sides = [side or size for side in specification.shape[1:3]]

    def classify(frames: tf.Tensor) -> tf.Tensor:
        frames = tf.image.resize(frames, sides)                     # [batch, height, width, 3]
        if specification.dtype == tf.uint8:
            frames = tf.cast(tf.round(frames), tf.uint8)
        else:
            frames = frames / 255.0
        values = loaded.signatures['serving_default'](**{argument: frames})[output]
        values = tf.cast(values, tf.float32)                        # [batch, classes]
        # Logits do not add up to 1.
        adds_up = tf.reduce_all(tf.abs(tf.reduce_sum(values, -1) - 1.0) < 1e-3)
        is_distribution = adds_up & (tf.reduce_min(values) >= 0.0)
        return tf.where(is_distribution, values, tf.nn.softmax(values))

    return Teacher(classify, outputs.shape[-1])
