"""Copies videos of people as other people might look and sound, in sync as before.

    python -m tfrecords_tools.disguise --input=faces/ --output=disguised/

Towers that were trained on few people know how these look and sound. Where no others are at hand to
measure that on, disguised ones are the next best: filters of ffmpeg, which the training's own
augmentation has nothing to do with, change the size, place, proportions and colours of the picture,
and the pitch and the timbre of the voice. The files get the `DISGUISES` in turn.
"""

import itertools
import os
from collections.abc import Iterator

import av
from absl import flags

from avts_tf import program, progress
from avts_tf.data import media
from avts_tf.data.datasets import find_sources
from avts_tf.errors import UserError

SAMPLE_RATE = 44100
STRETCH_SAMPLES = 2048  # window of ffmpeg's atempo, by a part of which its audio is early


def _voice(pitch: float, *others: tuple[str, str]) -> list[tuple[str, str]]:
    """Filters that multiply the pitch and the formants of a voice, and others."""
    tempo = 1 / pitch
    early_ms = round(1000 * STRETCH_SAMPLES / SAMPLE_RATE * max(0.0, 1 - tempo))
    return [('aresample', str(SAMPLE_RATE)), ('asetrate', str(round(SAMPLE_RATE * pitch))),
            ('aresample', str(SAMPLE_RATE)), ('atempo', f'{tempo:.6f}'),
            ('adelay', f'{early_ms}:all=1'), ('asetpts', 'N'), *others]


# From a name to the filters of the picture and those of the audio, each a name and its arguments.
DISGUISES = {
    'close': ([('crop', 'iw*0.6:ih*0.6:iw*0.2:ih*0.36'), ('hue', 'h=25:s=0.7')], _voice(1.3)),
    'far': ([('scale', '2*trunc(iw*0.35):2*trunc(ih*0.35)'), ('pad', 'iw*10/7:ih*10/7:-1:-1:gray'),
             ('hue', 's=0')], _voice(0.85, ('lowpass', 'f=3400'))),
    'wide': ([('scale', '2*trunc(iw*0.7):ih'), ('hue', 'h=-25:s=1.6'),
              ('curves', 'preset=darker')], _voice(1.15, ('highpass', 'f=400'))),
    'turned': ([('hflip', ''), ('rotate', '0.15:c=gray'), ('curves', 'preset=lighter')],
               _voice(1.5)),
}


def disguise(path: str, output_path: str, name: str) -> None:
    """Writes a copy of a video with a disguise.

    Args:
        path: video file with audio.
        output_path: MP4 file to write.
        name: a key of `DISGUISES`.

    Raises:
        media.Unsuitable: the file has no video or no audio, or is a list of other files.
        av.FFmpegError, OSError: it cannot be read, or its copy not written.
    """
    of_video, of_audio = DISGUISES[name]
    with media.open_file(path) as source:
        for kind in ('video', 'audio'):
            if not getattr(source.streams, kind):
                raise media.Unsuitable(f'no {kind}', 'it needs both')
        pictures = list(_filtered(source, 'video', of_video))
        source.seek(0)
        sounds = list(_filtered(source, 'audio', of_audio))
        rate = source.streams.video[0].average_rate
    with av.open(output_path, 'w') as target:
        video = target.add_stream('libx264', rate, {'crf': '12'})
        video.width, video.height = pictures[0].width, pictures[0].height
        video.pix_fmt = 'yuv420p'
        audio = target.add_stream('aac', SAMPLE_RATE)
        for stream, frames in ((video, pictures), (audio, sounds)):
            for frame in (*frames, None):
                target.mux(stream.encode(frame))


def _filtered(
    source: av.container.InputContainer, kind: str, filters: list[tuple[str, str]],
) -> Iterator[av.frame.Frame]:
    """The frames of a container's first stream of a kind, through a chain of filters."""
    graph = av.filter.Graph()
    if kind == 'video':
        stream = source.streams.video[0]
        nodes = [graph.add_buffer(template=stream)]
        filters = [*filters, ('scale', '2*ceil(iw/2):2*ceil(ih/2)'), ('format', 'yuv420p')]
    else:
        stream = source.streams.audio[0]
        nodes = [graph.add_abuffer(template=stream)]
        filters = [*filters, ('aformat', 'sample_fmts=fltp:channel_layouts=mono')]
    nodes += [graph.add(name, arguments) for name, arguments in filters]
    nodes.append(graph.add('buffersink' if kind == 'video' else 'abuffersink'))
    graph.link_nodes(*nodes).configure()
    for frame in source.decode(stream):
        graph.push(frame)
        yield from _pulled(graph)
    graph.push(None)
    yield from _pulled(graph)


def _pulled(graph: av.filter.Graph) -> Iterator[av.frame.Frame]:
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def disguise_all(paths: list[str], output: str) -> int:
    """Writes copies of videos, with the `DISGUISES` in turn.

    Args:
        paths: video files.
        output: folder of what is written, with a folder for each disguise.

    Returns:
        The number of videos written, each under its own name; a second one of the same name and
        disguise gets a number. The others are named on the terminal.
    """
    for name in DISGUISES:
        os.makedirs(os.path.join(output, name), exist_ok=True)
    taken: set[str] = set()
    names = itertools.cycle(DISGUISES)
    for path, name in zip(progress.bar(paths, 'disguised', unit='file'), names, strict=False):
        stem = os.path.splitext(os.path.basename(path))[0]
        # Files of several folders may be called alike.
        numbered = itertools.chain([stem], (f'{stem}-{number}' for number in itertools.count(2)))
        target = next(found for each in numbered
                      if (found := os.path.join(output, name, f'{each}.mp4')) not in taken)
        try:
            disguise(path, target, name)
            taken.add(target)
        except (media.Unsuitable, av.FFmpegError, OSError) as error:
            print(f'{path}: left out: {error}')
    return len(taken)


def _define_flags() -> None:
    flags.DEFINE_multi_string('input', None, 'File, folder, glob in quotes, or CSV of videos.')
    flags.DEFINE_string('output', None, 'Folder of what is written, with a folder for each '
                        'disguise.')
    flags.mark_flags_as_required(['input', 'output'])


def main(argv: list[str]) -> None:
    """Runs the command line; see `python -m tfrecords_tools.disguise --help`."""
    if len(argv) > 1:
        raise UserError(None, argv[1], 'is no flag; flags look like --name=value.')
    paths = [source.path for given in flags.FLAGS.input for source in find_sources(given)]
    output = flags.FLAGS.output
    written = disguise_all(paths, output)
    print(f'{written} written into {output}/, {len(paths) - written} left out')


if __name__ == '__main__':
    _define_flags()
    program.run(main)
