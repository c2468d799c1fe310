"""What it costs to be able to resume.

    python benchmarks/resume.py --preset=tiny

Times a checkpoint, the way back to a step within an epoch, and operations that are deterministic.
"""

import argparse
import os
import statistics
import sys
import tempfile

import side_by_side

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def make_parts(preset: str, folder: str) -> tuple:
    """(config, glob of records); the records are written once."""
    from avts_tf.config import make_config
    from avts_tf.data.synthetic import write_world

    config, output = make_config(preset), os.path.join(folder, 'world')
    if not os.path.exists(f'{output}.json'):
        write_world(output, videos=256, size=config.clip.frame_size + 8, fps=config.clip.fps,
                    shards=4)
    return config, f'{output}-*-of-*'


def make_model(config: object) -> object:
    """A model that is ready to be trained."""
    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.optimizer import make_optimizer

    model = build_two_tower(config)
    model.compile(optimizer=make_optimizer(config))
    model.optimizer.build(model.trainable_variables)
    return model


def run_side(preset: str, folder: str, side: str) -> None:
    """Works as one side: steps a second on a fixed batch."""
    import tensorflow as tf

    from avts_tf.data.pipeline import make_dataset

    if side == 'deterministic':
        tf.config.experimental.enable_op_determinism()
    config, records = make_parts(preset, folder)
    step = tf.function(make_model(config).train_step)
    batch = next(iter(make_dataset(records, config)))
    side_by_side.serve(
        lambda: side_by_side.steps_per_second(lambda: step(batch)['loss'].numpy(), 2.0))


def time_checkpoint(preset: str, folder: str, rounds: int) -> dict[str, float]:
    """Median seconds of writing and of reading a checkpoint, and its bytes."""
    from avts_tf.training.run_folder import RunFolder

    config, _ = make_parts(preset, folder)
    model, run = make_model(config), RunFolder(os.path.join(folder, 'run'), config)
    numbers = iter(range(rounds))
    seconds = side_by_side.time_in_turns({
        'checkpoint_write_seconds': lambda: run.save(model, 0, next(numbers)),
        'checkpoint_read_seconds': run.read_checkpoint,
    }, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {'checkpoint_bytes': os.path.getsize(run.read_checkpoint().path), **medians}


def time_skip(preset: str, folder: str, rounds: int) -> dict[str, float]:
    """Median seconds per clip of going through an epoch, and of going back to its last batch."""
    from avts_tf.data.pipeline import make_dataset
    from avts_tf.data.state import PipelineState

    config, records = make_parts(preset, folder)
    state = PipelineState()
    dataset = make_dataset(records, config, state=state)
    ends = [int(batch['end'][0]) for batch in dataset]

    def read_from(start: int) -> None:
        state.start.assign(start)
        for _ in dataset:
            pass

    seconds = side_by_side.time_in_turns({
        'pipeline_seconds_per_clip': lambda: read_from(0),
        'skip_seconds_per_clip': lambda: read_from(ends[-2]),
    }, rounds)
    clips = len(ends) * config.train.batch_size
    return {name: statistics.median(values) / clips for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--preset', default='tiny')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--json', default='benchmarks/resume.json')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    parser.add_argument('--folder', help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.side:
        run_side(values.preset, values.folder, values.side)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_parts(values.preset, folder)
        results = {**time_checkpoint(values.preset, folder, values.rounds),
                   **time_skip(values.preset, folder, values.rounds)}
        sides = {name: [sys.executable, __file__, f'--side={name}', f'--folder={folder}',
                        f'--preset={values.preset}'] for name in ('plain', 'deterministic')}
        rates = side_by_side.take_turns(sides, values.rounds)
    clip, skip = results['pipeline_seconds_per_clip'], results['skip_seconds_per_clip']
    plain = 1 / statistics.median(rates['plain'])
    results |= {'step_seconds': plain,
                'deterministic_ratio': side_by_side.ratio(rates['plain'], rates['deterministic'])}
    print(f'checkpoint of {results["checkpoint_bytes"] / 1e6:.1f} MB: '
          f'{1e3 * results["checkpoint_write_seconds"]:.0f} ms to write, '
          f'{1e3 * results["checkpoint_read_seconds"]:.0f} ms to read; a step {1e3 * plain:.0f} ms')
    print(f'a clip of an epoch: {1e3 * clip:.2f} ms through the pipeline, {1e3 * skip:.3f} ms to '
          f'skip (ratio {skip / clip:.3f})')
    print(f'a step with deterministic operations takes {results["deterministic_ratio"]:.3f} times '
          'as long')
    side_by_side.write_json(values.json, {'preset': values.preset, **results})


if __name__ == '__main__':
    main()
