"""Videos for the writers to read, and what they have written."""

import csv
import fractions
import pathlib

import av
import numpy as np
import tensorflow as tf

from avts_tf.data import records
from avts_tf.files import LOCK


def make_video(path, seconds=1.0, seed=0, moving=True, loud=True, frames=True, sound=True):
    """Writes a video of moving noise with a sound of noise, or without one of them."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), 'w') as container:
        if frames:
            video = container.add_stream('mpeg4', rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
        if sound:
            audio = container.add_stream('pcm_s16le' if str(path).endswith('.wav') else 'mp2',
                                         rate=32000, layout='mono')
        picture = rng.integers(0, 255, (48, 64, 3),
                               np.uint8) if moving else np.full((48, 64, 3), 99, np.uint8)
        for i in range(round(seconds * 25) if frames else 0):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 3 * i, 1), 'rgb24')
            frame.pts = i
            container.mux(video.encode(frame))
        for start in range(0, round(seconds * 32000) if sound else 0, 1152):
            samples = rng.integers(-9000, 9000, (1, 1152)).astype(np.int16) * loud
            frame = av.AudioFrame.from_ndarray(samples, 's16', 'mono')
            frame.sample_rate, frame.pts, frame.time_base = 32000, start, fractions.Fraction(1,
                                                                                             32000)
            container.mux(audio.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))


def read_set(prefix):
    """All records of a set, in the order of its shards."""
    paths = sorted(tf.io.gfile.glob(str(prefix) + '-*'))
    return [records.parse(data) for data in tf.data.TFRecordDataset(paths)]


def read_report(prefix):
    with open(f'{prefix}.report.csv', encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def read_files(folder):
    """Name → bytes of all files in a folder and below it, but for locks."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in pathlib.Path(folder).rglob('*')
            if path.is_file() and path.name != LOCK}
