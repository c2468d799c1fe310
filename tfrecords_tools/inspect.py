"""Says what is in record files, and draws it: frames and waveform of a few records on one time axis.

    python -m tfrecords_tools.inspect 'data/world-*' --contact_sheet=sheet.png

A sound that does not lie under the picture that made it shows at a glance; `--contact_seconds=1` shows the first second alone,
frame by frame.
"""

import collections
import io
import math
import os
import sys
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from avts_tf import records
from avts_tf.config import UserError

FRAMES_PER_ROW = 10  # at most
ENVELOPE_BINS = 1200  # about one for each pixel of the sheet's width


class Facts(NamedTuple):
    """What is worth knowing of one record.

    Attributes:
        example_id: name of the video.
        frames: number of frames.
        frame_rate: frames per second.
        frame_size: (width, height) of the first frame in pixels, or None where it is no image.
        samples: number of audio samples; 0 without audio.
        sample_rate: Hz; 0 where the record states none.
        video_seconds: duration of the frames.
        audio_seconds: duration of the audio; 0 without audio.
        labels: names of the classes, or indices where they have no names.
    """

    example_id: str
    frames: int
    frame_rate: float
    frame_size: tuple | None
    samples: int
    sample_rate: float
    video_seconds: float
    audio_seconds: float
    labels: tuple


def find_shards(patterns):
    """Record files of several paths, globs or folders.

    Args:
        patterns: list of str.

    Returns:
        List of (path, number of records), sorted by path.

    Raises:
        UserError: nothing is given, a pattern matches no file, a file is cut short or holds no records.
    """
    if not patterns:
        raise UserError('no record files given; say which, such as: python -m tfrecords_tools.inspect "data/clips-*"')
    shards = set()
    for pattern in patterns:
        try:
            shards.update(records.find_shards(pattern))
        except UserError as error:
            # Here the files are plain arguments, and --records is the number of records to draw.
            raise UserError(str(error).removeprefix('--records=')) from error
    return sorted(shards)


def read_records(shards):
    """Yields every `records.Record`, as NumPy values, of a list of (path, number of records).

    Raises:
        UserError: a record is damaged or is no SequenceExample.
    """
    for path, count in shards:
        serialized = iter(tf.data.TFRecordDataset(path))
        for i in range(count):
            try:
                record = records.parse(next(serialized))
            except tf.errors.DataLossError as error:
                raise UserError(f'{path}: damaged after {i} whole records. Leave the file out or write it again.') from error
            except tf.errors.InvalidArgumentError as error:
                raise UserError(
                    f'{path}: record {i} (counted from 0) is not in the form that avts_tf/records.py describes: '
                    f'{error.message.splitlines()[0]}'
                ) from error
            yield records.Record(*(value.numpy() for value in record))


def facts_of(record):
    """The `Facts` of a record of NumPy values."""
    frames, rate = len(record.frames), float(record.frame_rate)
    if rate > 0:
        video_seconds = frames / rate
    elif frames > 1:  # a record that states no rate: the last frame lasts as long as the others
        video_seconds = float(record.frame_seconds[-1] + np.median(np.diff(record.frame_seconds)))
    else:
        video_seconds = 0.0
    image = _image(record.frames[0]) if frames else None
    labels = [name.decode(errors='replace') for name in record.label_string] or [str(i) for i in record.label_index]
    return Facts(
        example_id=record.example_id.decode(errors='replace'),
        frames=frames,
        frame_rate=rate,
        frame_size=image.size if image else None,
        samples=len(record.waveform),
        sample_rate=float(record.sample_rate),
        video_seconds=video_seconds,
        audio_seconds=len(record.waveform) / float(record.sample_rate) if record.sample_rate > 0 else 0.0,
        labels=tuple(labels),
    )


def _image(encoded):
    """The image of a frame, not decoded yet, or None."""
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        return None


