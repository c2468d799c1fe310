"""`--mode=offset`: by how much is the sound of a file early or late?

The picture's windows are compared with windows of the sound that start up to `max_offset_seconds` earlier or later. The mean
distance over the picture's windows is a curve over the offset, and its lowest point is the answer. **A positive offset means
that the sound is late**: what is seen at time t is heard at t + offset.

Of a file, each window of the video is compared with the audio at the times of the frames that are
shown in it, so that neither the frame rate nor the moment at which the audio begins moves the answer.

Calibration shifts the sound of held-out records, which must be in sync, by known amounts and says how far off the answers are.
What they are off by in the middle, the bias, is taken from the answers for files. It also measures sounds that do not belong to
their picture at all: the confidence of an answer is the part of those whose curve dips less deep.
Below a least confidence, or where the lowest point lies at the edge of the curve or is one of several,
the answer is "cannot tell" (see `doubt`).
"""

import json
import os
from typing import NamedTuple

import av
import numpy as np
import tensorflow as tf

from avts_tf import files, plots, progress
from avts_tf.data import images, media, records, workers
from avts_tf.data.shards import find_shards
from avts_tf.errors import UserError
from avts_tf.models.audio import embed_waveform
from avts_tf.training.run_folder import load_result, update_result

HOP_SECONDS = 0.01       # step of the offsets
MOST_POSITIONS = 64      # windows of the picture, spread over the file
LEAST_POSITIONS = 0.25   # part of them that must have sound at an offset for it to count
SILENT_SAMPLE = 8        # |sample| up to here is digital silence, as a shifted or padded sound has at its ends
EDGE_STEPS = 3           # neighbours that the lowest point needs on both sides: a dip shows both its slopes
RIVAL_DEPTH = 0.9        # part of the depth of the lowest point from which on another dip may be the true one
MOST_SECONDS = 120.0     # of a longer file only the beginning is looked at
TIME_TOLERANCE_SECONDS = 0.005  # of a copied packet: containers round times, to 1 ms in Matroska
# Most are no multiple of a frame at any usual rate, as the offsets of files are not.
CALIBRATION_SHIFTS_SECONDS = (-0.6, -0.387, -0.187, -0.073, 0.0, 0.053, 0.147, 0.348, 0.6)
SHIFTS_PER_RECORD = 3
_BATCH = 64


class OffsetCurve(NamedTuple):
    """Distance between picture and sound over the offset of the sound.

    Attributes:
        offset_seconds: float64 [N], positive where the sound is taken to be late.
        distance: float64 [N], mean over the picture's windows; NaN where too few of them have sound.
        positions: number of windows of the picture.
    """

    offset_seconds: np.ndarray
    distance: np.ndarray
    positions: int

    @property
    def best(self):
        """(offset in seconds of the lowest point, its depth below the median of the curve); None without any point."""
        if np.isnan(self.distance).all():
            return None
        lowest = int(np.nanargmin(self.distance))
        offset = self.offset_seconds[lowest]
        before, here, after = (self.distance[i] if 0 <= i < len(self.distance) else np.nan for i in range(lowest - 1, lowest + 2))
        if before + after > 2 * here:  # false too where a neighbour is missing
            offset += HOP_SECONDS * (before - after) / (2 * (before + after - 2 * here))  # vertex of the parabola through the three
        return float(offset), float(np.nanmedian(self.distance) - here)

    @property
    def at_edge(self) -> bool:
        """Whether a neighbour of the lowest point is missing, so that the true one may lie beyond."""
        known = np.pad(np.isfinite(self.distance), EDGE_STEPS)
        lowest = int(np.nanargmin(self.distance))  # EDGE_STEPS further on in `known`
        return not known[lowest:lowest + 2 * EDGE_STEPS + 1].all()

    @property
    def has_rival(self) -> bool:
        """Whether another dip is nearly as deep, as of what repeats itself."""
        depths = np.nanmedian(self.distance) - self.distance
        lowest = int(np.nanargmin(self.distance))
        shallow = np.flatnonzero(~(depths > depths[lowest] / 2))  # NaN too
        start = max(shallow[shallow < lowest], default=0)
        end = min(shallow[shallow > lowest], default=len(depths))
        return bool((np.r_[depths[:start], depths[end:]] > RIVAL_DEPTH * depths[lowest]).any())


