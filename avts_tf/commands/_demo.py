"""The small synthetic world that is trained on where no records are given."""

import os
import types

from avts_tf.config import Config, make_config
from avts_tf.data.shards import glob_of_set, summary_path
from avts_tf.data.synthetic import write_world
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.devices import refuse_several_machines

VIDEOS = {'train': (216, 0), 'eval': (64, 1)}  # number of videos and seed of each set


def records_or_demo(flags: types.SimpleNamespace) -> tuple[str, Config, str, str | None]:
    """The preset, the configuration and both globs of records of a training or a search."""
    preset = flags.preset or ('small' if flags.records else 'tiny')
    config = make_config(preset, **flags.parameters)
    if flags.records:
        return preset, config, flags.records, flags.eval_records
    refuse_several_machines('records', None, 'needed with several machines (TF_CONFIG); give the '
                            'same on all.')
    parse_regime(config.train.regime, config.train.epochs)  # a mistake should not cost the writing
    records, eval_records = (_write(os.path.join(flags.run_dir, 'world', name), config, *made)
                             for name, made in VIDEOS.items())
    return preset, config, records, eval_records


def _write(prefix: str, config: Config, videos: int, seed: int) -> str:
    """Writes a set of the synthetic world, if it is not there yet; returns its glob."""
    pattern = glob_of_set(prefix, 'run_dir')
    if not os.path.exists(summary_path(prefix)):
        print(f'No --records: writing {videos} videos of the synthetic world to {prefix}-*.')
        clip = config.clip
        write_world(prefix, videos=videos, seed=seed, size=clip.frame_size + 8, fps=clip.fps,
                    sample_rate=clip.sample_rate)
    return pattern