def summarize(shards, facts):
    """What a set of records amounts to.

    Args:
        shards: list of (path, number of records).
        facts: list of `Facts`.

    Returns:
        A text of several lines.
    """
    seconds = np.array([f.video_seconds for f in facts])
    with_audio = [f for f in facts if f.samples]
    lines = [
        ('shards', f'{len(shards)}'),
        ('records', f'{len(facts)}'),
        ('duration', f'{_time(seconds.sum())} in all; shortest {seconds.min():.2f} s, median {np.median(seconds):.2f} s, '
                     f'longest {seconds.max():.2f} s'),
        ('frame rates', _counts(f'{f.frame_rate:.6g} fps' if f.frame_rate else 'not stated' for f in facts)),
        ('frame sizes', _counts('x'.join(map(str, f.frame_size)) if f.frame_size else 'no image' for f in facts)),
        ('sample rates', _counts(f'{f.sample_rate:.6g} Hz' if f.sample_rate else 'not stated' for f in with_audio)),
        ('audio', f'{len(with_audio)} with, {len(facts) - len(with_audio)} without'),
    ]
    timed = [f for f in with_audio if f.sample_rate]
    if timed:
        worst = max(timed, key=lambda f: abs(f.audio_seconds - f.video_seconds))
        difference_ms = 1000 * (worst.audio_seconds - worst.video_seconds)
        where = f', in {worst.example_id}' if abs(difference_ms) >= 0.05 else ''
        lines.append(('worst audio - video', f'{difference_ms:.1f} ms{where}'))
    repeated = [name for name, count in collections.Counter(f.example_id for f in facts).items() if count > 1]
    if repeated:
        lines.append(('repeated ids', f'{len(repeated)}, such as {repeated[0]!r}'))
    text = ''.join(f'{name + ":":<21}{value}\n' for name, value in lines)
    labels = collections.Counter(label for f in facts for label in f.labels)
    text += f'{"classes:":<21}{len(labels) or "no labels"}\n'
    width = max((len(label) for label in labels), default=0)
    return text + ''.join(f'    {label:<{width}}  {count}\n' for label, count in sorted(labels.items()))


def _counts(values):
    """'25 fps (60), 30 fps (4)', most frequent first; a single value without its count."""
    counts = collections.Counter(values).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ', '.join(f'{value} ({count})' for value, count in counts) or 'none'


def _time(seconds):
    minutes, rest = divmod(float(seconds), 60)
    if minutes < 60:
        return f'{minutes:.0f} min {rest:.1f} s' if minutes else f'{rest:.1f} s'
    return f'{minutes // 60:.0f} h {minutes % 60:.0f} min'


def draw_contact_sheet(sheet_records, path, seconds=0.0):
    """Draws records one under another: about ten frames at their times and the waveform under them on the same time axis.

    Args:
        sheet_records: list of `records.Record` of NumPy values.
        path: PNG file to write.
        seconds: time shown of each record from its beginning; 0 shows all of it.

    Raises:
        UserError: the file cannot be written.
    """
    width_inches, wave_inches, gap_inches = 12.0, 0.75, 0.75
    spans, strips = [], []
    for record in sheet_records:
        facts = facts_of(record)
        span = max(facts.video_seconds, facts.audio_seconds) or 1.0
        spans.append(min(span, seconds) if seconds else span)
        strips.append(0.05 + width_inches * _slot(record, spans[-1])[1] / spans[-1] * _aspect(record))
    figure = Figure(figsize=(width_inches + 0.6, sum(strips) + len(strips) * (wave_inches + gap_inches) + 0.1), dpi=110)
    FigureCanvasAgg(figure)
    total_width, total_height = figure.get_size_inches()
    left, width = 0.3 / total_width, width_inches / total_width

    bottom = total_height - 0.35
    for record, span, strip in zip(sheet_records, spans, strips, strict=True):
        bottom -= strip
        frame_axes = figure.add_axes((left, bottom / total_height, width, strip / total_height))
        bottom -= wave_inches
        wave_axes = figure.add_axes((left, bottom / total_height, width, wave_inches / total_height))
        bottom -= gap_inches
        facts = facts_of(record)
        title = f'{facts.example_id}    {", ".join(facts.labels)}'
        frame_axes.set_title(title, loc='left', fontsize=9, pad=5, color='#222222')
        _draw_frames(frame_axes, record, span)
        _draw_wave(wave_axes, record, facts, span)

    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    try:
        with tf.io.gfile.GFile(path, 'wb') as file:
            file.write(buffer.getvalue())
    except tf.errors.OpError as error:
        raise UserError(f'--contact_sheet={path}: cannot be written: {error.message}') from error


def _aspect(record):
    """Height of a frame over its width."""
    image = _image(record.frames[0]) if len(record.frames) else None
    return image.height / image.width if image else 0.75


def _slot(record, span):
    """(every how many frames one is drawn, seconds on the axis that it takes), for at most `FRAMES_PER_ROW` in the span."""
    shown = int((record.frame_seconds < span).sum())
    step = max(1, math.ceil(shown / FRAMES_PER_ROW))
    return step, min(span / 4, step * span / max(1, shown))


