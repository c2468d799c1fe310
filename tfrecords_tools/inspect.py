"""Says what is in record files, draws it, checks it and plays it.

    python -m tfrecords_tools.inspect 'data/world-*' --contact_sheet=sheet.png
    python -m tfrecords_tools.inspect 'data/world-*' --verify
    python -m tfrecords_tools.inspect 'data/world-*' --play=bark/one --output=clip.mp4

The contact sheet shows frames and waveform of a few records on one time axis: a sound that does not lie under the picture that
made it shows at a glance. `--contact_seconds=1` shows the first second alone, frame by frame.

`--verify` reads every record of every shard and names each that is not what `docs/records.md` promises, with its shard, its index
in it (from 0), its id and the reason; the exit status is 1 where there is one. After a damaged record it goes on with the next;
only where the length of a record is damaged, the rest of that shard is lost.

`--play` writes one record back as a video, so that a person can hear and see that it is in sync.
"""

import collections
import fractions
import io
import math
import os
import sys
from typing import NamedTuple

import av
import numpy as np
from absl import flags
from google.protobuf.message import DecodeError
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from avts_tf import program, progress
from avts_tf.data import records
from avts_tf.data import shards as record_files
from avts_tf.errors import UserError
from avts_tf.lazy import tf

FRAMES_PER_ROW = 10  # at most
ENVELOPE_BINS = 1200  # about one for each pixel of the sheet's width
ALIGNED_SECONDS = 0.001  # what frame times and durations may be off by: readers take windows to the nearest frame and sample
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


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
        grid_error_seconds: greatest difference of a frame's stated time from its place on the grid of the frame rate.
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
    grid_error_seconds: float
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
            shards.update(record_files.find_shards(pattern))
        except UserError as error:
            # Here the files are plain arguments, and --records is the number of records to draw.
            raise UserError(None, error.value, error.problem) from error
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
                    f'{path}: record {i} (counted from 0) is not in the form that avts_tf/data/records.py describes: '
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
        grid_error_seconds=float(np.abs(record.frame_seconds - np.arange(frames) / rate).max()) if rate > 0 and frames else 0.0,
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
    seconds = np.array([f.video_seconds if f.frames else f.audio_seconds for f in facts])
    with_frames = [f for f in facts if f.frames]
    with_audio = [f for f in facts if f.samples]
    lines = [
        ('shards', f'{len(shards)}'),
        ('records', f'{len(facts)}'),
        ('duration', f'{progress.duration(seconds.sum())} in all; '
                     f'shortest {seconds.min():.2f} s, median {np.median(seconds):.2f} s, '
                     f'longest {seconds.max():.2f} s'),
        ('frame rates', _counts(f'{f.frame_rate:.6g} fps' if f.frame_rate else 'not stated' for f in with_frames)),
        ('frame sizes', _counts('x'.join(map(str, f.frame_size)) if f.frame_size else 'no image' for f in with_frames)),
        ('sample rates', _counts(f'{f.sample_rate:.6g} Hz' if f.sample_rate else 'not stated' for f in with_audio)),
        ('audio', f'{len(with_audio)} with, {len(facts) - len(with_audio)} without'),
        ('pictures', f'{len(with_frames)} with, {len(facts) - len(with_frames)} without'),
    ]
    if with_frames:
        worst = max(with_frames, key=lambda f: f.grid_error_seconds)
        where = f', in {worst.example_id}' if worst.grid_error_seconds >= 0.00005 else ''
        lines.append(('worst frame time', f'{1000 * worst.grid_error_seconds:.1f} ms off the grid{where}'))
    timed = [f for f in with_frames if f.samples and f.sample_rate]
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not for --help
    from matplotlib.figure import Figure
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


