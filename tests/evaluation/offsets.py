"""Videos that flash and sound together, towers that notice it, and files of them."""

import fractions
import types

import av
import numpy as np
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import media, records
from avts_tf.evaluation.offset import embed_video, offset_curve
from avts_tf.evaluation.offset_calibration import shift_audio
from avts_tf.evaluation.offset_files import MOST_SECONDS

CONFIG = make_config('tiny')
CLIP = CONFIG.clip
FRAME_SAMPLES = round(CLIP.sample_rate / CLIP.fps)
CALIBRATION = {'bias_ms': 0.0, 'max_offset_seconds': 1.0,
               'right_depths': np.linspace(0.3, 0.9, 20).tolist(),
               'wrong_depths': np.linspace(0, 0.1, 20).tolist()}
OPTIONS = media.MediaOptions(fps=CLIP.fps, short_side=0, sample_rate=CLIP.sample_rate)


class _Tower:
    """Stands for a trained tower: it embeds how bright or loud each frame of a window is."""

    def __init__(self, energies):
        self._energies = energies

    def __call__(self, windows, training):
        return {'embedding': tf.math.l2_normalize(self._energies(tf.cast(windows, tf.float32)), -1)}

    def get_layer(self, name):
        return self if name == 'audio_network' else tf.identity


def model():
    def loudness(sound):
        return tf.reduce_mean(tf.abs(tf.reshape(sound, [-1, CLIP.frames, FRAME_SAMPLES])), -1)

    def brightness(frames):
        return tf.reduce_mean(frames, [2, 3, 4])

    return types.SimpleNamespace(config=CONFIG, video_tower=_Tower(brightness),
                                 audio_tower=_Tower(loudness))


def strikes(seed, seconds=3.0):
    """(JPEGs, sound): the picture is bright and the sound is loud at the same frames."""
    rng = np.random.default_rng(seed)
    energy = np.where(rng.random(round(seconds * CLIP.fps)) < 0.25, 1.0, 0.05)
    pictures = [tf.io.encode_jpeg(np.full((40, 48, 3), round(200 * level), np.uint8)).numpy()
                for level in energy]
    sound = np.repeat(energy, FRAME_SAMPLES) * 9000 * rng.choice([-1, 1], len(energy)
                                                                 * FRAME_SAMPLES)
    return pictures, sound.astype(np.int16)


def steps(count):
    """Times of frames that lie on their steps."""
    return np.arange(count) / CLIP.fps


def embed(pictures):
    return embed_video(model(), tf.constant(pictures), steps(len(pictures)))


def video_of(seed):
    pictures, sound = strikes(seed)
    return records.Video(example_id=f'strikes-{seed}', frames=pictures, frame_rate=CLIP.fps,
                         height=40, width=48, waveform=sound,
                         sample_rate=CLIP.sample_rate)


def curve_of(path):
    """The curve of a file as read for its offset."""
    found = media.read_streams(path, OPTIONS, MOST_SECONDS, 1.0)
    picture = embed_video(model(), tf.constant(found.frames), found.frame_seconds)
    return offset_curve(model(), picture, found.waveform, 1.0, found.waveform_seconds)


def write_file(path, seed, late_seconds, video_codec='mpeg4', audio_codec='aac'):
    """A video file whose samples are late by so much; the times of both streams start at 0."""
    pictures, sound = strikes(seed)
    sound = shift_audio(sound, round(late_seconds * CLIP.sample_rate))
    with av.open(str(path), 'w') as container:
        video = container.add_stream(video_codec, rate=round(CLIP.fps), options={'qscale': '2'})
        video.codec_context.max_b_frames = 2 if video_codec == 'libx264' else 0
        video.width, video.height, video.pix_fmt = 48, 40, 'yuv420p'
        audio = container.add_stream(audio_codec, rate=CLIP.sample_rate, layout='mono')
        for picture in pictures:
            pixels = tf.io.decode_jpeg(picture).numpy()
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, 'rgb24')))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound[None], 's16', 'mono')
        frame.sample_rate, frame.pts = CLIP.sample_rate, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return str(path)


def write_late(path, seed, delay_seconds, video_at=0.0):
    """A file of strikes whose frames begin at `video_at`, its samples `delay_seconds` later."""
    pictures, sound = strikes(seed)
    with av.open(str(path), 'w', options={'avoid_negative_ts': 'disabled'}) as container:
        video = container.add_stream('mpeg4', rate=round(CLIP.fps), options={'qscale': '2'})
        video.codec_context.max_b_frames = 0
        video.width, video.height, video.pix_fmt = 48, 40, 'yuv420p'
        audio = container.add_stream('pcm_s16le', rate=CLIP.sample_rate, layout='mono')
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(tf.io.decode_jpeg(picture).numpy(), 'rgb24')
            frame.pts = number + round(video_at * CLIP.fps)
            frame.time_base = fractions.Fraction(1, round(CLIP.fps))
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound[None], 's16', 'mono')
        frame.sample_rate, frame.pts = CLIP.sample_rate, round((video_at + delay_seconds)
                                                               * CLIP.sample_rate)
        frame.time_base = fractions.Fraction(1, CLIP.sample_rate)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return str(path)
