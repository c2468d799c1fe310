"""Towers to SavedModels that need nothing but TensorFlow; saved_models/README.md tells their users what they hold."""

import contextlib
import hashlib
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import avts_tf
from avts_tf import files
from avts_tf.data import images
from avts_tf.data.records import PCM_SCALE
from avts_tf.data.shards import find_shards, summary_path
from avts_tf.errors import UserError
from avts_tf.inference.features import SAMPLE_RATES
from avts_tf.models.audio import embed_waveform
from avts_tf.training.optimizer import UNDECAYED
from avts_tf.training.run_folder import load_inputs, load_result

TOLERANCE = 1e-4        # greatest difference of an output, relative to the greatest output, between Keras and the reloaded tower
METADATA = 'metadata.json'
WARMUP = os.path.join('assets.extra', 'tf_serving_warmup_requests')
MICROSECONDS = 1_000_000
LONGEST_HOP_SECONDS = 3600.0
LOUDEST = 100.0         # no sound in [-1, 1] comes near it; integer samples that were only cast to float do
SINC_ZEROS = 10         # zero crossings on each side of the resampling filter: scipy.signal.resample_poly's default,
KAISER_BETA = 5.0       # and so is the window
LONGEST_CYCLE = 2000    # samples after which the phases of a resampling must repeat
DECODED_AT_ONCE = 10    # JPEGs
EXPORT_WAIT_SECONDS = 600.0  # for another export to the same folder: a training should not end in vain


