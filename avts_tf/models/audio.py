"""The audio tower: a VGG-M-like 2-D network on the log-mel spectrogram."""

import keras
import tensorflow as tf

from avts_tf.config import Config
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.frontend import LogMel
from avts_tf.models.layers import embedding_head, scaled

CONV_CHANNELS = (64, 192, 384, 256, 256)
# Strides of the pools in time and frequency: 10 ms steps become 40 ms, one frame of video.
POOLS = {1: (2, 2), 2: (2, 2), 5: (1, 2)}
HIDDEN = 512


def build_frontend(config: Config) -> LogMel:
    """The `LogMel` layer of a configuration."""
    log = config.logmel
    return LogMel(
        config.clip.sample_rate, log.stft_window_seconds, log.stft_hop_seconds, log.fft_size,
        log.mel_bands, log.mel_min_hz, log.mel_max_hz, name='log_mel')


def build_audio_network(config: Config, steps: int) -> keras.Model:
    """The audio tower without its front end.

    Args:
        config: `Config`.
        steps: STFT steps in a window.

    Returns:
        Functional model from float32 [batch, steps, mel_bands] to a dict: `embedding` float32
        [batch, embedding_size] and `conv5` float32 [batch, channels], the fifth convolution
        averaged over time and frequency.
    """
    towers, bands = config.towers, config.logmel.mel_bands
    spectrogram = keras.Input([steps, bands], name='spectrogram')
    x = spectrogram
    if towers.remove_static in ('audio', 'both'):
        x = x - keras.ops.mean(x, axis=1, keepdims=True)
    x = keras.layers.Reshape([steps, bands, 1], name='add_channel')(x)
    # [batch, steps, bands, 1]; after the pools, at full width and 40 bands:
    # pool1 [batch, steps / 2, 20, 64], pool2 [batch, steps / 4, 10, 192],
    # conv5 [batch, steps / 4, 10, 256], pool5 [batch, steps / 4, 5, 256].
    for number, channels in enumerate(CONV_CHANNELS, 1):
        x = keras.layers.Conv2D(
            scaled(channels, towers.audio_width), 3, padding='same', use_bias=False,
            kernel_initializer='he_normal', name=f'conv{number}')(x)
        x = BatchNorm(synchronized=towers.sync_batchnorm, name=f'conv{number}_bn')(x)
        x = conv5 = keras.layers.ReLU(name=f'conv{number}_relu')(x)
        if number in POOLS:
            x = keras.layers.MaxPooling2D(3, POOLS[number], padding='same',
                                          name=f'pool{number}')(x)
    time, bands, channels = x.shape[1:]
    x = keras.layers.Reshape([time, bands * channels], name='join_bands')(x)
    x = keras.layers.Dense(scaled(HIDDEN, towers.audio_width), use_bias=False,
                           kernel_initializer='he_normal', name='fc6')(x)  # [batch, time, 512]
    x = BatchNorm(synchronized=towers.sync_batchnorm, name='fc6_bn')(x)
    x = keras.layers.ReLU(name='fc6_relu')(x)
    conv5 = keras.layers.GlobalAveragePooling2D(name='conv5_mean', dtype='float32')(conv5)
    outputs = {'embedding': embedding_head(x, towers), 'conv5': conv5}
    return keras.Model(spectrogram, outputs, name='audio_network')


def build_audio_tower(config: Config) -> keras.Model:
    """The audio tower as a functional model, with the front end inside.

    Args:
        config: `Config`.

    Returns:
        Functional model from int16 [batch, window_samples] to the dict of `build_audio_network`.
        Its layers are `log_mel` and `audio_network`. Keras casts its input to int16, which turns a
        float waveform in [-1, 1] into silence: for that take `embed_waveform`.

    Example:
        >>> import avts_tf
        >>> build_audio_tower(avts_tf.make_config('tiny')).output['embedding'].shape
        (None, 64)
    """
    waveform = keras.Input([config.clip.window_samples], dtype='int16', name='waveform')
    spectrogram = build_frontend(config)(waveform)                    # [batch, steps, mel_bands]
    network = build_audio_network(config, spectrogram.shape[1])
    return keras.Model(waveform, network(spectrogram), name='audio_tower')


def embed_waveform(
    tower: keras.Model, waveform: tf.Tensor, training: bool = False,
) -> dict[str, tf.Tensor]:
    """Outputs of an audio tower for integers or floats.

    Args:
        tower: result of `build_audio_tower`.
        waveform: int16, or float in [-1, 1], [batch, window_samples].
        training: as in Keras.

    Returns:
        The dict of `build_audio_network`.
    """
    spectrogram = tower.get_layer('log_mel')(waveform)                # [batch, steps, mel_bands]
    return tower.get_layer('audio_network')(spectrogram, training=training)