def embed_picture(model, frames, frame_seconds):
    """Embeds windows that are spread over a picture.

    Args:
        model: trained `TwoTower`.
        frames: string [F], JPEGs of one size in steps of 1 / `clip.fps` of the model.
        frame_seconds: float [F], time of the frame that each step shows, which may be off the step's.

    Returns:
        (float64 [P], time in seconds at which the audio of each window begins; float32 [P, D], the
        window's embedding); None where there is not one window.
    """
    clip = model.config.clip
    most = len(frames) - clip.frames
    if most < 0:
        return None
    pixels = _pixels(frames, clip.frame_size).numpy()
    starts = np.unique(np.linspace(0, most, min(MOST_POSITIONS, most + 1)).round().astype(int))
    embeddings = _embed(lambda part: model.video_tower(part, training=False), pixels, clip.frames, starts)
    off_step = np.asarray(frame_seconds, np.float64) - np.arange(len(frames)) / clip.fps
    return starts / clip.fps + [off_step[i:i + clip.frames].mean() for i in starts], embeddings


def offset_curve(model, picture, waveform, max_offset_seconds=1.0, waveform_seconds=0.0):
    """Compares a picture with its sound at all offsets.

    Args:
        model: trained `TwoTower`.
        picture: result of `embed_picture`.
        waveform: int16 [samples] at the model's `clip.sample_rate`.
        max_offset_seconds: offsets reach from minus to plus this.
        waveform_seconds: time of sample 0, on the clock of the picture's times.

    Returns:
        An `OffsetCurve`, or None where picture or sound is shorter than a window.
    """
    clip = model.config.clip
    sounding = np.flatnonzero(np.abs(waveform.astype(np.int32)) > SILENT_SAMPLE)
    if picture is None or not len(sounding):
        return None
    first, last = sounding[0], sounding[-1] + 1 - clip.window_samples
    start_seconds, seen = picture
    steps = round(max_offset_seconds / HOP_SECONDS)
    offsets = np.arange(-steps, steps + 1) * HOP_SECONDS
    seconds = start_seconds[:, None] + offsets - waveform_seconds
    samples = np.round(seconds * clip.sample_rate).astype(int)  # [positions, offsets]
    within = (samples >= first) & (samples <= last)
    if not within.any():
        return None
    wanted, index = np.unique(samples[within], return_inverse=True)
    heard = _embed(lambda part: embed_waveform(model.audio_tower, part), waveform, clip.window_samples, wanted)
    distance = np.full(samples.shape, np.nan)
    distance[within] = np.linalg.norm(seen[np.nonzero(within)[0]] - heard[index], axis=-1)
    enough = within.sum(0) >= max(1, LEAST_POSITIONS * len(start_seconds))
    curve = np.full(len(offsets), np.nan)
    curve[enough] = np.nanmean(distance[:, enough], axis=0)
    return OffsetCurve(offsets, curve, len(start_seconds))


def _embed(tower, stream, length, starts):
    """Embeddings of the windows of a stream that begin at `starts`: float32 [len(starts), D], a batch at a time."""
    return np.concatenate([
        tower(tf.constant(np.stack([stream[i:i + length] for i in starts[k:k + _BATCH]])))['embedding'].numpy()
        for k in range(0, len(starts), _BATCH)
    ])


def _pixels(frames, size):
    """JPEGs of one size, string [F], to their largest centred squares, uint8 [F, size, size, 3], as in evaluation."""
    shape = images.jpeg_size(frames[0])
    return tf.map_fn(lambda jpeg: images.decode_square(jpeg, shape, size), frames,
                     fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))