class ExportedTower(tf.Module):
    """What both exported towers share: the convention of reusable SavedModels, windows, checks.

    The loaded object is callable as `tower(x, training=False)` and has `variables`, `trainable_variables` and
    `regularization_losses`. With training=True all windows go through the network at once, batch norm takes the statistics
    of the batch and updates its averages. Otherwise they go through it a few at a time, so that memory does not grow with
    the length of the input beyond the input itself.

    Args:
        tower: Keras model.
        config: `Config`.
        name: 'audio_tower' or 'video_tower'.
    """

    # A tf.Module lists the tf.Variables that it finds, and sees none in Keras's own variables: these make room for lists.
    variables = None
    trainable_variables = None

    def __init__(self, tower, config, name):
        super().__init__(name=name)
        self._config = config
        # Behind a function, what is saved is variables and graphs alone, without the objects of Keras's layers.
        self._keras_tower = lambda: tower
        self.variables = [variable.value for variable in tower.variables]
        self.trainable_variables = [variable.value for variable in tower.trainable_variables]
        kernels = [variable.value for variable in tower.trainable_variables if variable.name not in UNDECAYED]
        weight_decay = config.train.weight_decay

        @tf.function(input_signature=[], autograph=False)
        def decay_loss():
            return 0.5 * weight_decay * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])

        self.regularization_losses = [decay_loss] if weight_decay else []

    @tf.function(autograph=False)
    def __call__(self, inputs, training=False):
        """The outputs of `serving_default`, as in training or as served."""
        return self._average(inputs, training)

    @tf.function(autograph=False)
    def call_training(self, inputs):
        """The call with training=True under a name of its own, which keras.layers.TFSMLayer asks for."""
        return self(inputs, training=True)

    def trace(self):
        """Traces what can be called of the loaded object; returns the signatures by name, as tf.functions."""
        specification = self.inputs['serving_default'][0]
        for training in (False, True):
            self.__call__.get_concrete_function(specification, training=training)
        self.call_training.get_concrete_function(specification)
        signatures = {
            name: tf.function(getattr(self, name), input_signature=self.inputs[name], autograph=False) for name in self.inputs}
        for name, function in signatures.items():
            # As an attribute, too, which takes arguments by place as keras.layers.TFSMLayer gives them.
            setattr(self, name, function)
        return signatures

    def _average(self, inputs, training):
        """Outputs averaged over windows end to end."""
        return self._mean(self._end_to_end(inputs, training))

    def _mean(self, outputs):
        """Outputs averaged over windows; an embedding of length 1 is brought back to it."""
        means = {name: tf.reduce_mean(value, 1) for name, value in outputs.items()}
        if self._config.towers.normalize == 'length':
            means['embedding'] = tf.math.l2_normalize(means['embedding'], -1)
        return means

    def _limited(self, batch, windows):
        """The windows of an example, int64 scalar, once it is known that those of all examples are not too many."""
        total = batch * windows
        message = tf.strings.format(
            f'{self.inputs["serving_default"][0].name}: {{}} windows in one request, of all examples together; at most '
            f'{self.most_windows} are allowed: send them in several requests', total)
        with tf.control_dependencies([tf.debugging.Assert(total <= self.most_windows, [message])]):
            return tf.identity(windows)

    def _over_windows(self, outputs_of, batch, windows, training, at_once=None):
        """Outputs of the windows of all examples, a few at a time whatever the batch.

        Args:
            outputs_of: function of examples and windows in them, int64 [number] both, that gives a dict of float32
                [number, size]. Windows come in order, those of an example one after the other.
            batch: int64 scalar, number of examples.
            windows: int64 scalar, number of windows of each.
            training: bool; True takes all at once.
            at_once: int64 scalar, the most windows at a time; None is `windows_at_once`.

        Returns:
            Dict of float32 [batch, windows, size].
        """
        total, sizes = batch * windows, self.sizes()

        def outputs_from(first, number):
            index = first + tf.range(number)
            return outputs_of(index // windows, index % windows)

        if training:
            outputs = outputs_from(tf.constant(0, tf.int64), total)
        else:
            at_once = tf.constant(self.windows_at_once, tf.int64) if at_once is None else at_once
            steps = tf.cast(-(-total // at_once), tf.int32)

            def one_step(step, arrays):
                first = tf.cast(step, tf.int64) * at_once
                outputs = outputs_from(first, tf.minimum(at_once, total - first))
                return step + 1, {name: array.write(step, outputs[name]) for name, array in arrays.items()}

            arrays = {name: tf.TensorArray(tf.float32, steps, infer_shape=False, element_shape=[None, size])
                      for name, size in sizes.items()}
            _, arrays = tf.while_loop(lambda step, _: step < steps, one_step, (0, arrays), parallel_iterations=1)
            outputs = {name: array.concat() for name, array in arrays.items()}
        return {name: tf.ensure_shape(tf.reshape(outputs[name], [batch, windows, size]), [None, None, size])
                for name, size in sizes.items()}

    def sizes(self):
        """Dict from the name of each output of the network to its last dimension."""
        return {name: value.shape[-1] for name, value in self._keras_tower().output.items()}


class AudioTower(ExportedTower):
    """The audio tower as it is exported.

    A sound shorter than a window is padded with silence at its end; a longer one is cut into windows, the last one padded
    likewise. Samples beyond 1 or -1 are clipped, as 16-bit sound would be.

    Args:
        tower: Keras model.
        config: `Config`.
        resample: whether `at_rate` resamples sound of other rates; otherwise it refuses it.
    """

    windows_at_once, most_windows = 64, 16384

    def __init__(self, tower, config, resample=False):
        super().__init__(tower, config, 'audio_tower')
        self._window, self._rate, self._resample = config.clip.window_samples, config.clip.sample_rate, resample
        waveform = tf.TensorSpec([None, None], tf.float32, 'waveform')
        self.inputs = {
            'serving_default': [waveform],
            'windows': [waveform, tf.TensorSpec([], tf.float32, 'hop_seconds')],
            'pcm': [tf.TensorSpec([None, None], tf.int16, 'waveform')],
            'at_rate': [waveform, tf.TensorSpec([], tf.int32, 'sample_rate')],
            'window': [tf.TensorSpec([None, self._window], tf.float32, 'waveform')],
        }

    def serving_default(self, waveform):
        """float32 [batch, samples] in [-1, 1] -> dict of `embedding` [batch, D] and `conv5` [batch, C], float32."""
        return self(waveform)

    def pcm(self, waveform):
        """int16 [batch, samples] -> as `serving_default`."""
        return self._average(waveform, False)

    def windows(self, waveform, hop_seconds):
        """A window every `hop_seconds`, window i from sample round(i * hop_seconds * sample_rate).

        Args:
            waveform: float32 [batch, samples] in [-1, 1].
            hop_seconds: float32 scalar, from one sample to an hour, taken to the nearest microsecond.

        Returns:
            Dict of `embedding` [batch, windows, D], `conv5` [batch, windows, C] and `timestamps` [windows], the centre of each
            window in seconds; float32.
        """
        micro = tf.cast(tf.round(tf.cast(hop_seconds, tf.float64) * MICROSECONDS), tf.int64)
        hop = (micro * self._rate, MICROSECONDS)
        with tf.control_dependencies([
            *_check_rank(hop_seconds, 0, 'hop_seconds', 'a single number'),
            tf.debugging.Assert(
                (hop_seconds <= LONGEST_HOP_SECONDS) & (hop[0] >= hop[1]),
                [tf.strings.format(f'hop_seconds: must lie between one sample, 1 / {self._rate} s, and {LONGEST_HOP_SECONDS:g} s, '
                                   'not {} s', hop_seconds)]),
        ]):
            waveform = tf.identity(waveform)
        outputs, windows = self._framed(waveform, hop, training=False)
        starts = self._starts(tf.range(windows), hop)
        centres = (tf.cast(starts, tf.float64) + self._window / 2) / self._rate
        return {**outputs, 'timestamps': tf.cast(centres, tf.float32)}

    def at_rate(self, waveform, sample_rate):
        """float32 [batch, samples] and its rate in Hz, int32 scalar -> as `serving_default`."""
        checks = _check_rank(sample_rate, 0, 'sample_rate', 'a single number')
        if not self._resample:
            checks.append(tf.debugging.Assert(tf.equal(sample_rate, self._rate), [tf.strings.format(
                f'sample_rate: this tower takes sound of {self._rate} Hz, not {{}} Hz: resample it first, or export the tower '
                'with --export_resample', sample_rate)]))
        with tf.control_dependencies(checks):
            waveform = tf.identity(waveform)
        if not self._resample:
            return self._average(waveform, False)
        return self._mean(self._framed(waveform, (self._window, 1), False, sample_rate)[0])

    def window(self, waveform):
        """float32 [batch, window_samples] -> as `serving_default`, without loops, by operations that other formats have."""
        waveform = _few(waveform, self.inputs['window'][0], self.windows_at_once)
        tower = self._keras_tower()
        spectrogram = tower.get_layer('log_mel').by_convolution(tf.clip_by_value(waveform, -1.0, 1.0))
        return tower.get_layer('audio_network')(spectrogram, training=False)

    def _end_to_end(self, waveform, training):
        return self._framed(waveform, (self._window, 1), training)[0]

    def _framed(self, waveform, hop, training, sample_rate=None):
        """Outputs of windows that lie a hop apart, and their number: dict of [batch, windows, size], int64 scalar.

        Args:
            waveform: float32 or int16 [batch, samples].
            hop: numerator and denominator, in samples.
            training: bool.
            sample_rate: int32 scalar, Hz; None is the tower's own.
        """
        waveform = self._checked(waveform)
        batch, samples = tf.unstack(tf.shape(waveform, tf.int64))
        read, at_once = read_samples, None
        if sample_rate is not None:
            resampled, up, down = resampler(sample_rate, self._rate)
            samples = -(-samples * up // down)
            # What is read at a time, too, is at most `windows_at_once` windows.
            at_once = tf.maximum(self.windows_at_once * up // tf.maximum(up, down), 1)

            def read(*arguments):
                return tf.cond(tf.equal(up, down), lambda: read_samples(*arguments), lambda: resampled(*arguments))

        # Every sample is in a window if the hop is no longer than one; no window starts after the end if it is longer.
        windows = tf.minimum(1 - (-tf.maximum(samples - self._window, 0) * hop[1] // hop[0]), -(-samples * hop[1] // hop[0]))
        windows = self._limited(batch, windows)

        def outputs_of(examples, numbers):
            cut = read(waveform, examples, self._starts(numbers, hop), self._window)
            return self._network(tf.clip_by_value(cut, -1.0, 1.0), training)

        return self._over_windows(outputs_of, batch, windows, training, at_once), windows

    @tf.function(autograph=False)
    def _network(self, waveform, training):
        return embed_waveform(self._keras_tower(), waveform, training)

    @staticmethod
    def _starts(index, hop):
        """First sample of windows, in exact arithmetic: int64 of any shape -> the same."""
        return (2 * index * hop[0] + hop[1]) // (2 * hop[1])

    @staticmethod
    def _checked(waveform):
        """The waveform, once it is known that something can be heard in it."""
        with tf.control_dependencies(_check_rank(waveform, 2, 'waveform', '[batch, samples]')):
            waveform = tf.identity(waveform)
        checks = _check_sizes(waveform, 'waveform', 'samples')
        if waveform.dtype.is_floating:
            with tf.control_dependencies(checks):
                waveform = tf.identity(waveform)
            checks = [tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(waveform)), ['waveform: NaN or infinite samples'])]
            peak = tf.maximum(tf.reduce_max(waveform), -tf.reduce_min(waveform))
            checks.append(tf.debugging.Assert(peak <= LOUDEST, [tf.strings.format(
                'waveform: samples must lie in [-1, 1], these reach {}; give 16-bit integers to the signature pcm, or divide them '
                f'by {PCM_SCALE:.0f}', peak)]))
        with tf.control_dependencies(checks):
            return tf.identity(waveform)

    def examples(self, rng):
        """An input for each signature: two sounds, one and a half windows long."""
        waveform = rng.uniform(-1, 1, [2, self._window * 3 // 2]).astype(np.float32)
        return {
            'serving_default': {'waveform': waveform},
            'windows': {'waveform': waveform, 'hop_seconds': np.float32(self._window / self._rate / 4)},
            'pcm': {'waveform': np.round(waveform * 32767).astype(np.int16)},
            'at_rate': {'waveform': waveform, 'sample_rate': np.int32(self._rate * 2 if self._resample else self._rate)},
            'window': {'waveform': waveform[:, :self._window]},
        }


class VideoTower(ExportedTower):
    """The video tower as it is exported.

    Fewer frames than a window holds are padded by repeating the last one; more are cut into windows end to end, the last one
    padded likewise, and their outputs are averaged. Frames are cropped to the largest centred square and resized, as in
    evaluation; the frame rate is that of training.
    """

    windows_at_once, most_windows = 8, 2048

    def __init__(self, tower, config):
        super().__init__(tower, config, 'video_tower')
        self._frames, self._size = config.clip.frames, config.clip.frame_size
        self.inputs = {
            'serving_default': [tf.TensorSpec([None, None, None, None, 3], tf.uint8, 'frames')],
            'jpeg': [tf.TensorSpec([None, None], tf.string, 'frames')],
            'window': [tf.TensorSpec([None, self._frames, self._size, self._size, 3], tf.uint8, 'frames')],
        }

    def serving_default(self, frames):
        """uint8 [batch, frames, height, width, 3] -> dict of `embedding` [batch, D] and `features` [batch, C], float32."""
        return self(frames)

    def jpeg(self, frames):
        """JPEG files as string [batch, frames] -> as `serving_default`."""
        return self._average(frames, False)

    def window(self, frames):
        """uint8 [batch, frames, size, size, 3] -> as `serving_default`, without loops, by operations that other formats have."""
        return self._network(_few(frames, self.inputs['window'][0], self.windows_at_once), False)

    def _end_to_end(self, frames, training):
        frames = self._checked(frames)
        shape = tf.shape(frames, tf.int64)
        batch, count = shape[0], shape[1]
        windows = self._limited(batch, -(-count // self._frames))
        frames = tf.reshape(frames, tf.concat([[-1], shape[2:]], 0))
        prepare = self._decode if frames.dtype == tf.string else self._crop

        def outputs_of(examples, numbers):
            places = numbers[:, None] * self._frames + tf.range(self._frames, dtype=tf.int64)
            places = examples[:, None] * count + tf.minimum(places, count - 1)
            low, high = places[0, 0], places[-1, -1] + 1  # all frames between them are of these windows
            return self._network(tf.gather(prepare(frames[low:high]), places - low), training)

        return self._over_windows(outputs_of, batch, windows, training)

    @tf.function(autograph=False)
    def _network(self, frames, training):
        return self._keras_tower()(frames, training=training)

    def _crop(self, frames):
        """uint8 [frames, height, width, 3] -> uint8 [frames, size, size, 3]."""
        _, height, width, _ = tf.unstack(tf.shape(frames))
        top, left, side, _ = tf.unstack(images.centred_window(height, width))
        square = frames[:, top:top + side, left:left + side]
        return images.to_uint8(images.resize(square, self._size))

    def _decode(self, frames):
        """string [frames] -> uint8 [frames, size, size, 3]; every frame may have a size of its own."""
        shapes = tf.map_fn(images.jpeg_size, frames, fn_output_signature=tf.TensorSpec([2], tf.int32))
        fits = images.is_frame_size(shapes[:, 0], shapes[:, 1])
        with tf.control_dependencies([tf.debugging.Assert(
                tf.reduce_all(fits), [f'frames: a JPEG has more than {images.MAX_PIXELS} pixels'])]):
            shapes = tf.identity(shapes)

        def decode(at_once):
            return tf.map_fn(one, (frames, shapes), parallel_iterations=at_once,
                             fn_output_signature=tf.TensorSpec([self._size, self._size, 3], tf.uint8))

        def one(frame):
            return images.decode_square(*frame, self._size)

        # Side by side as long as they are together no larger than a single frame may be.
        few = tf.reduce_all(images.is_frame_size(DECODED_AT_ONCE * shapes[:, 0], shapes[:, 1]))
        return tf.cond(few, lambda: decode(DECODED_AT_ONCE), lambda: decode(1))

    @staticmethod
    def _checked(frames):
        """The frames, once it is known that there is something to see."""
        jpeg = frames.dtype == tf.string
        rank, layout = (2, '[batch, frames]') if jpeg else (5, '[batch, frames, height, width, 3]')
        with tf.control_dependencies(_check_rank(frames, rank, 'frames', layout)):
            frames = tf.identity(frames)
        checks = _check_sizes(frames, 'frames', 'frames')
        if jpeg:
            # The decoder would take a picture of another kind and then decode it otherwise than in training.
            is_jpeg = tf.equal(tf.strings.substr(frames, 0, 2), b'\xff\xd8')
            checks.append(tf.debugging.Assert(tf.reduce_all(is_jpeg), ['frames: each must be the bytes of a JPEG file']))
        else:
            shape = tf.raw_ops.Shape(input=frames)
            checks.append(tf.debugging.Assert(tf.reduce_all(shape[2:4] > 0), ['frames: height or width is 0']))
            checks.append(tf.debugging.Assert(tf.equal(shape[4], 3), ['frames: must have 3 channels, RGB']))
        with tf.control_dependencies(checks):
            return tf.identity(frames)

    def examples(self, rng):
        """An input for each signature: two clips, one and a half windows long, of frames that must be cropped and resized."""
        frames = rng.integers(0, 256, [2, self._frames * 3 // 2, self._size + 9, self._size + 20, 3], dtype=np.uint8)
        jpegs = [[tf.io.encode_jpeg(frame).numpy() for frame in clip] for clip in frames]
        return {'serving_default': {'frames': frames}, 'jpeg': {'frames': np.array(jpegs, object)},
                'window': {'frames': frames[:, :self._frames, :self._size, :self._size]}}


def _check_rank(tensor, rank, name, layout):
    """Asserts a rank when the graph runs: a server lets shapes pass that Python would refuse, and tf.rank believes the graph."""
    actual = tf.raw_ops.Rank(input=tensor)
    message = tf.strings.format(f'{name}: must be {layout}, of rank {rank}, not of rank {{}}', actual)
    return [tf.debugging.Assert(tf.equal(actual, rank), [message])]


def _check_sizes(tensor, name, elements):
    """Asserts that there is something in a tensor [batch, elements, ...]."""
    shape = tf.shape(tensor)
    return [tf.debugging.Assert(shape[0] > 0, [f'{name}: an empty batch']),
            tf.debugging.Assert(shape[1] > 0, [f'{name}: no {elements}'])]


def _few(inputs, specification, most):
    """Windows as a signature `window` takes them, once it is known that a server got no others, and not too many.

    The assertion is the bare operation, which converters leave out; one with a message made at run time they could not.
    """
    shape = tf.raw_ops.Shape(input=inputs)
    layout = ', '.join(map(str, ['batch', *specification.shape[1:]]))
    message = f'{specification.name}: must be [{layout}], with at most {most} examples in a request'
    expected = tf.concat([tf.minimum(shape[:1], most), tf.constant([*specification.shape[1:]], tf.int32)], 0)
    fine = tf.reduce_all(tf.raw_ops.Equal(x=shape, y=expected, incompatible_shape_error=False))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=fine, data=[message])]):
        return tf.ensure_shape(tf.identity(inputs), specification.shape)


def read_samples(waveform, examples, starts, size):
    """Pieces of sounds.

    Args:
        waveform: float32 or int16 [batch, samples].
        examples: int64 [number], which sound.
        starts: int64 [number], the first sample of each piece.
        size: length of a piece.

    Returns:
        float32 [number, size], full scale 1; silence where a piece lies outside of its sound.
    """
    samples = tf.shape(waveform, tf.int64)[1]
    places = starts[:, None] + tf.range(size, dtype=tf.int64)
    inside = (places >= 0) & (places < samples)
    pieces = tf.gather(tf.reshape(waveform, [-1]), tf.where(inside, examples[:, None] * samples + places, 0))
    if pieces.dtype == tf.int16:
        pieces = tf.cast(pieces, tf.float32) / PCM_SCALE
    return tf.where(inside, pieces, 0.0)


def resampler(rate, target_rate):
    """Changes the sample rate as `scipy.signal.resample_poly` does with its default filter, piece by piece.

    A windowed sinc of 10 zero crossings on each side, Kaiser window with beta 5, cut off at half of the lower rate.

    Args:
        rate: int32 scalar, Hz, one of `SAMPLE_RATES`; after division by the greatest common divisor both rates must be at most
            2000.
        target_rate: int, Hz.

    Returns:
        (read, up, down): a function as `read_samples`, whose pieces are of the resampled sounds; and int64 scalars, by which
        sounds become ceil(samples * up / down) samples long.
    """
    rate = tf.cast(rate, tf.int64)
    # The divisors of one known number make Euclid's loop unnecessary.
    divisors = tf.constant([number for number in range(1, target_rate + 1) if target_rate % number == 0], tf.int64)
    divisor = tf.reduce_max(tf.where(rate % divisors == 0, divisors, 1))
    up, down = target_rate // divisor, rate // divisor
    with tf.control_dependencies([tf.debugging.Assert(
        (rate >= SAMPLE_RATES.start) & (rate < SAMPLE_RATES.stop) & (tf.maximum(up, down) <= LONGEST_CYCLE),
        [tf.strings.format(f'sample_rate: cannot resample {{}} Hz to {target_rate} Hz; take a usual rate', rate)])]):
        up, down = tf.identity(up), tf.identity(down)
    slower = tf.maximum(up, down)
    reach = -(-SINC_ZEROS * slower // up)                      # input samples on each side that an output sample depends on
    # Cycles in a block: enough for a product of matrices, and for the reach not to be more than the block itself.
    repeats = -(-tf.maximum(2 * reach + 1, 256) // slower)
    block, made = repeats * down, repeats * up
    # The input samples that each output sample of a block depends on; times are in 1 / (rate * up) s.
    outputs = tf.range(made)[:, None]
    inputs = outputs * down // up + tf.range(-reach, reach + 2)                          # [made, 2 * reach + 2]
    distance = tf.cast(inputs * up - outputs * down, tf.float64)
    slower = tf.cast(slower, tf.float64)
    position, angle = distance / (SINC_ZEROS * slower), math.pi * distance / slower
    window = tf.math.bessel_i0(KAISER_BETA * tf.sqrt(tf.maximum(1.0 - position**2, 0.0))) / np.i0(KAISER_BETA)
    sinc = tf.where(tf.equal(angle, 0.0), tf.ones_like(angle), tf.math.divide_no_nan(tf.sin(angle), angle))
    taps = tf.where(tf.abs(position) <= 1.0, sinc * window, tf.zeros_like(sinc))
    # A constant sound stays as loud as it was, over all phases together.
    taps = tf.cast(taps * (tf.cast(made, tf.float64) / tf.reduce_sum(taps)), tf.float32)
    rows = block + 2 * reach + 1                               # row i is input sample i - reach of a block
    places = tf.stack([inputs + reach, tf.broadcast_to(outputs, tf.shape(inputs))], -1)
    matrix = tf.scatter_nd(places, taps, tf.stack([rows, made]))

    def read(waveform, examples, starts, size):
        number, first = tf.size(starts, tf.int64), starts // made
        blocks = (size - 2) // made + 2                        # blocks that a piece touches, at most
        index = first[:, None] + tf.range(blocks)
        pieces = read_samples(waveform, tf.repeat(examples, blocks), tf.reshape(index, [-1]) * block - reach, rows)
        resampled = tf.reshape(tf.matmul(pieces, matrix), [number, blocks * made])
        places = starts[:, None] + tf.range(size, dtype=tf.int64)
        resampled = tf.gather(resampled, places - first[:, None] * made, batch_dims=1)
        length = -(-tf.shape(waveform, tf.int64)[1] * up // down)
        return tf.where(places < length, resampled, 0.0)

    return read, up, down


def checksum(variables):
    """SHA-256, in hexadecimal, over type, shape and little-endian bytes of tf.Variables in their order."""
    digest = hashlib.sha256()
    for variable in variables:
        value = variable.numpy()
        digest.update(f'{value.dtype.name} {list(value.shape)}\n'.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def describe_training(run_dir, epochs):
    """What an exported tower should tell of its training, without the paths of this machine.

    Args:
        run_dir: run folder.
        epochs: how many the exported weights were trained for.

    Returns:
        dict of `epochs`, `records` and `eval_records` (None, or a dict of base names of the globs, number of records, names of
        the collections), and `results`, what `result.json` holds; what was measured after other epochs is left out.
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


def _without_folders(value):
    """A value of JSON in which the folders of this machine are left out of paths and globs."""
    if isinstance(value, dict):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    return _base_names(value) if isinstance(value, str) and value.startswith(os.sep) else value


def _base_names(pattern):
    return ','.join(os.path.basename(part.strip().rstrip('/')) for part in pattern.split(','))


def _describe_records(pattern):
    """Base names, counts and collections of records; the counts are None where the records are gone."""
    if not pattern:
        return None
    try:
        shards = find_shards(pattern)
    except UserError:
        return {'glob': _base_names(pattern), 'records': None, 'datasets': []}
    names = set()
    for prefix in sorted({re.sub(r'-\d{5}-of-\d{5}$', '', path) for path, _ in shards}):
        with contextlib.suppress(tf.errors.NotFoundError, ValueError), tf.io.gfile.GFile(summary_path(prefix)) as file:
            names.add(json.load(file).get('dataset_name') or '')
    return {'glob': _base_names(pattern), 'records': sum(count for _, count in shards), 'datasets': sorted(names - {''})}


def make_metadata(tower, training=None):
    """What stands in `assets/metadata.json` of an exported tower.

    Args:
        tower: `ExportedTower`.
        training: result of `describe_training`, or None.

    Returns:
        dict that JSON can hold.
    """
    config = json.loads(tower._config.to_json())
    clip, sizes = tower._config.clip, tower.sizes()
    embedding_size = sizes.pop('embedding')
    return {
        'tower': tower.name,
        'avts_tf_version': avts_tf.__version__, 'tensorflow_version': tf.__version__, 'keras_version': keras.__version__,
        'clip': {**config['clip'], 'window_seconds': clip.window_seconds, 'window_samples': clip.window_samples},
        'sample_rate': clip.sample_rate,
        'embedding_size': embedding_size,
        'feature_sizes': sizes,
        'unit_length': tower._config.towers.normalize == 'length',
        'resampling': 'windowed sinc, as scipy.signal.resample_poly' if getattr(tower, '_resample', False) else None,
        'signatures': describe_signatures(tower),
        'config': config,
        'training': training,
        'checksum': checksum(tower.variables),
    }


UNITS = {
    ('waveform', 'float32'): 'mono, full scale is 1, at sample_rate',
    ('waveform', 'int16'): 'mono, full scale is 32768, at sample_rate',
    ('hop_seconds', 'float32'): 'seconds', ('sample_rate', 'int32'): 'Hz',
    ('frames', 'uint8'): 'RGB, 0 to 255, at clip.fps', ('frames', 'string'): 'JPEG files, at clip.fps',
    ('timestamps', 'float32'): 'seconds, centre of each window',
}


def describe_signatures(tower):
    """Dict from the name of each signature to its `inputs` and `outputs`: dicts of name to dtype, shape and unit."""
    def describe(name, dtype, shape):
        return {'dtype': dtype.name, 'shape': list(shape), 'unit': UNITS.get((name, dtype.name))}

    result = {}
    for signature, specifications in tower.inputs.items():
        windows = [None] if signature == 'windows' else []
        outputs = {name: describe(name, tf.float32, [None, *windows, size]) for name, size in sorted(tower.sizes().items())}
        if windows:
            outputs['timestamps'] = describe('timestamps', tf.float32, windows)
        inputs = {item.name: describe(item.name, item.dtype, item.shape) for item in specifications}
        result[signature] = {'inputs': inputs, 'outputs': outputs}
    return result


def export_towers(model, export_dir, say=print, training=None, resample=False):
    """Exports both towers, each as `EXPORT_DIR/<tower>/<version>/`.

    The version is one higher than the highest there. The towers are written aside, loaded in a fresh process that imports
    only TensorFlow, every signature compared with the Keras towers, and only then renamed.

    Args:
        model: `TwoTower`.
        export_dir: folder.
        say: function that shows a line of text.
        training: result of `describe_training`, for the metadata.
        resample: whether the audio tower resamples sound of other rates in its signature `at_rate`.

    Returns:
        Dict from 'audio_tower' and 'video_tower' to the folder of the new version.

    Raises:
        UserError: the folder cannot be written.
        RuntimeError: a reloaded tower gives other values than the Keras tower.
    """
    towers = [AudioTower(model.audio_tower, model.config, resample), VideoTower(model.video_tower, model.config)]
    paths = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.locked(export_dir, 'export_dir', EXPORT_WAIT_SECONDS))
        asides = [stack.enter_context(_folder_aside(export_dir, tower)) for tower in towers]
        try:
            differences = _save_and_compare(towers, asides, training)
        except (OSError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError, tf.errors.UnknownError) as error:
            reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
            raise UserError(f'--export_dir={export_dir}: cannot be written: {reason}. The weights are in the run folder; once '
                            'there is room, --mode=export writes the towers.') from error
        for tower, aside, difference in zip(towers, asides, differences, strict=True):
            os.chmod(aside, 0o755)  # mkdtemp makes it private; a server runs as somebody else
            folder = os.path.dirname(aside)
            paths[tower.name] = os.path.join(folder, str(_next_version(folder)))
            os.rename(aside, paths[tower.name])
            say(f'{paths[tower.name]}: written, loaded in a fresh process, and its outputs equal those of the Keras tower '
                f'(greatest relative difference {difference:.1e}).')
    return paths


@contextlib.contextmanager
def _folder_aside(export_dir, tower):
    """A new folder beside the versions of a tower, gone afterwards unless it was renamed."""
    folder = os.path.join(export_dir, tower.name)
    try:
        os.makedirs(folder, exist_ok=True)
        aside = tempfile.mkdtemp(prefix='.writing-', dir=folder)
    except OSError as error:
        raise UserError(f'--export_dir={export_dir}: cannot be written: {error.strerror}.') from None
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _next_version(folder):
    return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=0) + 1


def _save_and_compare(towers, paths, training):
    """Saves towers and returns, for each, the greatest relative difference of its outputs after reloading."""
    with tempfile.TemporaryDirectory() as folder:
        tasks, expected = [], []
        for tower, path in zip(towers, paths, strict=True):
            signatures = tower.trace()
            metadata = os.path.join(folder, METADATA)
            with open(metadata, 'w') as file:
                file.write(json.dumps(make_metadata(tower, training), indent=2) + '\n')
            tower.metadata = tf.saved_model.Asset(metadata)
            tf.saved_model.save(tower, path, signatures=signatures)
            examples = tower.examples(np.random.default_rng(0))
            write_warmup(tower.name, examples, os.path.join(path, WARMUP))
            expected.append({})
            for name, example in examples.items():
                base = os.path.join(folder, f'{tower.name}-{name}')
                np.savez(base, **example)
                tasks.append((os.path.abspath(path), name, f'{base}.npz', f'{base}-outputs.npz'))
                expected[-1][tasks[-1][-1]] = signatures[name](**{key: tf.constant(value) for key, value in example.items()})
        task_path = os.path.join(folder, 'tasks.json')
        with open(task_path, 'w') as file:
            json.dump(tasks, file)
        process = subprocess.run([sys.executable, '-c', inspect.getsource(checksum) + _RELOAD, task_path], check=False,
                                 capture_output=True, text=True, cwd=folder)
        if process.returncode:
            raise RuntimeError(f'{", ".join(paths)}: cannot be used in a process with only TensorFlow:\n{process.stderr[-2000:]}')
        differences = [max(_difference(path, outputs) for path, outputs in files.items()) for files in expected]
    for path, difference in zip(paths, differences, strict=True):
        if not difference < TOLERANCE:
            raise RuntimeError(f'{path}: outputs differ from the Keras tower by {difference:.1e} (relative).')
    return differences


def _difference(path, expected):
    """Greatest difference of the outputs in a .npz file from the expected ones, relative to the greatest value of each."""
    with np.load(path) as outputs:
        if outputs.keys() != expected.keys():
            return float('inf')
        return max(np.abs(outputs[name] - value.numpy()).max() / np.abs(value.numpy()).max() for name, value in expected.items())


_RELOAD = '''
import hashlib
import json
import sys
import numpy as np
import tensorflow as tf
with open(sys.argv[1]) as file:
    tasks = json.load(file)
towers = {path: tf.saved_model.load(path) for path in {task[0] for task in tasks}}
for tower in towers.values():
    with open(tower.metadata.asset_path.numpy()) as file:
        assert json.load(file)['checksum'] == checksum(tower.variables), 'the variables have changed'
for path, name, example_path, output_path in tasks:
    with np.load(example_path, allow_pickle=True) as example:
        outputs = towers[path].signatures[name](**{key: tf.constant(value) for key, value in example.items()})
    np.savez(output_path, **{key: value.numpy() for key, value in outputs.items()})
'''


def write_warmup(model_name, examples, path):
    """Writes requests that a server answers to itself when it loads a model, so that the first client need not wait.

    Args:
        model_name: name under which the model is served.
        examples: dict from the name of each signature to a dict of its inputs, numpy arrays.
        path: file; its folder is made.
    """
    from tensorflow_serving.apis import (  # only needed to write these
        predict_pb2,
        prediction_log_pb2,
    )

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as writer:
        for name, inputs in examples.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = model_name, name
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
