"""L3-Net: does this frame go with this second of audio? (Arandjelovic and Zisserman 2017.)

Two nets of four blocks of two 3x3 convolutions with batch norm and ReLU; 512 numbers each, put
side by side, then 128, then a 2-way softmax. A frame is the middle one of the window; the audio is
a log spectrogram of 257 bins by, for 1 s, 199 steps. Negatives are other videos. The published net
takes 48 kHz audio (sample_rate=48000) and 224 x 224 pixels.
"""

import keras

from avts_tf.config import Config
from avts_tf.models.baselines.common import (
    FRONTEND,
    LogSpectrogram,
    MiddleFrame,
    PairClassifier,
    RepeatClips,
    SplitLike,
    batch_inputs,
    need_regime,
)
from avts_tf.models.batch_norm import BatchNorm
from avts_tf.models.layers import scaled
from avts_tf.models.sync_model import JoinWindows
from avts_tf.models.video import NormalizePixels

BLOCKS = (64, 128, 256, 512)
WINDOW_SECONDS, HOP_SECONDS, FFT_SIZE = 0.010, 0.005, 512
JOINT = 128


class L3Net(PairClassifier):
    """L3-Net as a `PairClassifier`.

    Args:
        config: `Config` with `regime=easy`.

    Raises:
        UserError: another regime.
    """

    def __init__(self, config: Config) -> None:
        need_regime(config, 'easy', 'whether video and audio are of the same video')
        clip = config.clip

        size = [clip.frames, clip.frame_size, clip.frame_size, 3]
        frames = keras.Input(size, dtype='uint8', name='frames')
        frame = MiddleFrame(autocast=False, name='middle_frame')(frames)          # [batch, h, w, 3]
        frame = NormalizePixels(False, name='normalize_pixels')(frame)
        seen = _subnet(frame, config.towers.video_width, config.towers.sync_batchnorm, 'features')
        video_tower = keras.Model(
            frames, {'embedding': seen, 'features': seen}, name='video_tower')

        waveform = keras.Input([clip.window_samples], dtype='int16', name='waveform')
        front_end = LogSpectrogram(
            clip.sample_rate, WINDOW_SECONDS, HOP_SECONDS, FFT_SIZE, name=FRONTEND)
        spectrogram = front_end(waveform)                                 # [batch, steps, bins]
        bins = keras.Input(spectrogram.shape[1:], name='spectrogram')
        x = keras.layers.Reshape([*bins.shape[1:], 1], name='add_channel')(bins)
        heard = _subnet(x, config.towers.audio_width, config.towers.sync_batchnorm, 'conv5')
        network = keras.Model(bins, {'embedding': heard, 'conv5': heard}, name='audio_network')
        audio_tower = keras.Model(waveform, network(spectrogram), name='audio_tower')

        inputs = batch_inputs(config)
        video = video_tower(inputs['video'])['embedding']                             # [B, 512]
        windows = JoinWindows(autocast=False, name='join_windows')(inputs['audio'])
        audio = audio_tower(windows)['embedding']                                 # [B * K, 512]
        repeated = RepeatClips(name='repeat')([video, inputs['audio']])
        joint = keras.layers.Concatenate(name='join')([repeated, audio])         # [B * K, 1024]
        joint = keras.layers.Dense(JOINT, 'relu', name='fc1')(joint)
        scores = keras.layers.Dense(2, name='softmax')(joint)                       # [B * K, 2]
        # Of a softmax over two, the difference of the scores is the logit.
        logit = SplitLike(name='split_windows')([scores[:, 1] - scores[:, 0], inputs['audio']])
        super().__init__(config, inputs, {'video': video, 'logit': logit}, video_tower,
                         audio_tower, name='l3')


SYSTEM = L3Net


def _subnet(x: keras.KerasTensor, width: float, synchronized: bool, name: str) -> keras.KerasTensor:
    """[batch, height, width, channels] -> [batch, 512 * width]."""
    for block, channels in enumerate(BLOCKS, 1):
        for number in (1, 2):
            layer = f'conv{block}_{number}'
            x = keras.layers.Conv2D(
                scaled(channels, width), 3, padding='same', use_bias=False,
                kernel_initializer='he_normal', name=layer)(x)
            x = BatchNorm(synchronized=synchronized, name=f'{layer}_bn')(x)
            x = keras.layers.ReLU(name=f'{layer}_relu')(x)
        if block < len(BLOCKS):
            x = keras.layers.MaxPooling2D(2, padding='same', name=f'pool{block}')(x)
    return keras.layers.GlobalMaxPooling2D(name=name, dtype='float32')(x)