def shift_sound(waveform, samples):
    """The sound made late by a number of samples (early if negative), silence where nothing is left: same length."""
    shifted = np.zeros_like(waveform)
    if samples >= 0:
        shifted[samples:] = waveform[:len(waveform) - samples]
    else:
        shifted[:samples] = waveform[-samples:]
    return shifted


def calibrate(model, pattern, run_dir, max_offset_seconds, min_confidence, say=print):
    """Measures the offset of records whose sound was shifted by known amounts, and writes `result.json` and a picture.

    Args:
        model: trained `TwoTower`.
        pattern: glob of records that were not trained on.
        run_dir: run folder.
        max_offset_seconds: see `offset_curve`.
        min_confidence: see `doubt`; what passes it is counted.
        say: function that shows a line of text.

    Returns:
        The dict that is written to `result.json` as `offset`.

    Raises:
        UserError: there is no record that is long enough.
    """
    clip = model.config.clip
    shifts = [shift for shift in CALIBRATION_SHIFTS_SECONDS if abs(shift) <= max_offset_seconds]
    errors, curves, foreign = {shift: [] for shift in shifts}, [], []
    sides, left_out, total, before = [], 0, 0, None
    paths = [path for path, _ in find_shards(pattern, 'eval_records')]
    for serialized in progress.bar(tf.data.TFRecordDataset(paths), 'offset of shifted records', unit='record'):
        total += 1
        try:
            record = records.parse(serialized)
            picture, waveform = _picture_and_sound(model, record)
        except tf.errors.InvalidArgumentError as error:  # no record, or a frame that is no JPEG or of another size
            say(f'{pattern}: record {total} cannot be used: {error.message.splitlines()[0]}')
            left_out += 1
            continue
        found = False
        for k in range(SHIFTS_PER_RECORD):  # in turn, so that each shift is as frequent as any other
            shift = shifts[(total + k * len(shifts) // SHIFTS_PER_RECORD) % len(shifts)]
            curve = offset_curve(model, picture, shift_sound(waveform, round(shift * clip.sample_rate)), max_offset_seconds)
            if curve and curve.best:
                errors[shift].append(1000 * (curve.best[0] - shift))
                curves.append((curve, errors[shift][-1]))
                found = True
        left_out += not found
        if found:
            sides.append(min(images.jpeg_size(record.frames[0]).numpy()))
            curve = offset_curve(model, picture, before, max_offset_seconds) if before is not None else None
            if curve and curve.best:
                foreign.append(curve.best[1])
            before = waveform
    measured = np.concatenate(list(errors.values()))
    if not len(measured):
        raise UserError(
            f'--eval_records={pattern}: none of {total} records has {clip.fps:g} fps, {clip.sample_rate} Hz and a window of '
            f'{clip.window_seconds:g} s to measure the offset on.')
    result = {
        'records': total, 'left_out': left_out, 'measurements': len(measured), 'max_offset_seconds': max_offset_seconds,
        'median_error_ms': float(np.median(np.abs(measured))), 'p90_error_ms': float(np.percentile(np.abs(measured), 90)),
        'bias_ms': float(np.median(measured)), 'within_a_frame': float(np.mean(np.abs(measured) < 1000 / clip.fps)),
        'by_shift_ms': {f'{1000 * shift:g}': float(np.median(np.abs(values))) for shift, values in errors.items() if values},
        'foreign_depths': sorted(foreign), 'short_side': int(np.median(sides)),
    }
    told = [abs(error) < 1000 / clip.fps for curve, error in curves
            if not doubt(curve, result, max_offset_seconds, min_confidence)]
    result |= {'min_confidence': min_confidence, 'told': len(told),
               'told_within_a_frame': float(np.mean(told)) if told else None}
    path = os.path.join(run_dir, 'plots', 'offset_errors.png')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    update_result(run_dir, {'offset': result})
    plots.offset_errors(errors, 1000 / clip.fps, path)
    say(f'{len(measured)} measurements on {total - left_out} records ({left_out} left out): median error '
        f'{result["median_error_ms"]:.0f} ms, 90 % within {result["p90_error_ms"]:.0f} ms, '
        f'{100 * result["within_a_frame"]:.1f} % within one frame ({1000 / clip.fps:g} ms), bias {result["bias_ms"]:+.1f} ms.')
    for shift, value in result['by_shift_ms'].items():
        say(f'  sound shifted by {float(shift):+5.0f} ms: median error {value:.0f} ms')
    if told:
        say(f'At --min_confidence={min_confidence:g}, {len(told)} of them are told, '
            f'{100 * np.mean(told):.1f} % of these within one frame.')
    else:
        say(f'At --min_confidence={min_confidence:g} none of them is told: with {len(foreign)} sounds '
            f'of other records the confidence is {len(foreign) / (len(foreign) + 1):.2f} at most; more '
            '--eval_records or more training give more.')
    say(f'Written to result.json and {path}.')
    return result


def _picture_and_sound(model, record):
    """Of a record: result of `embed_picture`, None where its times do not fit the model; samples."""
    clip, seconds = model.config.clip, record.frame_seconds.numpy()
    fits = (len(seconds) and round(float(record.sample_rate)) == clip.sample_rate
            and np.allclose(seconds - seconds[0], np.arange(len(seconds)) / clip.fps, rtol=0, atol=0.25 / clip.fps))
    if not fits:
        return None, record.waveform.numpy()
    return embed_picture(model, record.frames, seconds), record.waveform.numpy()


def confidence_of(depth, calibration):
    """How sure it is that a curve is of audio that belongs to its video.

    Args:
        depth: of the curve, see `OffsetCurve.best`.
        calibration: result of `calibrate`, or {}.

    Returns:
        Part of the N foreign sounds, and of one more that is taken to dip deeper, whose curve dips
        less: 0 to N / (N + 1), so that a few never make an answer sure. None without any.
    """
    depths = calibration.get('foreign_depths')
    return float(np.searchsorted(depths, depth) / (len(depths) + 1)) if depths else None


def doubt(
    curve: OffsetCurve, calibration: dict, max_offset_seconds: float, min_confidence: float,
) -> tuple[str, str] | None:
    """Why the lowest point of a curve is no answer: (reason, in words); None where it is one.

    Args:
        curve: has a lowest point.
        calibration: result of `calibrate`, or {}.
        max_offset_seconds: what the curve was made with.
        min_confidence: least confidence of an answer.
    """
    confidence = confidence_of(curve.best[1], calibration)
    if confidence is None:
        return 'no_calibration', ('the run has no calibration on two records or more; --mode=offset '
                                  'with --eval_records and without --input makes one')
    if max_offset_seconds > (calibrated := calibration['max_offset_seconds']):
        return 'no_calibration', (f'the calibration is for --max_offset_seconds={calibrated:g}; '
                                  'calibrate again with the greater one')
    if curve.at_edge:
        return 'at_edge', ('the curve is lowest at the edge of what could be compared; try a greater '
                           '--max_offset_seconds')
    if confidence < min_confidence:
        return 'low_confidence', (f'confidence {confidence:.2f} is below '
                                  f'--min_confidence={min_confidence:g}')
    if curve.has_rival:
        return 'ambiguous', 'the curve has another dip nearly as deep, as of sounds that repeat'
    return None


def measure_files(
    model, sources, run_dir, output_dir, max_offset_seconds, min_confidence, fix=False, say=print,
):
    """Measures the offset of video files; writes `offsets.json` and a curve as PNG for each.

    Args:
        model: trained `TwoTower`.
        sources: list of `datasets.Source`.
        run_dir: run folder, whose calibration gives the confidence.
        output_dir: folder for what is written.
        max_offset_seconds: see `offset_curve`.
        min_confidence: least confidence of an answer, 0 to 1.
        fix: also copies each file whose offset is told, with its audio moved into sync.
        say: function that shows a line of text.

    Returns:
        The list that `offsets.json` holds: a dict per file with `path` and `told`. Where that is true,
        `offset_ms` is the answer; where not, it is None, and `reason` and `detail` are of `doubt`. Both
        have `confidence`, `lowest_ms` (of the curve, less the bias), `depth`, `positions`, `curve` (a
        PNG, None where its name is too long), and with `fix` the path `fixed`, None where nothing was
        written. A file that could not be measured has `path`, `told`, `skipped` and `detail`.

    Raises:
        UserError: the output cannot be written.
    """
    clip = model.config.clip
    calibration = load_result(run_dir).get('offset', {})
    # Frames as large as those of the records, because the towers and the confidence know no others.
    options = media.MediaOptions(fps=clip.fps, sample_rate=clip.sample_rate,
                                 short_side=calibration.get('short_side', clip.frame_size))
    os.makedirs(output_dir, exist_ok=True)
    tasks = [(source.path, options, MOST_SECONDS, max_offset_seconds) for source in sources]
    outcomes = workers.run_in_order(media.try_streams, tasks, os.cpu_count(), 120.0)
    answers = []
    for source, (found, failure) in zip(sources, outcomes, strict=True):
        curve, skipped = None, failure or found
        if isinstance(found, media.Streams):
            picture = embed_picture(model, tf.constant(found.frames), found.frame_seconds)
            curve = offset_curve(
                model, picture, found.waveform, max_offset_seconds, found.waveform_seconds)
            skipped = ('too_short',
                       f'needs a window of {clip.window_seconds:g} s with video and audio')
        if not (curve and curve.best):
            reason, detail = skipped
            answers.append(
                {'path': source.path, 'told': False, 'skipped': reason, 'detail': detail})
            say(f'{source.path}: not measured: {reason} ({detail}).')
            continue
        seconds, depth = curve.best[0] - calibration.get('bias_ms', 0.0) / 1000, curve.best[1]
        confidence = confidence_of(depth, calibration)
        why = doubt(curve, calibration, max_offset_seconds, min_confidence)
        words = f'cannot tell: {why[1]}' if why else describe(seconds, confidence)
        picture = os.path.join(output_dir, source.example_id.replace('/', '_') + '.png')
        try:
            plots.offset_curve(curve, f'{os.path.basename(source.path)}\n{words}', picture)
        except OSError as error:  # its name is too long, as names of nested folders joined may be
            say(f'{source.path}: its curve cannot be drawn: {error.strerror}')
            picture = None
        lowest_ms = round(1000 * seconds)
        answer = {'path': source.path, 'told': not why, 'offset_ms': None if why else lowest_ms,
                  'confidence': confidence, 'lowest_ms': lowest_ms, 'depth': round(depth, 4),
                  'positions': curve.positions, 'curve': picture}
        say(f'{source.path}: {words}')
        if why:
            answer['reason'], answer['detail'] = why
        if fix:
            answer['fixed'], problem = None, ''
            if not why:
                answer['fixed'], problem = write_in_sync(source.path, output_dir, seconds)
            if problem:
                say(f'{source.path}: not written in sync: {problem}')
        answers.append(answer)
    path = os.path.join(output_dir, 'offsets.json')
    files.write_text(path, json.dumps(answers, indent=2) + '\n')
    told = sum(answer['told'] for answer in answers)
    skipped = sum('skipped' in answer for answer in answers)
    say(f'{told} told, {len(answers) - told - skipped} cannot be told, {skipped} not measured; {path}, '
        'and a curve as PNG for each that was measured, beside it.')
    return answers


def describe(offset_seconds, confidence):
    """The answer in words."""
    ms = round(1000 * offset_seconds)
    words = f'the audio is {abs(ms)} ms {"late" if ms > 0 else "early"}' if ms else 'in sync'
    return f'{words} ({ms:+d} ms), confidence {confidence:.2f}'


def write_in_sync(path, output_dir, offset_seconds):
    """Copies a file and delays its picture, or its sound where that is early; nothing is encoded again.

    What was written is read again and compared. A kind of file that does not keep the delay, as AVI, becomes a Matroska file.

    Args:
        path: video file.
        output_dir: folder for the new file, which must not be there.
        offset_seconds: as measured, positive where the sound is late.

    Returns:
        The path of the new file and ''; or None, and in words why it could not be written.
    """
    name = os.path.join(output_dir, os.path.basename(path))
    matroska = os.path.splitext(name)[0] + '.mkv'
    problem = ''
    for output_path in dict.fromkeys([name, matroska]):
        if os.path.exists(output_path):
            return None, f'{output_path} is there already.'
        aside = os.path.join(output_dir, '.writing-' + os.path.basename(output_path))
        try:
            expected = _copy_delayed(path, aside, offset_seconds)
            if not (problem := _differs(aside, expected)):
                os.replace(aside, output_path)
                return output_path, ''
        except (av.FFmpegError, OSError, ValueError, TypeError) as error:
            problem = f'{type(error).__name__}: {error}'
        finally:
            if os.path.exists(aside):
                os.remove(aside)
    return None, problem


def _copy_delayed(path, output_path, offset_seconds):
    """Copies the packets of a file; returns per kind of stream their number, and the first and last time in seconds."""
    late, times = 'video' if offset_seconds > 0 else 'audio', {'video': [], 'audio': []}
    with media.open_file(path) as source, av.open(output_path, 'w') as target:
        streams = {stream.index: target.add_stream_from_template(stream)
                   for stream in source.streams if stream.type in times}
        waiting = {index: [] for index in streams}  # Matroska gives the first packets no time of decoding
        for packet in source.demux([stream for stream in source.streams if stream.index in streams]):
            if not packet.size:  # the mark of a stream's end
                continue
            stream = packet.stream
            if stream.type == late:
                delay = round(abs(offset_seconds) / packet.time_base)
                packet.pts = packet.pts + delay
                packet.dts = packet.dts if packet.dts is None else packet.dts + delay
            times[stream.type].append(float(packet.pts * packet.time_base))
            queue = waiting[stream.index]
            queue.append(packet)
            if packet.dts is None:
                continue
            step = round(1 / stream.average_rate / packet.time_base) if stream.type == 'video' and stream.average_rate else 1
            for place, held in enumerate(queue):
                if held.dts is None:
                    held.dts = packet.dts - step * (len(queue) - 1 - place)
                held.stream = streams[stream.index]
                target.mux(held)
            queue.clear()
        if any(waiting.values()):
            raise ValueError('packets without a time of decoding')
    return {kind: (len(found), min(found), max(found)) for kind, found in times.items() if found}


def _differs(path, expected):
    """In words, how the packets of a file differ from the expected, the time of its beginning left aside; '' where they do not."""
    times = {kind: [] for kind in expected}
    with media.open_file(path) as file:
        for packet in file.demux([stream for stream in file.streams if stream.type in times]):
            if packet.size and packet.pts is not None:
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
    for kind, (count, _, _) in expected.items():
        if len(times[kind]) != count:
            return f'the {kind} has {len(times[kind])} packets in the new file, {count} in the old'
    start, expected_start = times['video'] and min(times['video']), expected['video'][1]
    for kind, (_, first, last) in expected.items():
        for found, wanted in ((min(times[kind]), first), (max(times[kind]), last)):
            wrong = (found - start) - (wanted - expected_start)
            if abs(wrong) > TIME_TOLERANCE_SECONDS:
                return f'the {kind} lies {1000 * wrong:+.0f} ms from where it should in the new file'
    return ''
