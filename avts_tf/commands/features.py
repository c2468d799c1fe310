"""Embed audio and video files with exported towers."""

import os
import sys
import types

from avts_tf.commands._flags import EXPORT_DIR, OUTPUT, Flag

PARAMETERS = False
FLAGS = {
    'Files': [
        Flag('input', None, 'File, folder, glob in quotes, or CSV of audio or video. May be '
             'repeated.', repeated=True),
        OUTPUT,
        EXPORT_DIR,
        Flag('tower', None, 'Folder of an exported tower or of one version of it. May be repeated. '
             'Default: EXPORT_DIR/audio_tower, and EXPORT_DIR/video_tower too where the input '
             'holds videos.', repeated=True),
        Flag('output_format', 'npz', 'npz, a file per input; or tfrecord, a set of record '
             'files per tower.', choices=('npz', 'tfrecord')),
        Flag('overwrite', False, 'Write existing output anew.'),
        Flag('skip_existing', False, 'Leave existing output and resume with the rest.'),
    ],
    'Windows': [
        Flag('hop_seconds', None, 'Step between windows, in seconds. Default: a window, so that '
             'they lie end to end.', type=float),
        Flag('centered', False, 'Pad by half a window at both ends, so that the first window is '
             'centred on 0 s.'),
        Flag('batch_size', 32, 'Windows that go through a tower at once.', minimum=1),
    ],
    'Running': [
        Flag('workers', 0, 'Decoding processes; 0 takes one per two processors.', minimum=0),
        Flag('file_timeout_seconds', 120.0, 'Longest wait for the next part of a file, in seconds.',
             minimum=0.1),
    ],
}


def run(flags: types.SimpleNamespace) -> None:
    """Embeds files; the exit status is 1 if no file could be embedded."""
    from avts_tf.errors import UserError
    from avts_tf.inference.embed_files import find_inputs
    from avts_tf.inference.extract import describe, extract_features
    from avts_tf.inference.saved_towers import load_tower
    from avts_tf.signals import stop_on_signals

    if not flags.output:
        raise UserError('output', None, 'give the folder to write features to.')
    sources = find_inputs(flags.input or [])
    paths = flags.tower or _default_towers(flags.export_dir, sources)
    with stop_on_signals(f'Finished files are in {flags.output}; the same command with '
                         '--skip_existing resumes with the rest.'):
        towers = [load_tower(path) for path in paths]
        summary = extract_features(
            sources, flags.output, towers, hop_seconds=flags.hop_seconds,
            centered=flags.centered, batch_size=flags.batch_size,
            output_format=flags.output_format, overwrite=flags.overwrite,
            skip_existing=flags.skip_existing, num_workers=flags.workers,
            timeout_seconds=flags.file_timeout_seconds)
    print(describe(summary, flags.output, towers))
    if not summary['written'] + summary['existing']:
        sys.exit(1)


def _default_towers(export_dir: str, sources: list) -> list[str]:
    """The audio tower; the video tower too where there are videos."""
    from avts_tf.inference.embed_files import is_video
    video_tower = os.path.join(export_dir, 'video_tower')
    has_videos = any(map(is_video, sources)) and os.path.isdir(video_tower)
    return [os.path.join(export_dir, 'audio_tower'), *([video_tower] if has_videos else [])]
