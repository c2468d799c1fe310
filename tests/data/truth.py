"""What a batch must be, read from its frames and samples themselves (see tests/helpers.py)."""

import collections

import numpy as np

from avts_tf.config import make_config
from avts_tf.data.places import window_rule
from avts_tf.data.records import hash_name
from avts_tf.data.sampling import Kind
from avts_tf.data.state import PipelineState
from tests.helpers import read_frames, read_sound

CLIPS = 12
RATE = 16000
PLAIN = {'crop_scale_min': 1.0, 'flip': False, 'colour_jitter': 0.0}
MIX = [0.4, 0.3, 0.3]


def config_of(**overrides):
    return make_config(**{'frames': 12, 'frame_size': 32, 'batch_size': 4, **PLAIN, **overrides})


def state_of(mix=MIX, epoch=0):
    state = PipelineState()
    state.mix.assign(mix)
    state.epoch.assign(epoch)
    return state


def collect(dataset):
    """Batches as dicts of arrays."""
    return list(dataset.as_numpy_iterator())


def clips_of(batches):
    """(clip, dict of its entries) of each clip of the batches, in order; the clip is read from the
    picture.
    """
    return [(read_frames(batch['video'][i])[0], {name: value[i] for name, value in batch.items()})
            for batch in batches for i in range(len(batch['video']))]


def hashes_of(names):
    return {int(hash_name(name)): name for name in names}


def pair_facts(batches):
    """What each clip's pairs are, by name, without the sound that comes from the other clips of
    its batch.
    """
    facts = {}
    for batch in batches:
        for i, name in enumerate(batch['example_hash']):
            own = batch['kind'][i] != Kind.EASY
            facts[int(name)] = (
                batch['kind'][i].tolist(), float(batch['video_start_seconds'][i]),
                batch['video'][i].tobytes(),
                batch['audio_start_seconds'][i][own].tolist(), batch['audio'][i][own].tobytes(),
            )
    return facts


def kind_counts(batches):
    return collections.Counter(int(kind) for batch in batches for kind in batch['kind'].flat)


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def check_truth(batches, times_of_clip, lengths, config):
    """Each window lies where its kind has to, by what its frames and samples count; and the times
    and hashes in the batch are right.
    """
    rule, names = window_rule(config), hashes_of(f'clip-{clip}' for clip in lengths)
    seen = collections.Counter()
    clips = clips_of(batches)
    for clip, entry in clips:
        times = times_of_clip[clip]
        _, frames = read_frames(entry['video'])
        wanted = times[frames[0]] + np.arange(config.clip.frames) / config.clip.fps
        # As near as any frame; of two that are equally near either will do.
        distances = np.abs(times[None] - wanted[:, None])
        np.testing.assert_allclose(distances[np.arange(len(frames)), frames], distances.min(1),
                                   rtol=0, atol=1e-9)
        assert entry['video_start_seconds'] == times[frames[0]]
        assert names[entry['example_hash']] == f'clip-{clip}'
        start = round(times[frames[0]] * RATE)
        for sound, kind, label, source, seconds in zip(
                entry['audio'], entry['kind'], entry['label'], entry['audio_hash'],
                entry['audio_start_seconds'], strict=True):
            sound_clip, sound_start = read_sound(sound)
            seen[int(kind)] += 1
            assert names[source] == f'clip-{sound_clip}' and seconds == sound_start / RATE
            assert 0 <= sound_start <= lengths[sound_clip] - rule.window
            assert label == (kind == Kind.POSITIVE) and (sound_clip == clip) == (kind != Kind.EASY)
            shift = abs(sound_start - start)
            if kind == Kind.POSITIVE:
                assert shift == 0
            elif kind == Kind.HARD:
                assert shift >= rule.window + min(rule.gap, lengths[clip] - 2 * rule.window)
            elif kind == Kind.SUPER_HARD:
                assert rule.min_shift <= shift <= rule.max_shift
    return seen
