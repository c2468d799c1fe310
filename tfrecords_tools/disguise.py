"""Copies videos of people as other people might look and sound, in sync as before.

    python -m tfrecords_tools.disguise --input=faces/ --output=disguised/

Towers that were trained on few people know how these look and sound. Where no others are at hand to
measure that on, disguised ones are the next best: filters of ffmpeg, which the training's own
augmentation has nothing to do with, change the size, place, proportions and colours of the picture,
and the pitch and the timbre of the voice. The files get the `DISGUISES` in turn. A copy begins at
the file's own start and keeps its frame rate, on exact steps.
"""

import fractions
import itertools
import os
from collections.abc import Iterator

import av
from absl import flags

from avts_tf import files, program, progress
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
        media.Unsuitable: the file has no video or no audio, or cannot be decoded.
        av.FFmpegError, OSError: its copy cannot be written.
    """
    of_video, of_audio = DISGUISES[name]
    rate = _rate(path)
    pictures = _filtered(_pictures(path, rate), [
        *of_video, ('scale', '2*ceil(iw/2):2*ceil(ih/2)'), ('format', 'yuv420p')])
    sounds = _filtered(_sounds(path), [*of_audio, ('aformat', 'sample_fmts=fltp')])
    # Before any work: a file without audio is found out here.
    first, first_sound = next(pictures, None), next(sounds)
    if first is None:
        raise media.Unsuitable('too_short', 'there is no whole frame')
    with files.replacing(output_path) as aside, av.open(aside, 'w', format='mp4') as target:
        video = target.add_stream('libx264', rate, {'crf': '12'})
        video.width, video.height, video.pix_fmt = first.width, first.height, 'yuv420p'
        audio = target.add_stream('aac', SAMPLE_RATE, layout='mono')
        for stream, begun, frames in ((video, first, pictures), (audio, first_sound, sounds)):
            for frame in itertools.chain([begun], frames):
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))


def _rate(path: str) -> fractions.Fraction:
    """Frames per second of a file; 25 where it names none."""
    with media.open_file(path) as source:
        rates = [stream.average_rate for stream in source.streams.video]
    return next(filter(None, rates), fractions.Fraction(25))


def _pictures(path: str, rate: fractions.Fraction) -> Iterator[av.VideoFrame]:
    """The frames of a file from its start on, upright and on exact steps."""
    for block in media.video_blocks(path, float(rate), short_side=0):
        for picture in block:
            frame = av.VideoFrame.from_ndarray(picture, 'rgb24')
            frame.time_base = 1 / rate
            yield frame


def _sounds(path: str) -> Iterator[av.AudioFrame]:
    """The audio of a file from its start on, in one channel."""
    for samples in media.audio_blocks(path, SAMPLE_RATE):
        frame = av.AudioFrame.from_ndarray(samples[None], 's16', 'mono')
        frame.sample_rate, frame.time_base = SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
        yield frame


def _filtered(
    frames: Iterator[av.frame.Frame], filters: list[tuple[str, str]],
) -> Iterator[av.frame.Frame]:
    """Frames of a video or of audio through a chain of filters; they are numbered on the way."""
    graph, time = av.filter.Graph(), 0
    for frame in frames:
        is_video = isinstance(frame, av.VideoFrame)
        if not time:
            source = (graph.add_buffer(width=frame.width, height=frame.height,
                                       format=frame.format, time_base=frame.time_base)
                      if is_video else graph.add_abuffer(
                          sample_rate=frame.sample_rate, format=frame.format,
                          layout=frame.layout, time_base=frame.time_base))
            nodes = [source, *(graph.add(name, arguments) for name, arguments in filters),
                     graph.add('buffersink' if is_video else 'abuffersink')]
            graph.link_nodes(*nodes).configure()
        frame.pts = time
        time += 1 if is_video else frame.samples
        graph.push(frame)
        yield from _pulled(graph)
    if time:
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
    program.run(main, tensorflow=False)
