"""L3-Net (Look, Listen and Learn, Arandjelovic and Zisserman 2017): does this frame go with this second of sound?

Two nets of four blocks of two 3x3 convolutions with batch norm and ReLU; 512 numbers each, put side by side, then 128, then a 2-way
softmax. A frame is the middle one of the window; the sound is a log spectrogram of 257 bins by, for 1 s, 199 steps. Negatives are
other videos. The published net hears 48 kHz (`--sample_rate=48000`) and sees 224 x 224 pixels.
"""

import keras

from avts_tf.models.baselines.common import (
    FRONTEND,
    LogSpectrogram,
    MiddleFrame,
    PairClassifier,
    RepeatClips,
    SplitLike,
    batch_inputs,
)
from avts_tf.models.build import need_regime
from avts_tf.models.layers import BatchNorm
from avts_tf.models.mcx import scaled
from avts_tf.models.two_tower import JoinWindows
from avts_tf.models.video import NormalizePixels

BLOCKS = (64, 128, 256, 512)
WINDOW_SECONDS, HOP_SECONDS, FFT_SIZE = 0.010, 0.005, 512
JOINT = 128


def build_l3(config):
    """Builds L3-Net as a `PairClassifier`."""
    need_regime(config, 'easy', 'whether picture and sound are of the same video')
    keras.utils.set_random_seed(config.train.seed)
    clip = config.clip

    frames = keras.Input([clip.frames, clip.frame_size, clip.frame_size, 3], dtype='uint8', name='frames')
    frame = NormalizePixels(False, name='normalize_pixels')(MiddleFrame(autocast=False, name='middle_frame')(frames))
    seen = _subnet(frame, config.towers.video_width, config.towers.sync_batchnorm, 'features')
    video_tower = keras.Model(frames, {'embedding': seen, 'features': seen}, name='video_tower')

    waveform = keras.Input([clip.window_samples], dtype='int16', name='waveform')
    spectrogram = LogSpectrogram(clip.sample_rate, WINDOW_SECONDS, HOP_SECONDS, FFT_SIZE, name=FRONTEND)(waveform)
    bins = keras.Input(spectrogram.shape[1:], name='spectrogram')
    x = keras.layers.Reshape([*bins.shape[1:], 1], name='add_channel')(bins)
    heard = _subnet(x, config.towers.audio_width, config.towers.sync_batchnorm, 'conv5')
    network = keras.Model(bins, {'embedding': heard, 'conv5': heard}, name='audio_network')
    audio_tower = keras.Model(waveform, network(spectrogram), name='audio_tower')

    inputs = batch_inputs(config)
    video = video_tower(inputs['video'])['embedding']
    audio = audio_tower(JoinWindows(autocast=False, name='join_windows')(inputs['audio']))['embedding']
    joint = keras.layers.Concatenate(name='join')([RepeatClips(name='repeat')([video, inputs['audio']]), audio])
    joint = keras.layers.Dense(JOINT, 'relu', name='fc1')(joint)
    scores = keras.layers.Dense(2, name='softmax')(joint)
    # Of a softmax over two, the difference of the scores is the logit.
    logit = SplitLike(name='split_windows')([scores[:, 1] - scores[:, 0], inputs['audio']])
    model = PairClassifier(inputs, {'video': video, 'logit': logit}, name='l3')
    model.prepare(config, video_tower, audio_tower)
    return model


def _subnet(x, width, synchronized, name):
    """[batch, height, width, channels] -> [batch, 512 * width]."""
    for block, channels in enumerate(BLOCKS, 1):
        for number in (1, 2):
            x = keras.layers.Conv2D(scaled(channels, width), 3, padding='same', use_bias=False, kernel_initializer='he_normal',
                                    name=f'conv{block}_{number}')(x)
            x = BatchNorm(synchronized=synchronized, name=f'conv{block}_{number}_bn')(x)
            x = keras.layers.ReLU(name=f'conv{block}_{number}_relu')(x)
        if block < len(BLOCKS):
            x = keras.layers.MaxPooling2D(2, padding='same', name=f'pool{block}')(x)
    return keras.layers.GlobalMaxPooling2D(name=name, dtype='float32')(x)
