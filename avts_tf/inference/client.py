"""Embeds audio and video files with towers that TensorFlow Serving serves, over gRPC.

    python -m avts_tf.inference.client --server=localhost:8500 --input=sounds/ --output=features/
    python -m avts_tf.inference.client --tower=video --input=clip.mp4

Files are decoded and cut into windows here, and the server embeds the windows. The features are
those of --mode=features; without --output they are printed, one line of JSON per file.

The client asks the server how long the tower's windows are, and at what sample rate. It cannot ask
for the frame rate of a video tower: give --fps, or --metadata with the metadata.json of the tower's
folder, which answers everything.
"""

import contextlib
import json
import sys

from absl import app, flags

from avts_tf import program
from avts_tf.config import ClipConfig
from avts_tf.data import datasets, media
from avts_tf.inference.embed import BATCH_SIZE
from avts_tf.inference.embed_files import TIMEOUT_SECONDS, embed_sources, find_inputs
from avts_tf.inference.extract import FORMATS, describe, extract_features
from avts_tf.inference.remote_towers import (
    MAX_REQUEST_BYTES,
    GrpcServer,
    RemoteAudioTower,
    RemoteVideoTower,
    connect,
)
from avts_tf.signals import stop_on_signals


def print_features(
    tower: RemoteAudioTower | RemoteVideoTower, sources: list[datasets.Source],
    hop_seconds: float | None, centered: bool, batch_size: int, num_workers: int,
    timeout_seconds: float,
) -> int:
    """Prints a line of JSON per file: its path and its features, or why there are none.

    Args:
        tower, sources, hop_seconds, centered, batch_size, num_workers, timeout_seconds: as in
            `embed_files.embed_sources`.

    Returns:
        Number of files that were embedded.
    """
    count = 0
    results = embed_sources(
        tower, sources, hop_seconds, centered, batch_size, num_workers, timeout_seconds)
    for source, (_, result) in zip(sources, results, strict=True):
        if isinstance(result, media.Unsuitable):
            values = {'reason': result.reason, 'detail': result.detail}
        else:
            values = {name: value.tolist() for name, value in result._asdict().items()}
            count += 1
        print(json.dumps({'path': source.data_path, **values}), flush=True)
    return count


def _define_flags():
    # Here and not at import, so that importing this file leaves other programs' flags alone.
    flags.DEFINE_string('server', 'localhost:8500', 'host:port of the gRPC interface')
    flags.DEFINE_multi_string(
        'input', None, 'file, folder, glob in quotes, or CSV of audio or video; may be repeated')
    flags.DEFINE_string('output', '', 'folder to write features to; empty prints them')
    flags.DEFINE_enum(
        'output_format', 'npz', FORMATS,
        'npz, a file per input; or tfrecord, a set of records')
    flags.DEFINE_enum('tower', 'audio', ['audio', 'video'], 'which tower embeds the files')
    flags.DEFINE_string(
        'model', '', 'name of the model on the server; empty is audio_tower or video_tower')
    flags.DEFINE_integer(
        'version', None, 'version of the model; by default the newest', lower_bound=0)
    flags.DEFINE_string(
        'metadata', '', "the tower's assets/metadata.json, which answers what the server would be "
        'asked')
    flags.DEFINE_float(
        'fps', None, 'video tower: frames per second of its training; by default '
        f'{ClipConfig().fps:g}', lower_bound=0.1)
    flags.DEFINE_boolean(
        'jpeg', False,
        'video tower: send frames as JPEG, a tenth of the length, not exactly the same values')
    flags.DEFINE_float(
        'hop_seconds', None,
        'step between windows, in seconds; by default a window, so that they lie end to end')
    flags.DEFINE_boolean(
        'centered', False,
        'pad by half a window at both ends, so that the first window is centred on 0 s')
    flags.DEFINE_integer(
        'batch_size', BATCH_SIZE, 'windows in a request, where they fit', lower_bound=1)
    flags.DEFINE_integer(
        'max_request_bytes', MAX_REQUEST_BYTES, 'longest request; what is longer is split',
        lower_bound=1024)
    flags.DEFINE_float(
        'timeout_seconds', 60.0, 'deadline of a request, in seconds', lower_bound=0.01)
    flags.DEFINE_integer(
        'retries', 5, 'further tries where the server is not there', lower_bound=0)
    flags.DEFINE_boolean('overwrite', False, 'write existing output anew')
    flags.DEFINE_boolean('skip_existing', False, 'leave existing output and resume with the rest')
    flags.DEFINE_integer(
        'workers', 0, 'decoding processes; 0 takes one per two processors', lower_bound=0)
    flags.DEFINE_float(
        'file_timeout_seconds', TIMEOUT_SECONDS,
        'longest wait for the next part of a file, in seconds', lower_bound=0.1)
    flags.mark_flag_as_required('input')


def query(values: flags.FlagValues) -> int:
    """Embeds the files that the flags name.

    Returns:
        Number of files whose features there are now.
    """
    program.import_tensorflow()  # which the messages of gRPC are part of
    server = GrpcServer(values.server, values.timeout_seconds, values.retries,
                        values.max_request_bytes)
    with contextlib.closing(server):
        sources = find_inputs(values.input)
        tower = connect(server, values.tower, model=values.model, version=values.version,
                        metadata=values.metadata, fps=values.fps, jpeg=values.jpeg)
        if not values.output:
            return print_features(
                tower, sources, values.hop_seconds, values.centered, values.batch_size,
                values.workers, values.file_timeout_seconds)
        summary = extract_features(
            sources, values.output, [tower], hop_seconds=values.hop_seconds,
            centered=values.centered, batch_size=values.batch_size,
            output_format=values.output_format, overwrite=values.overwrite,
            skip_existing=values.skip_existing, num_workers=values.workers,
            timeout_seconds=values.file_timeout_seconds)
        print(describe(summary, values.output, [tower]))
        return summary['written'] + summary['existing']


def main(argv: list[str]) -> None:
    """Runs the command line; see `python -m avts_tf.inference.client --help`."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; every value has a flag.')
    with stop_on_signals('Finished files stay; the same command with --skip_existing resumes with '
                         'the rest.'):
        count = query(flags.FLAGS)
    sys.exit(0 if count else 1)


if __name__ == '__main__':
    _define_flags()
    program.run(main, tensorflow=False)
