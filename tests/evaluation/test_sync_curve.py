"""The sync curve: the right audio at each offset, and the lowest distance in sync."""

import json

import numpy as np
import tensorflow as tf

from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.data.window_datasets import make_offset_dataset
from avts_tf.evaluation.sync import measure_sync_curve
from tests.helpers import counting_video, read_frames, read_sound, write_records


class Oracle:
    """Stands for a model: the distance is the offset of the audio, plus what the clip adds."""

    def __init__(self, config):
        self.config = config

    def embed_batch(self, batch):
        clip, frames = read_frames(batch['video'].numpy()[0])
        # Counting sound never rests: four zeros in a row are the silence beyond a clip's ends.
        starts = [read_sound(sound)[1] if sound[:4].any() and sound[-4:].any() else np.nan
                  for sound in batch['audio'].numpy()[0]]
        return np.abs(np.array(starts) - frames[0] * 640)[None] / 16000 + clip

    def distances(self, outputs):
        return tf.constant(outputs)


def test_sounds_at_offsets(tmp_path):
    path = write_records(tmp_path / 'clips', [records.encode(counting_video(3))])
    config = make_config('tiny', frames=10, frame_size=32)
    clip = next(iter(make_offset_dataset(path, config, [-0.9, -0.5, 0.0, 0.04, 0.8, 0.9])))
    number, frames = read_frames(clip['video'].numpy()[0])
    # 41 windows fit in 50 frames: the middle one
    assert (number, frames[0]) == (3, 20)
    assert clip['fits'].numpy().tolist() == [False, True, True, True, True, False]
    sounds = clip['audio'].numpy()[0]
    assert [read_sound(sound) for sound in sounds[1:5]] == [(3, 12800 - 8000), (3, 12800),
                                                            (3, 12800 + 640), (3, 12800 + 12800)]
    assert not sounds[0][:1600].any() and sounds[0][1600:].any()    # silence before the clip begins


def test_curve_of_an_oracle(tmp_path):
    path = write_records(tmp_path / 'clips',
                         [records.encode(counting_video(clip)) for clip in range(6)])
    config = make_config('tiny', frames=10, frame_size=32)
    found = measure_sync_curve(Oracle(config), path)
    curve = found.results
    offsets = np.array(curve['offset_seconds'])
    assert offsets[0] == -0.8 and offsets[-1] == 0.8        # as far as the sound goes
    np.testing.assert_allclose(curve['distance'], np.abs(offsets) + 2.5, atol=1e-6)
    assert curve['lowest_at_seconds'] == 0.0 and curve['clips'] == 6
    low, high = np.array(curve['interval']).T
    assert (low < curve['distance']).all() and (high > curve['distance']).all()
    assert json.loads(json.dumps(curve)) == curve and len(found.single) == len(offsets)


def test_no_curve_of_clips_that_are_one_window(tmp_path):
    path = write_records(tmp_path / 'clips',
                         [records.encode(counting_video(clip, seconds=0.4)) for clip in range(2)])
    oracle = Oracle(make_config('tiny', frames=10, frame_size=32))
    assert measure_sync_curve(oracle, path, 'records') is None
