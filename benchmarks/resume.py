"""What it costs to be able to go on: a checkpoint, the way back to a step within an epoch, operations that are deterministic.

    python -m benchmarks.resume --preset=tiny --folder=/tmp/resume_benchmark

Prints a table and writes RESUME.json into the folder. The two sides of the last ratio run in turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import avts_tf  # noqa: F401  first, because it sets how TensorFlow runs

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

ROUNDS = 7


def make_parts(preset, folder):
    """(config, glob of records); the records are written once."""
    from avts_tf.config import make_config
    from avts_tf.data.synthetic import write_world

    config, prefix = make_config(preset), os.path.join(folder, f'{preset}-world')
    if not os.path.exists(prefix + '.json'):
        write_world(prefix, videos=256, size=config.clip.frame_size + 8, fps=config.clip.fps, shards=4)
    return config, prefix + '-*-of-*'


def step_worker(preset, folder, deterministic):
    """Answers each line of standard input with the seconds of a training step on a fixed batch, the median of five."""
    import tensorflow as tf

    if deterministic:
        tf.config.experimental.enable_op_determinism()
    from avts_tf.data.pipeline import make_dataset
    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.optimizer import make_optimizer

    config, pattern = make_parts(preset, folder)
    model = build_two_tower(config)
    model.compile(optimizer=make_optimizer(config))
    batch = next(iter(make_dataset(pattern, config)))
    step = tf.function(model.train_step)

    def seconds():
        start = time.perf_counter()
        step(batch)['loss'].numpy()
        return time.perf_counter() - start

    seconds()
    print('ready', flush=True)
    for _ in sys.stdin:
        print(statistics.median(seconds() for _ in range(5)), flush=True)


def measure_steps(preset, folder):
    """Median seconds of a step: (as it is, with deterministic operations)."""
    workers = [subprocess.Popen([sys.executable, '-m', 'benchmarks.resume', f'--preset={preset}', f'--folder={folder}',
                                 f'--worker={kind}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for kind in (0, 1)]
    for worker in workers:
        worker.stdout.readline()
    seconds = [[], []]
    for _ in range(ROUNDS):
        for worker, values in zip(workers, seconds, strict=True):
            worker.stdin.write('go\n')
            worker.stdin.flush()
            values.append(float(worker.stdout.readline()))
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    return [statistics.median(values) for values in seconds]


def measure_checkpoint(preset, folder):
    """Median seconds of (writing, reading) a checkpoint, and its bytes."""
    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.optimizer import make_optimizer
    from avts_tf.training.run_folder import RunFolder

    config, _ = make_parts(preset, folder)
    model = build_two_tower(config)
    model.compile(optimizer=make_optimizer(config))
    model.optimizer.build(model.trainable_variables)
    run, writes, reads = RunFolder(os.path.join(folder, f'{preset}-run'), config), [], []
    for number in range(ROUNDS):
        start = time.perf_counter()
        run.save(model, 0, number)
        middle = time.perf_counter()
        path = run.read_checkpoint().path
        writes.append(middle - start)
        reads.append(time.perf_counter() - middle)
    return statistics.median(writes), statistics.median(reads), os.path.getsize(path)


def measure_skip(preset, folder):
    """Median seconds per clip of (going through an epoch, going back to its last batch)."""
    from avts_tf.data.pipeline import make_dataset
    from avts_tf.data.state import PipelineState

    config, pattern = make_parts(preset, folder)
    state = PipelineState()
    dataset = make_dataset(pattern, config, state=state)
    ends = [int(batch['end'][0]) for batch in dataset]
    whole, skipped = [], []
    for _ in range(ROUNDS):
        for start, values in ((0, whole), (ends[-2], skipped)):
            state.start.assign(start)
            begin = time.perf_counter()
            count = sum(1 for _ in dataset)
            values.append(time.perf_counter() - begin)
            assert count == (len(ends) if start == 0 else 1)
    clips = len(ends) * config.train.batch_size
    return statistics.median(whole) / clips, statistics.median(skipped) / clips


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--preset', default='tiny')
    parser.add_argument('--folder', default='/tmp/resume_benchmark')
    parser.add_argument('--worker', type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    if arguments.worker is not None:
        step_worker(arguments.preset, arguments.folder, arguments.worker)
        return
    make_parts(arguments.preset, arguments.folder)
    write, read, size = measure_checkpoint(arguments.preset, arguments.folder)
    clip, skip = measure_skip(arguments.preset, arguments.folder)
    plain, deterministic = measure_steps(arguments.preset, arguments.folder)
    results = {
        'preset': arguments.preset, 'checkpoint_bytes': size, 'checkpoint_write_seconds': write, 'checkpoint_read_seconds': read,
        'pipeline_seconds_per_clip': clip, 'skip_seconds_per_clip': skip, 'step_seconds': plain,
        'deterministic_step_seconds': deterministic, 'deterministic_ratio': deterministic / plain,
    }
    print(f'checkpoint of {size / 1e6:.1f} MB: {1e3 * write:.0f} ms to write, {1e3 * read:.0f} ms to read; '
          f'a step {1e3 * plain:.0f} ms')
    print(f'a clip of an epoch: {1e3 * clip:.2f} ms through the pipeline, {1e3 * skip:.3f} ms to skip (ratio {skip / clip:.3f})')
    print(f'a step with deterministic operations: {1e3 * deterministic:.0f} ms (ratio {deterministic / plain:.3f})')
    with open(os.path.join(arguments.folder, 'RESUME.json'), 'w') as file:
        json.dump(results, file, indent=2)


if __name__ == '__main__':
    main()
