"""What several tests share; above all videos whose frames and samples hold their own position.

The brightness of the left half of frame i stands for i, that of the right half for the number of
the clip. The even samples count (sample 2n is n), the odd ones are -1 - clip. A test can so read
from the frames and the audio of a batch where they were cut, without the batch's own times.
"""

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

# isort: split

import contextlib
import io
import itertools
import pathlib
import wave
from unittest import mock

import av
import numpy as np
import tensorflow as tf
from PIL import Image

from avts_tf.data import records

ROOT = pathlib.Path(__file__).parent.parent  # of the checkout
# A limit against hanging, for machines that are busy; nothing here takes a tenth of it.
PATIENCE_SECONDS = 1800
LEVEL = 2  # grey levels per step of the number that a brightness tells: JPEG may be off by one


def counting_frame(index, clip, size=32):
    """JPEG bytes of a frame that tells its index and its clip, both below 120."""
    grey = np.full((size, size), 8 + LEVEL * index, np.uint8)
    grey[:, size // 2:] = 8 + LEVEL * clip
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, 'JPEG', quality=98)
    return buffer.getvalue()


def counting_sound(samples, clip):
    """int16 [samples]; tells its place in a clip of up to 65536 samples."""
    sound = np.arange(samples) // 2
    sound[1::2] = -1 - clip
    return sound.astype(np.int16)


def counting_video(clip, seconds=2.0, fps=25.0, sample_rate=16000, size=32):
    """A `records.Video` of counting frames and sound."""
    count = round(seconds * fps)
    return records.Video(
        example_id=f'clip-{clip}', frames=[counting_frame(i, clip, size) for i in range(count)],
        frame_rate=fps, height=size, width=size,
        waveform=counting_sound(round(count / fps * sample_rate), clip), sample_rate=sample_rate,
    )


def read_sound(window):
    """(clip, first sample) that a window of counting sound tells; the whole window must agree."""
    window = window.astype(np.int64)
    counter = int(np.argmax(window[:2] >= 0))
    clip, start = -1 - window[1 - counter], 2 * window[counter] - counter
    np.testing.assert_array_equal(window, counting_sound(65536, clip)[start:start + len(window)])
    return int(clip), int(start)


def read_frames(video):
    """(clip, indices of the frames) that the pictures of a window tell, uint8 [T, H, W, 3]."""
    half = video.shape[2] // 2
    halves = video[:, :, :half].mean((1, 2, 3)), video[:, :, half:].mean((1, 2, 3))
    indices, clips = (np.round((half - 8) / LEVEL).astype(int) for half in halves)
    assert len(set(clips)) == 1
    return int(clips[0]), indices


def edit_record(serialized, edit):
    """A serialised record, changed by a function of the `SequenceExample`."""
    example = tf.train.SequenceExample.FromString(serialized)
    edit(example)
    return example.SerializeToString(deterministic=True)


def with_times(serialized, seconds):
    """A serialised record with other frame times."""
    def edit(example):
        times = example.feature_lists.feature_list[records.FRAME_TIMES].feature
        for feature, time in zip(times, seconds, strict=True):
            feature.int64_list.value[:] = [round(time * records.MICROSECONDS)]
    return edit_record(serialized, edit)


def write_records(path, serialized):
    """Writes serialised records to a TFRecord file and returns its path as a string."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


def write_sound(path, samples, sample_rate=16000):
    """A WAV file of int16 or uint8 [samples] or [samples, channels]."""
    with wave.open(str(path), 'wb') as file:
        channels = samples.shape[1] if samples.ndim == 2 else 1
        file.setparams((channels, samples.itemsize, sample_rate, 0, 'NONE', ''))
        file.writeframes(samples.tobytes())


def noise(samples, seed=0):
    """int16 [samples], loud and soft by turns, so that its windows differ."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.uniform(0.01, 0.9, -(-samples // 1600)), 1600)[:samples]
    return (rng.uniform(-32768, 32767, samples) * loudness).astype(np.int16)


def write_video(path, frames, waveform=None, fps=25, sample_rate=16000):
    """A video file of uint8 [frames, height, width, 3], with int16 [samples] or no sound.

    Without loss but for the way to YUV.
    """
    with av.open(str(path), 'w') as container:
        video = container.add_stream('ffv1', rate=fps, width=frames.shape[2],
                                     height=frames.shape[1], pix_fmt='yuv444p')
        sound = (container.add_stream('pcm_s16le', rate=sample_rate, layout='mono')
                 if waveform is not None else None)
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
        container.mux(video.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(waveform[None], format='s16', layout='mono')
            frame.sample_rate = sample_rate
            container.mux([*sound.encode(frame), *sound.encode(None)])


@contextlib.contextmanager
def light_video_network():
    """Within it the MCx networks are one convolution: a test traces training in seconds."""
    import keras

    from avts_tf.models import mcx
    from avts_tf.models.batch_norm import BatchNorm

    def network(x, *arguments):
        x = keras.layers.Conv3D(8, (3, 4, 4), (1, 4, 4), 'same', use_bias=False, name='conv1')(x)
        x = BatchNorm(synchronized=arguments[-1], name='conv1_bn')(x)
        return keras.layers.ReLU(name='conv1_relu')(x)

    with mock.patch.object(mcx, 'mc3', network):
        yield


def acting_at(number, function, act):
    """`function`, before whose call of a number, from 1, `act` is called."""
    calls = itertools.count(1)

    def wrapped(*arguments):
        if next(calls) == number:
            act()
        return function(*arguments)

    return wrapped
