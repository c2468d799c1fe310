"""Writes a synthetic world as records; `avts_tf/data/worlds/` says what each holds.

    python -m tfrecords_tools.synthetic --output=data/world --videos=64

Beside the shards `data/world-00000-of-00001` there are then `data/world.json`, a summary, and the
truth: `data/world.strikes.csv`, the time of each strike, or with `--world=sustained`
`data/world.paths.csv`, the height of the object and the pitch of its tone.
"""

from absl import flags

from avts_tf import program
from avts_tf.data.shards import summary_path
from avts_tf.data.synthetic import write_world
from avts_tf.data.worlds import WORLDS, find_world
from avts_tf.errors import UserError


def _define_flags():
    # Here and not at import, so that importing this file leaves other programs' flags alone.
    flags.DEFINE_string('output', None, 'Folder and beginning of the name of what is written, '
                        'such as data/world.')
    flags.DEFINE_integer('videos', 64, 'Number of videos.')
    flags.DEFINE_float('seconds', 4.0, 'Duration of each video, in seconds.')
    flags.DEFINE_float('fps', 25.0, 'Frames per second.')
    flags.DEFINE_integer('size', 40, 'Height and width of a frame, in pixels.')
    flags.DEFINE_integer('sample_rate', 16000, 'Audio sample rate, in Hz.')
    flags.DEFINE_integer('seed', 0, 'Seed of the set; another seed gives other videos and other '
                         'example ids.')
    flags.DEFINE_integer('shards', 1, 'Number of record files.')
    flags.DEFINE_float('difficulty', 0.2, 'Noise, clutter, things that are silent and sounds out '
                       'of sight: 0 is none, 1 much.')
    flags.DEFINE_enum('world', 'struck', WORLDS, 'Things that strike and sound, or things that hum '
                      'at a pitch which follows their height.')
    flags.mark_flag_as_required('output')


def main(argv: list[str]) -> None:
    """Runs the command line; see `python -m tfrecords_tools.synthetic --help`."""
    if len(argv) > 1:
        raise UserError(None, argv[1], 'is no flag; flags look like --name=value.')
    values = flags.FLAGS
    paths = write_world(
        values.output, videos=values.videos, seconds=values.seconds, fps=values.fps,
        size=values.size, sample_rate=values.sample_rate, seed=values.seed, shards=values.shards,
        difficulty=values.difficulty, world=values.world,
    )
    more = ' ...' if len(paths) > 1 else ''
    print(f'{values.videos} videos of {values.seconds:g} s in {len(paths)} file(s): '
          f'{paths[0]}{more}')
    truth = find_world(values.world).truth_name
    print(f'true {truth}: {values.output}.{truth}.csv, summary: {summary_path(values.output)}')


if __name__ == '__main__':
    _define_flags()
    program.run(main)
