"""Writes one record back as a video, so that a person can hear and see that it is in sync."""

import fractions

import av
import numpy as np

from avts_tf.data import records
from avts_tf.errors import UserError
from tfrecords_tools.facts import Facts, facts_of, find_shards, read_image, read_records

_TICK_SECONDS = fractions.Fraction(1, 90000)
# Few players know other rates than these.
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200,
              96000)


def play(patterns: list[str], example_id: str, output: str | None) -> None:
    """Writes a record back as a video, in sync to the sample.

    It is H.264, or MPEG-4 where there is no encoder for that, with AAC.

    Args:
        patterns: paths, globs or folders.
        example_id: name of the record.
        output: video file to write, such as 'clip.mp4'.

    Raises:
        UserError: there is no such record, it cannot be shown, or the file cannot be written.
    """
    if not output:
        raise UserError('play', example_id, 'say with `output`=clip.mp4 where to write it.')
    ids = []
    for record in read_records(find_shards(patterns)):
        ids.append(record.example_id.decode(errors='replace'))
        if ids[-1] == example_id:
            break
    else:
        raise UserError('play', example_id, f'no record has this id; there are {len(ids)}, such as '
                        f'{", ".join(ids[:5])}.')
    facts = facts_of(record)
    if not facts.frames and not facts.samples:
        raise UserError('play', example_id, 'neither video nor audio is in this record.')
    try:
        with av.open(output, 'w') as container:
            audio = _add_audio(container, facts) if facts.samples and facts.sample_rate else None
            if facts.frames:
                _play_frames(container, record, facts)
            if audio:
                _play_audio(container, audio, record, facts)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError('output', output, f'cannot be written: {reason}') from error


def _add_audio(container: av.container.OutputContainer, facts: Facts):
    return container.add_stream('aac',
                                rate=min(_AAC_RATES,
                                         key=lambda rate: abs(rate - facts.sample_rate)),
                                layout='mono')


def _play_frames(container: av.container.OutputContainer, record: records.Record, facts: Facts):
    rate = fractions.Fraction(facts.frame_rate or facts.frames
                              / facts.video_seconds).limit_denominator(1001)
    encoder = 'libx264' if 'libx264' in av.codecs_available else 'mpeg4'
    options = {'crf': '18'} if encoder == 'libx264' else {'qscale': '3'}
    stream = container.add_stream(encoder, rate=rate, options=options)
    # Two colour samples lie side by side in these formats: an odd frame gets its last row or column
    # twice.
    if facts.frame_size is None:
        raise ValueError('frame 0 is no image')
    stream.width, stream.height = (side + side % 2 for side in facts.frame_size)
    stream.pix_fmt, stream.time_base = 'yuv420p', _TICK_SECONDS
    # Where no time is stated, on the grid of the frame rate.
    times = np.where(np.isfinite(record.frame_seconds), record.frame_seconds,
                     np.arange(facts.frames) / float(rate))
    for i, encoded in enumerate(record.frames):
        image = read_image(encoded)
        if image is None:
            raise ValueError(f'frame {i} is no image')
        pixels = np.asarray(image.convert('RGB').resize(facts.frame_size))
        pixels = np.pad(pixels, ((0, stream.height - len(pixels)),
                                 (0, stream.width - pixels.shape[1]), (0, 0)), 'edge')
        frame = av.VideoFrame.from_ndarray(pixels, 'rgb24')
        frame.pts, frame.time_base = round(times[i] / _TICK_SECONDS), _TICK_SECONDS
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _play_audio(
    container: av.container.OutputContainer, stream: av.AudioStream, record: records.Record,
    facts: Facts,
):
    frame = av.AudioFrame.from_ndarray(record.waveform[None], 's16', 'mono')
    frame.sample_rate, frame.pts = round(facts.sample_rate), 0
    frame.time_base = fractions.Fraction(1, frame.sample_rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