def _draw_frames(axes, record, span):
    """Each frame stands with its middle over its time, which a tick marks."""
    step, slot = _slot(record, span)
    # Half a step in, so that the first picture is not cut by the edge, unless the span ends before.
    first = (step + 1) // 2 if (record.frame_seconds[(step + 1) // 2:] < span).any() else 0
    for i in range(first, len(record.frames), step):
        middle = record.frame_seconds[i]
        image = _image(record.frames[i])
        if middle >= span or image is None:
            continue
        extent = (middle - 0.48 * slot, middle + 0.48 * slot, 0, 1)
        axes.imshow(np.asarray(image.convert('RGB')), extent=extent, aspect='auto', interpolation='nearest')
        axes.plot([middle, middle], [-0.08, 0], color='#444444', linewidth=1)
    axes.set_xlim(0, span)
    axes.set_ylim(-0.08, 1)
    axes.axis('off')


def _draw_wave(axes, record, facts, span):
    """The waveform's highest and lowest value in each short stretch of time."""
    if facts.samples and facts.sample_rate:
        samples = record.waveform[:int(span * facts.sample_rate)]
        step = max(1, len(samples) // ENVELOPE_BINS)
        starts = np.arange(0, len(samples), step)
        high, low = (pick.reduceat(samples, starts) / records.PCM_SCALE for pick in (np.maximum, np.minimum))
        axes.fill_between(starts / facts.sample_rate, low, high, color='#2a6f97', linewidth=0.5)
        reach = max(0.05, 1.05 * float(np.abs(samples / records.PCM_SCALE).max()))
        axes.set_ylim(-reach, reach)
    else:
        reason = 'audio without a sample rate' if facts.samples else 'no audio'
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha='center', va='center', fontsize=8, color='#888888')
    axes.set_xlim(0, span)
    axes.set_yticks([])
    axes.tick_params(labelsize=7, colors='#444444', length=3)
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:g} s')
    for side in ('top', 'left', 'right'):
        axes.spines[side].set_visible(False)


def inspect(patterns, contact_sheet=None, sheet_records=6, sheet_seconds=0.0):
    """Reads records and says what is in them.

    Args:
        patterns: list of paths, globs or folders.
        contact_sheet: PNG file to draw, or None.
        sheet_records: number of records on the sheet, spread over the set.
        sheet_seconds: time shown of each record from its beginning; 0 shows all of it.

    Returns:
        A text of several lines.

    Raises:
        UserError: a file cannot be used or the sheet cannot be written.
    """
    if sheet_records < 1:
        raise UserError(f'--records={sheet_records}: must be at least 1.')
    if sheet_seconds < 0:
        raise UserError(f'--contact_seconds={sheet_seconds}: must be at least 0.')
    folder = os.path.dirname(contact_sheet or '')
    if folder and not tf.io.gfile.isdir(folder):
        raise UserError(f'--contact_sheet={contact_sheet}: there is no folder {folder!r}; make it or name another.')
    shards = find_shards(patterns)
    total = sum(count for _, count in shards)
    # Spread over the set, because neighbours are often of one class.
    chosen = set(np.linspace(0, total - 1, min(sheet_records, total)).round().astype(int)) if contact_sheet else ()
    facts, picked = [], []
    for i, record in enumerate(read_records(shards)):
        facts.append(facts_of(record))
        if i in chosen:
            picked.append(record)
    if contact_sheet:
        draw_contact_sheet(picked, contact_sheet, sheet_seconds)
    return summarize(shards, facts)


def _define_flags():
    # Here and not at import, so that importing this file leaves other programs' flags alone.
    flags.DEFINE_string('contact_sheet', None, 'PNG file to draw: frames and waveform of a few records on one time axis')
    flags.DEFINE_integer('records', 6, 'number of records on the contact sheet')
    flags.DEFINE_float('contact_seconds', 0.0, 'time shown of each record from its beginning, in seconds; 0 shows all')


def main(argv):
    """Runs the command line; see `python -m tfrecords_tools.inspect --help`."""
    values = flags.FLAGS
    try:
        print(inspect(argv[1:], values.contact_sheet, values.records, values.contact_seconds), end='')
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if values.contact_sheet:
        print(f'contact sheet: {values.contact_sheet}')


if __name__ == '__main__':
    _define_flags()
    app.run(main)
