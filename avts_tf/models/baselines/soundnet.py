"""SoundNet (Aytar, Vondrick and Torralba 2016): a net on the waveform learns what an image net says of the same moment's picture.

The student, 1-D convolutions, gives a distribution over the teacher's classes; the loss is the KL divergence from the teacher's
distribution for the middle frame. The published student had two teachers (ImageNet objects, Places scenes) and 5 s at 22.05 kHz.
"""

import keras
import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.models.baselines.common import FRONTEND, MiddleFrame, SplitLike, Waveform, batch_inputs
from avts_tf.models.layers import BatchNorm
from avts_tf.models.mcx import scaled
from avts_tf.models.two_tower import JoinWindows, TwoTower

# Channels, kernel and stride of each convolution, and the size of the pool after it (0 for none).
CONVOLUTIONS = ((16, 64, 2, 8), (32, 32, 2, 8), (64, 16, 2, 0), (128, 8, 2, 0), (256, 4, 2, 4), (512, 4, 2, 0), (1024, 4, 2, 0))
POOL5 = 5


class SoundNet(TwoTower):
    """Student and teacher; the distance of a pair is the KL divergence of the student's distribution from the teacher's.

    Outputs: `video` float32 [B, C], the teacher's distribution; `audio` float32 [B, K, C], the student's logits.
    """

    def embed(self, batch):
        return self(self._model_inputs(batch), training=False)

    def distances(self, outputs):
        teacher = outputs['video'][:, None]
        return tf.reduce_sum(teacher * (tf.math.log(teacher + 1e-9) - tf.nn.log_softmax(outputs['audio'])), -1)

    def _batch_loss(self, outputs, batch):
        return tf.reduce_mean(self.distances(outputs)[:, 0])


def build_soundnet(config):
    """Builds SoundNet; its video tower is None, for it learns none."""
    if config.pairs.audio_windows < 2:
        raise UserError('--audio_windows=1: --system=soundnet learns from the sound in sync, which is there from 2 on.')
    keras.utils.set_random_seed(config.train.seed)
    clip = config.clip
    teacher = load_teacher(config.train.teacher, clip.frame_size)

    waveform = keras.Input([clip.window_samples], dtype='int16', name='waveform')
    sound = Waveform(name=FRONTEND)(waveform)
    samples = x = keras.Input(sound.shape[1:], name='samples')
    for number, (channels, kernel, stride, pool) in enumerate(CONVOLUTIONS, 1):
        x = keras.layers.Conv1D(scaled(channels, config.towers.audio_width), kernel, stride, padding='same', use_bias=False,
                                kernel_initializer='he_normal', name=f'conv{number}')(x)
        x = BatchNorm(synchronized=config.towers.sync_batchnorm, name=f'conv{number}_bn')(x)
        x = keras.layers.ReLU(name=f'conv{number}_relu')(x)
        if pool:
            x = keras.layers.MaxPooling1D(pool, padding='same', name=f'pool{number}')(x)
        if number == POOL5:
            pool5 = keras.layers.GlobalAveragePooling1D(name='conv5_mean', dtype='float32')(x)
    x = keras.layers.GlobalAveragePooling1D(name='average_time')(x)
    logits = keras.layers.Dense(teacher.classes, name='posteriors', dtype='float32')(x)
    network = keras.Model(samples, {'embedding': logits, 'conv5': pool5}, name='audio_network')
    audio_tower = keras.Model(waveform, network(sound), name='audio_tower')

    inputs = batch_inputs(config)
    audio = audio_tower(JoinWindows(autocast=False, name='join_windows')(inputs['audio']))['embedding']
    outputs = {'video': teacher(MiddleFrame(autocast=False, name='middle_frame')(inputs['video'])),
               'audio': SplitLike(name='split_windows')([audio, inputs['audio']])}
    model = SoundNet(inputs, outputs, name='soundnet')
    model.prepare(config, None, audio_tower)
    return model


class Teacher(keras.layers.Layer):
    """uint8 [batch, size, size, 3] -> float32 [batch, classes], the distribution that an image net gives; it has no weights here.

    Args:
        classify: function from float32 [batch, size, size, 3] in [0, 255] to distributions.
        classes: their number.
    """

    def __init__(self, classify, classes):
        super().__init__(autocast=False, name='teacher', dtype='float32')
        # In a closure and not an attribute that Keras sees: the teacher's weights are no part of the checkpoints.
        self.classify = lambda frames: classify(frames)
        self.classes = classes

    def call(self, frames):
        return tf.stop_gradient(self.classify(tf.cast(frames, tf.float32)))

    def compute_output_spec(self, frames):
        return keras.KerasTensor((frames.shape[0], self.classes), 'float32')


def load_teacher(name, size):
    """The teacher that `--teacher` names.

    Args:
        name: folder of a SavedModel whose `serving_default` takes images in [0, 1] (or uint8) [batch, height, width, 3]; or a Keras
            application, such as MobileNetV2, with its ImageNet weights. Its output is a distribution, or logits.
        size: height and width of a frame, where the SavedModel takes any.

    Returns:
        `Teacher`.

    Raises:
        UserError: there is no such teacher.
    """
    if not name:
        raise UserError('--teacher: --system=soundnet needs the image net it learns from: a SavedModel or a Keras application.')
    if tf.saved_model.contains_saved_model(name):
        return _saved_teacher(name, size)
    application = getattr(keras.applications, name, None)
    module = getattr(application, '__module__', '').rpartition('.')[2]
    if not callable(application) or not hasattr(keras.applications, module):
        raise UserError(f'--teacher={name}: neither a SavedModel nor a Keras application such as MobileNetV2.')
    try:
        network = application(weights='imagenet')
    except Exception as error:  # whatever the download raises: URL errors, hash mismatches, a full disk
        raise UserError(f'--teacher={name}: its ImageNet weights cannot be had: {error}') from error
    prepare, side = getattr(keras.applications, module).preprocess_input, network.input_shape[1]
    return Teacher(lambda frames: network(prepare(tf.image.resize(frames, [side, side])), training=False), network.output_shape[-1])


def _saved_teacher(path, size):
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures.get('serving_default')
    inputs = list(signature.structured_input_signature[1].items()) if signature else []
    if len(inputs) != 1 or inputs[0][1].shape.rank != 4 or len(signature.structured_outputs) != 1:
        raise UserError(f'--teacher={path}: wants a signature serving_default with one input [batch, height, width, 3] and one '
                        'output [batch, classes].')
    (argument, specification), = inputs
    (output, outputs), = signature.structured_outputs.items()
    sides = [side or size for side in specification.shape[1:3]]

    def classify(frames):
        frames = tf.image.resize(frames, sides)
        frames = tf.cast(tf.round(frames), tf.uint8) if specification.dtype == tf.uint8 else frames / 255.0
        values = tf.cast(loaded.signatures['serving_default'](**{argument: frames})[output], tf.float32)
        # Logits do not add up to 1.
        is_distribution = tf.reduce_all(tf.abs(tf.reduce_sum(values, -1) - 1.0) < 1e-3) & (tf.reduce_min(values) >= 0.0)
        return tf.where(is_distribution, values, tf.nn.softmax(values))

    return Teacher(classify, outputs.shape[-1])
