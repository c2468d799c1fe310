"""The audio tower: a VGG-M-like 2-D convnet on the log-mel spectrogram, up to conv5, then fully connected."""

import keras

from avts_tf.models.frontend import LogMel
from avts_tf.models.layers import BatchNorm, embedding_head
from avts_tf.models.mcx import scaled

CONV_CHANNELS = (64, 192, 384, 256, 256)
# Strides of the pools in time and frequency: 10 ms steps become 40 ms, one frame of video.
POOLS = {1: (2, 2), 2: (2, 2), 5: (1, 2)}
HIDDEN = 512


def build_frontend(config):
    """The `LogMel` layer of a configuration."""
    log = config.logmel
    return LogMel(config.clip.sample_rate, log.stft_window_seconds, log.stft_hop_seconds, log.fft_size, log.mel_bands,
                  log.mel_min_hz, log.mel_max_hz, name='log_mel')


def build_audio_network(config, steps):
    """The audio tower without its front end.

    Args:
        config: `Config`.
        steps: STFT steps in a window.

    Returns:
        `keras.Model` from float32 [batch, steps, mel_bands] to a dict: `embedding` float32 [batch, embedding_size] and
        `conv5` float32 [batch, channels], the fifth convolution averaged over time and frequency.
    """
    towers = config.towers
    spectrogram = keras.Input([steps, config.logmel.mel_bands], name='spectrogram')
    x = keras.layers.Reshape([steps, config.logmel.mel_bands, 1], name='add_channel')(spectrogram)
    for number, channels in enumerate(CONV_CHANNELS, 1):
        x = keras.layers.Conv2D(scaled(channels, towers.audio_width), 3, padding='same', use_bias=False,
                                kernel_initializer='he_normal', name=f'conv{number}')(x)
        x = BatchNorm(synchronized=towers.sync_batchnorm, name=f'conv{number}_bn')(x)
        x = conv5 = keras.layers.ReLU(name=f'conv{number}_relu')(x)
        if number in POOLS:
            x = keras.layers.MaxPooling2D(3, POOLS[number], padding='same', name=f'pool{number}')(x)
    time, bands, channels = x.shape[1:]
    x = keras.layers.Reshape([time, bands * channels], name='join_bands')(x)
    x = keras.layers.Dense(scaled(HIDDEN, towers.audio_width), use_bias=False, kernel_initializer='he_normal', name='fc6')(x)
    x = BatchNorm(synchronized=towers.sync_batchnorm, name='fc6_bn')(x)
    x = keras.layers.ReLU(name='fc6_relu')(x)
    conv5 = keras.layers.GlobalAveragePooling2D(name='conv5_mean', dtype='float32')(conv5)
    return keras.Model(spectrogram, {'embedding': embedding_head(x, towers), 'conv5': conv5}, name='audio_network')


def build_audio_tower(config):
    """The audio tower as a functional model, with the front end inside.

    Args:
        config: `Config`.

    Returns:
        `keras.Model` from int16 [batch, window_samples] to the dict of `build_audio_network`. Its layers are `log_mel` and
        `audio_network`. Keras casts what it is called with to int16, a float waveform in [-1, 1] to silence: that goes through
        `embed_waveform`.
    """
    waveform = keras.Input([config.clip.window_samples], dtype='int16', name='waveform')
    spectrogram = build_frontend(config)(waveform)
    return keras.Model(waveform, build_audio_network(config, spectrogram.shape[1])(spectrogram), name='audio_tower')


def embed_waveform(tower, waveform, training=False):
    """Outputs of an audio tower of int16 or, in [-1, 1], float [batch, window_samples]: the dict of `build_audio_network`."""
    return tower.get_layer('audio_network')(tower.get_layer('log_mel')(waveform), training=training)