def verify(patterns):
    """Reads every record of every shard and checks what `docs/records.md` promises.

    Args:
        patterns: list of paths, globs or folders.

    Returns:
        Number of records, and a list of (path, index in the shard, id or '', reason) of the bad ones.

    Raises:
        UserError: a pattern matches no file.
    """
    paths = set()
    for part in [part.strip() for pattern in patterns for part in pattern.split(',')] or ['']:
        found = record_files.list_files(part)
        if not found:
            raise UserError(f'{part or "no record files given"}: no file matches. Give a glob of record files, quoted, such as '
                            '"data/clips-*".')
        paths.update(found)
    bad, places, count = [], {}, 0
    with tqdm(unit='record') as shown:
        for path in sorted(paths):
            for index, (serialized, reason) in enumerate(_each_record(path)):
                name = ''
                if serialized is not None:
                    name, reason = _fault(serialized)
                    if name and name in places and not reason:
                        reason = f'the id is that of record {places[name][1]} of {places[name][0]} too'
                    places.setdefault(name, (path, index))
                if reason:
                    bad.append((path, index, name, reason))
                count += 1
                shown.update()
    return count, bad


def _each_record(path):
    """Yields per record of a file (bytes, ''), or (None, what is wrong) where its bytes are damaged."""
    try:
        for serialized in record_files.walk(path):
            yield serialized, '' if serialized is not None else 'the checksum is wrong'
    except record_files.Damage as damage:
        yield None, damage.reason


def _fault(serialized):
    """(id, what is wrong with a record or '')."""
    try:
        example = tf.train.SequenceExample.FromString(serialized)
    except DecodeError:
        return '', 'no tf.train.SequenceExample'
    context, lists = example.context.feature, example.feature_lists.feature_list
    ids = context[records.EXAMPLE_ID].bytes_list.value
    name = ids[0].decode(errors='replace') if ids else ''
    seen, heard = records.FRAMES in lists, records.AUDIO_BYTES in lists or records.AUDIO_FLOATS in lists
    wanted = [records.SAMPLE_RATE, records.NUM_SAMPLES] if heard else []
    wanted += [records.FRAME_RATE, records.IMAGE_HEIGHT, records.IMAGE_WIDTH] if seen else []
    missing = [] if name else [records.EXAMPLE_ID]
    missing += [key for key in wanted if not (context[key].float_list.value or context[key].int64_list.value)]
    if missing:
        return name, f'no {", ".join(missing)}'
    if not seen and not heard:
        return name, f'neither {records.FRAMES} nor {records.AUDIO_BYTES} nor {records.AUDIO_FLOATS}'
    raw = b''.join(value for feature in lists[records.AUDIO_BYTES].feature for value in feature.bytes_list.value)
    if len(raw) % 2:
        return name, f'{len(raw)} bytes of audio, no whole number of 16-bit samples'
    record = records.Record(*(value.numpy() for value in records.parse(serialized)))
    facts = facts_of(record)
    if heard:
        stated = context[records.NUM_SAMPLES].int64_list.value[0]
        if facts.samples != stated:
            return name, f'{facts.samples} audio samples, but {records.NUM_SAMPLES} is {stated}'
        if not facts.sample_rate > 0 or not facts.samples:
            return name, f'{facts.samples} audio samples at {facts.sample_rate:g} Hz'
    if not seen:
        return name, ''
    if not facts.frame_rate > 0 or not facts.frames:
        return name, f'{facts.frames} frames at {facts.frame_rate:g} fps'
    times = len(lists[records.FRAME_TIMES].feature)
    if times not in (0, facts.frames):
        return name, f'{facts.frames} frames, but {times} times in {records.FRAME_TIMES}'
    if facts.grid_error_seconds > ALIGNED_SECONDS:
        return name, f'a frame is stated {1000 * facts.grid_error_seconds:.1f} ms off the grid of {facts.frame_rate:g} fps'
    if heard and abs(facts.audio_seconds - facts.video_seconds) > ALIGNED_SECONDS:
        return name, f'{facts.audio_seconds:.4f} s of audio beside {facts.video_seconds:.4f} s of video'
    size = context[records.IMAGE_WIDTH].int64_list.value[0], context[records.IMAGE_HEIGHT].int64_list.value[0]
    for i, frame in enumerate(record.frames):
        image = _image(frame)
        try:
            if image is None or image.format != 'JPEG':
                return name, f'frame {i} is no JPEG'
            image.load()
        except (OSError, SyntaxError) as error:  # what Pillow raises on damaged images
            return name, f'frame {i} cannot be decoded: {error}'
        if image.size != size:
            return name, f'frame {i} is {image.width} x {image.height}, and the record states {size[0]} x {size[1]}'
    return name, ''


