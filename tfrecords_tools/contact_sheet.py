"""The contact sheet: frames and waveform of a few records on one time axis."""

import math
from typing import TYPE_CHECKING

import numpy as np

from avts_tf import files
from avts_tf.data import records
from avts_tf.errors import UserError
from tfrecords_tools.facts import Facts, facts_of, read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAMES_PER_ROW = 10  # at most
ENVELOPE_BINS = 1200  # about one for each pixel of the sheet's width


def draw_contact_sheet(
    sheet_records: list[records.Record], path: str, seconds: float = 0.0
) -> None:
    """Draws records one under another: about ten frames at their times, and the waveform below.

    Args:
        sheet_records: records of NumPy values.
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
        strips.append(0.05 + width_inches
                      * _slot(record, spans[-1])[1] / spans[-1] * _aspect(record))
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not for --help
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width_inches + 0.6,
                             sum(strips) + len(strips) * (wave_inches + gap_inches) + 0.1), dpi=110)
    FigureCanvasAgg(figure)
    total_width, total_height = figure.get_size_inches()
    left, width = 0.3 / total_width, width_inches / total_width

    bottom = total_height - 0.35
    for record, span, strip in zip(sheet_records, spans, strips, strict=True):
        bottom -= strip
        frame_axes = figure.add_axes((left, bottom / total_height, width, strip / total_height))
        bottom -= wave_inches
        wave_axes = figure.add_axes((left, bottom / total_height, width,
                                     wave_inches / total_height))
        bottom -= gap_inches
        facts = facts_of(record)
        title = f'{facts.example_id}    {", ".join(facts.labels)}'
        frame_axes.set_title(title, loc='left', fontsize=9, pad=5, color='#222222',
                             parse_math=False)
        _draw_frames(frame_axes, record, span)
        _draw_wave(wave_axes, record, facts, span)

    try:
        with files.replacing(path) as aside:
            figure.savefig(aside, format='png')
    except OSError as error:
        raise UserError('contact_sheet', path, f'cannot be written: {error.strerror}') from error


def _aspect(record: records.Record):
    """Height of a frame over its width."""
    image = read_image(record.frames[0]) if len(record.frames) else None
    return image.height / image.width if image else 0.75


def _slot(record: records.Record, span: float):
    """(every how many frames one is drawn, seconds on the axis that it takes)."""
    shown = int((record.frame_seconds < span).sum())
    step = max(1, math.ceil(shown / FRAMES_PER_ROW))
    return step, min(span / 4, step * span / max(1, shown))


def _draw_frames(axes: "Axes", record: records.Record, span: float):
    """Each frame stands with its middle over its time, which a tick marks."""
    step, slot = _slot(record, span)
    # Half a step in, so that the first frame is not cut by the edge, unless the span ends before.
    first = (step + 1) // 2 if (record.frame_seconds[(step + 1) // 2:] < span).any() else 0
    for i in range(first, len(record.frames), step):
        middle = record.frame_seconds[i]
        image = read_image(record.frames[i])
        if middle >= span or image is None:
            continue
        extent = (middle - 0.48 * slot, middle + 0.48 * slot, 0, 1)
        axes.imshow(np.asarray(image.convert('RGB')), extent=extent, aspect='auto',
                    interpolation='nearest')
        axes.plot([middle, middle], [-0.08, 0], color='#444444', linewidth=1)
    axes.set_xlim(0, span)
    axes.set_ylim(-0.08, 1)
    axes.axis('off')


def _draw_wave(axes: "Axes", record: records.Record, facts: Facts, span: float):
    """The waveform's highest and lowest value in each short stretch of time."""
    if facts.samples and facts.sample_rate:
        samples = record.waveform[:int(span * facts.sample_rate)]
        step = max(1, len(samples) // ENVELOPE_BINS)
        starts = np.arange(0, len(samples), step)
        high, low = (pick.reduceat(samples, starts) / records.PCM_SCALE
                     for pick in (np.maximum, np.minimum))
        axes.fill_between(starts / facts.sample_rate, low, high, color='#2a6f97', linewidth=0.5)
        reach = max(0.05, 1.05 * float(np.abs(samples / records.PCM_SCALE).max()))
        axes.set_ylim(-reach, reach)
    else:
        reason = 'audio without a sample rate' if facts.samples else 'no audio'
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha='center', va='center', fontsize=8,
                  color='#888888')
    axes.set_xlim(0, span)
    axes.set_yticks([])
    axes.tick_params(labelsize=7, colors='#444444', length=3)
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:g} s')
    for side in ('top', 'left', 'right'):
        axes.spines[side].set_visible(False)
