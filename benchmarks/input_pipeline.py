"""What the input pipeline costs: clips per second, waiting in a training, and memory.

    python benchmarks/input_pipeline.py

Sides that take turns, all of them on the same records (256 x 342 frames at 25 fps, 16 kHz audio;
16 frames a clip):

    ours          the whole pipeline: shuffle, parse, pairs, decode, crop, resize, colour, batch
    ours_4        ours with four clips from each read of a record
    plain         ours without changes of colour
    plain_4       that with four clips from each read
    decoding      nothing but `tf.io.decode_jpeg` of the frames that a clip shows, from memory, on
                  as many threads
    all_frames    a pipeline that decodes each record's frames and then chooses
    float_audio   ours, on records whose audio is a list of floats, as DMVR writes it

Then what a clip of ours costs (phases.py), the part of a training's time in which a step waits for
its batch, and the resident memory with 100 times the records.
"""

import argparse
import functools
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable

import phases
import side_by_side

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
RECORDS, FPS, HEIGHT, WIDTH = 48, 25.0, 256, 342
PREFETCHED_SECONDS = 2.5
MEMORY_RECORDS, MEMORY_COPIES, MEMORY_BATCHES = 640, 100, 60


def write_shards(
    folder: str, name: str, count: int, seconds: float, size: tuple[int, int],
    audio_encoding: str = 'pcm16', shards: int = 4,
) -> tuple[str, int]:
    """Writes records of noisy frames, whose JPEGs are as large as real ones; returns their glob."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from avts_tf.data import records
    from avts_tf.data.shards import shard_path
    rng, (height, width) = np.random.default_rng(0), size
    smooth = rng.uniform(0, 255, [8, 8, 8, 3])
    jpegs = []
    for base in smooth:
        large = np.asarray(Image.fromarray(base.astype(np.uint8)).resize((width, height),
                                                                         Image.Resampling.BICUBIC),
                           np.int16)
        noisy = np.clip(large + rng.normal(0, 9, large.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, 'JPEG', quality=90)
        jpegs.append(buffer.getvalue())
    for shard in range(shards):
        with tf.io.TFRecordWriter(shard_path(os.path.join(folder, name), shard, shards)) as writer:
            for number in range(shard, count, shards):
                frames = [jpegs[(number + i) % len(jpegs)]
                          for i in range(round(seconds * FPS))]
                sound = rng.integers(-9000, 9000, round(seconds * 16000), dtype=np.int16)
                video = records.Video(f'{name}-{number}', frames, FPS, height, width, sound, 16000)
                writer.write(records.encode(video, audio_encoding))
    return os.path.join(folder, f'{name}-*-of-*'), len(jpegs[0])


def make_config(**values: object) -> object:
    """The configuration of the clips that are measured."""
    from avts_tf import config
    return config.make_config('large', **{'bfloat16': False, 'frames': 16, 'frame_size': 112,
                                          'batch_size': 16,
                                          **values})


def ours(pattern: str, **values: object) -> Iterable:
    """Endless batches of the pipeline, which is not begun anew as `repeat` would do."""
    from avts_tf.data.pipeline import make_dataset
    config = make_config(shuffle_records=16, passes_per_epoch=10**6, **values)
    return make_dataset(pattern, config)


def bytes_per_clip(pattern: str, clips_per_read: int, batches: int = 48) -> float:
    """Bytes that this process reads for a clip, reading ahead included."""
    before = side_by_side.bytes_read()
    iterator = iter(ours(pattern, clips_per_read=clips_per_read))
    for _ in range(batches):
        next(iterator)
    return (side_by_side.bytes_read() - before) / (batches * make_config().train.batch_size)


def decoding(pattern: str) -> Iterable:
    """Endless batches of decoded frames, from JPEGs that lie in memory."""
    import tensorflow as tf

    from avts_tf.data import records
    from avts_tf.data.shards import find_shards
    clip_frames, batch = make_config().clip.frames, make_config().train.batch_size
    paths = [path for path, _ in find_shards(pattern)]
    frames = next(iter(tf.data.TFRecordDataset(paths).map(records.parse))).frames[:clip_frames]
    clips = tf.data.Dataset.from_tensors(frames).repeat()
    one_type = tf.TensorSpec([HEIGHT, WIDTH, 3], tf.uint8)
    clips = clips.map(lambda clip: tf.map_fn(lambda jpeg: tf.io.decode_jpeg(jpeg, 3), clip,
                                             fn_output_signature=one_type),
                      tf.data.AUTOTUNE)
    return clips.batch(batch).prefetch(tf.data.AUTOTUNE)


def all_frames(pattern: str) -> Iterable:
    """Endless batches of a pipeline that decodes all frames of a record before it chooses."""
    import tensorflow as tf

    from avts_tf.data import records
    from avts_tf.data.shards import find_shards
    config = make_config()
    size, count = config.clip.frame_size, config.clip.frames

    @tf.autograph.experimental.do_not_convert
    def clip(record: records.Record) -> tuple:
        pixels = tf.map_fn(lambda jpeg: tf.io.decode_jpeg(jpeg, 3), record.frames,
                           fn_output_signature=tf.TensorSpec([HEIGHT, WIDTH, 3], tf.uint8))
        start = tf.random.uniform([], 0, tf.shape(pixels)[0] - count + 1, tf.int32)
        pixels = tf.image.resize(pixels[start:start + count], [size, size])
        return tf.cast(pixels, tf.uint8), record.waveform[:config.clip.window_samples]

    paths = [path for path, _ in find_shards(pattern)]
    data = tf.data.TFRecordDataset(paths).repeat().map(records.parse,
                                                       tf.data.AUTOTUNE).map(clip, tf.data.AUTOTUNE)
    return data.batch(config.train.batch_size).prefetch(tf.data.AUTOTUNE)


SIDES = {
    'ours': ours,
    'ours_4': functools.partial(ours, clips_per_read=4),
    'plain': functools.partial(ours, colour_jitter=0.0),
    'plain_4': functools.partial(ours, colour_jitter=0.0, clips_per_read=4),
    'decoding': decoding, 'all_frames': all_frames, 'float_audio': ours,
}


def run_side(name: str, pattern: str, seconds: float) -> None:
    """Works as one side of `side_by_side`: clips per second."""
    batches, size = iter(SIDES[name](pattern)), make_config().train.batch_size

    def work() -> float:
        # What was prefetched while the other sides worked would count as made in no time.
        side_by_side.steps_per_second(lambda: next(batches), PREFETCHED_SECONDS)
        return size * side_by_side.steps_per_second(lambda: next(batches), seconds, least=1)

    side_by_side.serve(work)


def cost(pattern: str) -> dict[str, float]:
    """What `phases.input_phases` finds of ours."""
    with phases.counting() as totals:
        batches = iter(ours(pattern))
    return phases.input_phases(lambda: next(batches), totals, make_config().train.batch_size,
                               pattern)


def waiting(pattern: str, steps: int = 60) -> dict[str, float]:
    """Part of a training's time in which it waits for a batch."""
    import tensorflow as tf

    from avts_tf import config
    from avts_tf.data.pipeline import make_dataset
    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.optimizer import make_optimizer
    results = {}
    for preset, values in (('small', {}),
                           ('large', {'bfloat16': False, 'frames': 16, 'frame_size': 112,
                                      'batch_size': 4})):
        chosen = config.make_config(preset,
                                    **{'passes_per_epoch': 50, 'shuffle_records': 8, **values})
        model = build_two_tower(chosen)
        model.compile(optimizer=make_optimizer(chosen))
        step = tf.function(model.train_step)
        batches = iter(make_dataset(pattern, chosen))
        for _ in range(3):
            step(next(batches))
        waited, started = 0.0, time.perf_counter()
        for _ in range(steps if preset == 'small' else steps // 4):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            step(batch)['loss'].numpy()
        results[preset] = waited / (time.perf_counter() - started)
    return results


def memory(pattern: str) -> float:
    """Peak resident megabytes of this process as it takes `MEMORY_BATCHES` batches."""
    from avts_tf import config
    from avts_tf.data.pipeline import make_dataset
    chosen = config.make_config('tiny', shuffle_records=256)
    for _ in make_dataset(pattern, chosen).repeat().take(MEMORY_BATCHES):
        pass
    return side_by_side.peak_resident_bytes() / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seconds', type=float, default=5.0, help='length of a round of one side')
    parser.add_argument('--record_seconds', type=float, default=10.0, help='length of a record')
    parser.add_argument('--json', default='benchmarks/input_pipeline.json')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    parser.add_argument('--pattern', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side == 'memory':
        print(memory(arguments.pattern))
    elif arguments.side == 'cost':
        print(json.dumps(cost(arguments.pattern)))
    elif arguments.side:
        run_side(arguments.side, arguments.pattern, arguments.seconds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _measure(folder, arguments)


def _measure(folder: str, arguments: argparse.Namespace):
    pattern, jpeg_bytes = write_shards(folder, 'clips', RECORDS, arguments.record_seconds,
                                       (HEIGHT, WIDTH))
    floats, _ = write_shards(folder, 'floats', RECORDS, arguments.record_seconds, (HEIGHT, WIDTH),
                             'float')
    patterns = {name: floats if name == 'float_audio' else pattern for name in SIDES}
    commands = {name: [sys.executable, __file__, f'--side={name}', f'--pattern={patterns[name]}',
                       f'--seconds={arguments.seconds}']
                for name in SIDES}
    rates = side_by_side.take_turns(commands, arguments.rounds)
    ratios = {name: side_by_side.ratio(rates['ours'], rates[name]) for name in SIDES
              if name != 'ours'}
    by_decoding = {name: side_by_side.ratio(rates[name], rates['decoding'])
                   for name in ('ours', 'ours_4', 'plain', 'plain_4')}
    read = {count: bytes_per_clip(pattern, count) for count in (1, 4)}
    print(f'clips a second; records of {arguments.record_seconds:g} s, JPEGs of '
          f'{jpeg_bytes / 1024:.0f} KB')
    for name, values in rates.items():
        middle = side_by_side.summary(values)
        beside = f'   ours is {ratios[name]:.2f} times that' if name in ratios else ''
        print(f'  {name:<12} {middle["median"]:8.1f} [{middle["least"]:.1f}, '
              f'{middle["most"]:.1f}]{beside}')

    print('  by bare decoding: ' + ', '.join(
        f'{name} {value:.2f}' for name, value in by_decoding.items()))
    print('  read for a clip: ' + ', '.join(
        f'{value / 1e6:.2f} MB with {count} clip(s) per read' for count, value in read.items()))
    costs = side_by_side.ask([sys.executable, __file__, '--side=cost', f'--pattern={pattern}'])
    print(f'  a clip takes {costs["core_ms"]:.1f} ms of one core; of threads: reading '
          f'{costs["reading_ms"]:.1f} ms, parsing {costs["parsing_ms"]:.1f}, decoding '
          f'{costs["decoding_ms"]:.1f}')
    waited = waiting(pattern)
    for preset, part in waited.items():
        print(f'  waiting for input in a training, {preset}: {100 * part:.2f} % of the time')

    write_shards(folder, 'few', MEMORY_RECORDS, 1.0, (40, 40))
    os.mkdir(os.path.join(folder, 'many'))
    for name in os.listdir(folder):
        if name.startswith('few-'):
            for copy in range(MEMORY_COPIES):
                os.link(os.path.join(folder, name), os.path.join(folder, 'many', f'{name}.{copy}'))
    peaks = {}
    for name, where in (('few', os.path.join(folder, 'few-*')),
                        ('many', os.path.join(folder, 'many', '*'))):
        peaks[name] = side_by_side.ask([sys.executable, __file__, '--side=memory',
                                        f'--pattern={where}'])
    growth = peaks['many'] / peaks['few']
    print(f'  peak memory: {peaks["few"]:.0f} MB with {MEMORY_RECORDS} records, '
          f'{peaks["many"]:.0f} MB with '
          f'{MEMORY_RECORDS * MEMORY_COPIES} ({growth:.3f} times)')
    side_by_side.write_json(arguments.json, {
        'input_pipeline': {name: side_by_side.summary(values) for name, values in rates.items()},
        'ours_by': ratios, 'by_decoding': by_decoding, 'bytes_per_clip': read, 'clip': costs,
        'waiting_part': waited, 'peak_memory_mb': peaks})


if __name__ == '__main__':
    main()