def play(patterns, example_id, output):
    """Writes a record back as a video: H.264 (MPEG-4 where there is no coder for that) and AAC, in sync to the sample.

    Args:
        patterns: list of paths, globs or folders.
        example_id: name of the record.
        output: video file to write, such as 'clip.mp4'.

    Raises:
        UserError: there is no such record, it cannot be shown, or the file cannot be written.
    """
    if not output:
        raise UserError(f'--play={example_id}: say with --output=clip.mp4 where to write it.')
    ids = []
    for record in read_records(find_shards(patterns)):
        ids.append(record.example_id.decode(errors='replace'))
        if ids[-1] == example_id:
            break
    else:
        raise UserError(f'--play={example_id}: no record has this id; there are {len(ids)}, such as {", ".join(ids[:5])}.')
    facts = facts_of(record)
    if not facts.frames and not facts.samples:
        raise UserError(f'--play={example_id}: neither picture nor sound is in this record.')
    try:
        with av.open(output, 'w') as container:
            sound = _add_sound(container, facts) if facts.samples and facts.sample_rate else None
            if facts.frames:
                _play_frames(container, record, facts)
            if sound:
                _play_sound(container, sound, record, facts)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f'--output={output}: cannot be written: {getattr(error, "strerror", None) or error}') from error


def _add_sound(container, facts):
    # Few players know other rates than these.
    return container.add_stream('aac', rate=min(_AAC_RATES, key=lambda rate: abs(rate - facts.sample_rate)), layout='mono')


def _play_frames(container, record, facts):
    rate = fractions.Fraction(facts.frame_rate or facts.frames / facts.video_seconds).limit_denominator(1001)
    coder = 'libx264' if 'libx264' in av.codecs_available else 'mpeg4'
    stream = container.add_stream(coder, rate=rate, options={'crf': '18'} if coder == 'libx264' else {'qscale': '3'})
    # Two colour samples lie side by side in these formats: an odd picture gets its last row or column twice.
    stream.width, stream.height = (side + side % 2 for side in facts.frame_size)
    stream.pix_fmt, stream.time_base = 'yuv420p', 1 / rate
    for i, encoded in enumerate(record.frames):
        image = np.asarray(_image(encoded).convert('RGB').resize(facts.frame_size))
        image = np.pad(image, ((0, stream.height - len(image)), (0, stream.width - image.shape[1]), (0, 0)), 'edge')
        frame = av.VideoFrame.from_ndarray(image, 'rgb24')
        frame.pts, frame.time_base = i, 1 / rate
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _play_sound(container, stream, record, facts):
    frame = av.AudioFrame.from_ndarray(record.waveform[None], 's16', 'mono')
    frame.sample_rate, frame.pts = round(facts.sample_rate), 0
    frame.time_base = fractions.Fraction(1, frame.sample_rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


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
    flags.DEFINE_boolean('verify', False, 'read every record and name each bad one; exit status 1 where there is one')
    flags.DEFINE_string('play', None, 'id of a record to write back as a video, to --output')
    flags.DEFINE_string('output', None, 'video file that --play writes, such as clip.mp4')
    flags.DEFINE_float('contact_seconds', 0.0, 'time shown of each record from its beginning, in seconds; 0 shows all')


def main(argv):
    """Runs the command line; see `python -m tfrecords_tools.inspect --help`."""
    values, patterns = flags.FLAGS, argv[1:]
    try:
        if values.verify:
            count, bad = verify(patterns)
            for path, index, name, reason in bad:
                print(f'{path}, record {index}{f" ({name})" if name else ""}: {reason}')
            print(f'{count} record(s) read, {len(bad)} bad')
            sys.exit(1 if bad else 0)
        if values.play:
            play(patterns, values.play, values.output)
            print(f'{values.play}: {values.output}')
            return
        print(inspect(patterns, values.contact_sheet, values.records, values.contact_seconds), end='')
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if values.contact_sheet:
        print(f'contact sheet: {values.contact_sheet}')


if __name__ == '__main__':
    _define_flags()
    program.run(main)
