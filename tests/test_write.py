"""Videos whose picture and sound tell the time come out of the writer aligned."""

import csv
import fractions
import io
import json
import os
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from avts_tf import media, records, workers
from avts_tf.config import UserError
from tfrecords_tools import write

SECONDS = 2.0
BARS = 10  # the picture tells its time in bars, black or white: a binary number of ticks
TICK_SECONDS = 0.005
CFR = [i / 25 for i in range(50)]
# From 50 to 12.5 frames per second.
VFR = list(np.cumsum([0.0, *np.tile([0.02, 0.08, 0.03, 0.05, 0.02], 9)]))


def chirp(seconds):
    """A tone whose pitch tells the time: 400 Hz at time 0, 800 Hz more each second."""
    return 0.5 * np.sin(2 * np.pi * (400 * seconds + 400 * seconds**2))


def time_picture(seconds):
    """uint8 [64, 160, 3]."""
    ticks = round(seconds / TICK_SECONDS)
    bits = [255 if ticks >> bar & 1 else 0 for bar in range(BARS)]
    return np.repeat(np.broadcast_to(np.repeat(np.array(bits, np.uint8), 16), (64, 160))[..., None], 3, -1).copy()


def read_picture(jpeg):
    """The time that a frame tells, in seconds."""
    image = np.asarray(Image.open(io.BytesIO(jpeg)).convert('L'))
    height, width = image.shape
    means = image[height // 4:-height // 4].reshape(-1, BARS, width // BARS)[:, :, width // BARS // 4:-width // BARS // 4]
    return sum(int(mean > 127) << bar for bar, mean in enumerate(means.mean((0, 2)))) * TICK_SECONDS


def make_file(
    path, frame_seconds=tuple(CFR), picture=time_picture, sound=chirp, audio_start=0.0, audio_seconds=SECONDS, video='mpeg4',
    audio='aac', rate=44100, hole=None, aspect=None,
):
    """Writes a video: frames at the given times, sound from `audio_start` on, both showing the time of the file.

    `hole` is (start, end) in seconds of a stretch without audio packets.
    """
    with av.open(str(path), 'w') as container:
        video_stream = container.add_stream(video, rate=25)
        first = picture(0.0)
        video_stream.height, video_stream.width = first.shape[:2]
        video_stream.pix_fmt = 'yuv420p'
        video_stream.bit_rate = 4_000_000
        video_stream.codec_context.max_b_frames = 0  # mpeg4 with B-frames needs a constant rate
        video_stream.time_base = video_stream.codec_context.time_base = fractions.Fraction(1, 1000)
        if aspect:
            video_stream.codec_context.sample_aspect_ratio = aspect
        audio_stream = container.add_stream(audio, rate=rate, layout='mono') if audio else None
        for seconds in frame_seconds:
            frame = av.VideoFrame.from_ndarray(picture(seconds), 'rgb24')
            frame.pts, frame.time_base = round(seconds * 1000), fractions.Fraction(1, 1000)
            container.mux(video_stream.encode(frame))
        container.mux(video_stream.encode(None))
        if audio_stream:
            size = 960 if rate == 48000 else 1024
            for start in range(round(audio_start * rate), round((audio_start + audio_seconds) * rate), size):
                if hole and hole[0] <= start / rate < hole[1]:
                    continue
                samples = np.round(sound((start + np.arange(size)) / rate) * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(samples[None], 's16', 'mono')
                frame.sample_rate, frame.pts, frame.time_base = rate, start, fractions.Fraction(1, rate)
                container.mux(audio_stream.encode(frame))
            container.mux(audio_stream.encode(None))
    return str(path)


def sound_offset_ms(result, sample_rate=16000, part=slice(None)):
    """How much later the sound is than the time of the file says, by correlation with the chirp."""
    times = result.start_seconds + np.arange(len(result.waveform)) / sample_rate
    sound = (result.waveform / 32768)[part]
    offsets = np.arange(-80, 81) / (2 * sample_rate)
    scores = [np.dot(sound, chirp(times[part] - offset)) for offset in offsets]
    assert max(scores) > 0.8 * np.dot(sound, sound)  # it is the chirp
    return 1000 * offsets[int(np.argmax(scores))]


CASES = {
    'constant rate': ('a.mp4', {}),
    'late sound': ('a.mp4', {'audio_start': 0.33}),
    'late sound, pcm': ('a.mov', {'audio_start': 0.33, 'audio': 'pcm_s16le'}),
    'early sound': ('a.mkv', {'audio_start': 0.0, 'frame_seconds': [t + 0.215 for t in CFR], 'audio': 'flac'}),
    'late picture': ('a.mp4', {'frame_seconds': [t + 0.215 for t in CFR]}),
    'variable rate': ('a.mp4', {'frame_seconds': VFR}),
    'variable rate, late sound': ('a.mkv', {'frame_seconds': VFR, 'audio_start': 0.1, 'audio': 'libopus', 'rate': 48000}),
    'other rate': ('a.mkv', {'frame_seconds': [i / 40 for i in range(80)], 'audio': 'libmp3lame', 'rate': 32000}),
    'hole in the sound': ('a.mkv', {'audio': 'pcm_s16le', 'hole': (0.6, 0.9)}),
    'mpeg-ts': ('a.ts', {'audio': 'mp2', 'audio_start': 0.2}),
    'avi': ('a.avi', {'audio': 'pcm_s16le', 'rate': 16000}),
}


@pytest.mark.parametrize('case', CASES)
def test_aligned(case, tmp_path):
    name, options = CASES[case]
    path = make_file(tmp_path / name, **options)
    result = media.read_media(path, media.MediaOptions(short_side=0))
    shown = np.array([read_picture(frame) for frame in result.frames])
    nominal = result.start_seconds + np.arange(len(result.frames)) / 25
    frame_seconds = np.array(options.get('frame_seconds', CFR))
    starts = frame_seconds[0], options.get('audio_start', 0.0)
    if name.endswith('.ts'):  # its clock starts anywhere; the first frame is at our time 0
        with av.open(path) as container:
            stream = container.streams.video[0]
            result = result._replace(start_seconds=result.start_seconds - float(stream.start_time * stream.time_base))
            nominal = result.start_seconds + np.arange(len(result.frames)) / 25
    # What a lossy coder puts before the first sample is sound to the file, up to a frame of it.
    assert max(starts) - 0.03 < result.start_seconds < max(starts) + 0.0015

    nearest = frame_seconds[np.abs(frame_seconds - nominal[:, None]).argmin(1)]
    assert np.all(np.abs(np.abs(shown - nominal) - np.abs(nearest - nominal)) <= TICK_SECONDS)  # each is the nearest, ...
    gaps = np.diff(frame_seconds)
    assert np.abs(shown - nominal).max() <= max(gaps) / 2 + TICK_SECONDS  # ... hence off by half a frame at most

    assert len(result.waveform) == round(len(result.frames) / 25 * 16000)
    quarter = len(result.waveform) // 4
    for part in (slice(0, quarter), slice(-quarter, None)):
        assert abs(sound_offset_ms(result, part=part)) <= 1.0
    common = min(frame_seconds[-1] + gaps[-1], starts[1] + SECONDS) - max(starts)
    assert abs(len(result.frames) - 25 * common) <= 2


def test_hole_in_the_sound_is_silent(tmp_path):
    path = make_file(tmp_path / 'a.mkv', audio='pcm_s16le', hole=(0.6, 0.9))
    waveform = media.read_media(path, media.MediaOptions()).waveform
    silent = np.flatnonzero(np.convolve(np.abs(waveform.astype(int)), np.ones(80), 'valid') == 0) / 16000
    assert 0.6 <= silent.min() < 0.63 and 0.88 < silent.max() <= 0.92  # packets of 23 ms are whole


def half_lit(seconds):
    """uint8 [48, 80, 3], white above, black below."""
    return np.repeat(np.array([255, 0], np.uint8), 24)[:, None, None] * np.ones((1, 80, 3), np.uint8)


def set_display_matrix(path, a, b, c, d):
    with open(path, 'r+b') as file:
        data = file.read()
        file.seek(data.index(b'tkhd') + 4 + 40)  # of the first track, the video
        file.write(np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], '>i4').tobytes())


@pytest.mark.parametrize('matrix, lit', [
    ((1, 0, 0, 1), 'top'), ((0, 1, -1, 0), 'right'), ((-1, 0, 0, -1), 'bottom'), ((0, -1, 1, 0), 'left'),
    ((1, 0, 0, -1), 'bottom'), ((0, 1, 1, 0), 'left'),
])
def test_frames_are_upright(matrix, lit, tmp_path):
    path = make_file(tmp_path / 'a.mp4', picture=half_lit, frame_seconds=CFR[:10])
    set_display_matrix(path, *matrix)
    result = media.read_media(path, media.MediaOptions(short_side=24))
    image = np.asarray(Image.open(io.BytesIO(result.frames[0])).convert('L')).astype(int)
    assert image.shape == (result.height, result.width) == ((24, 40) if lit in ('top', 'bottom') else (40, 24))
    light = {
        'top': image[:12].mean() - image[-12:].mean(), 'bottom': image[-12:].mean() - image[:12].mean(),
        'left': image[:, :12].mean() - image[:, -12:].mean(), 'right': image[:, -12:].mean() - image[:, :12].mean(),
    }
    assert max(light, key=light.get) == lit and light[lit] > 230


def test_pixels_are_square_and_nothing_is_enlarged(tmp_path):
    path = make_file(tmp_path / 'a.mkv', picture=half_lit, frame_seconds=CFR[:5], aspect=fractions.Fraction(3, 2))
    sizes = {}
    for short_side in (0, 24, 1000):
        result = media.read_media(path, media.MediaOptions(short_side=short_side))
        sizes[short_side] = result.height, result.width
    assert sizes == {0: (48, 120), 24: (24, 60), 1000: (48, 120)}


@pytest.mark.parametrize('starts', [(0.0, 0.0), (0.0, 0.4), (0.4, 0.0)])
def test_max_seconds(starts, tmp_path):
    path = make_file(tmp_path / 'a.mkv', frame_seconds=[starts[0] + t for t in CFR], audio_start=starts[1], audio='pcm_s16le')
    whole = media.read_media(path, media.MediaOptions())
    cut = media.read_media(path, media.MediaOptions(max_seconds=0.8))
    assert cut.start_seconds == pytest.approx(0.4 if any(starts) else 0.0, abs=1e-3)
    assert cut.frames == whole.frames[:20] and len(cut.waveform) == 12800
    assert np.abs(cut.waveform[:12700].astype(int) - whole.waveform[:12700]).max() <= 1  # the resampler's end is its own


def read_set(prefix):
    """All records of a set, in the order of its shards."""
    paths = sorted(tf.io.gfile.glob(str(prefix) + '-*'))
    return [records.parse(data) for data in tf.data.TFRecordDataset(paths)]


def read_report(prefix):
    with open(f'{prefix}.report.csv', encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder of classes with good and bad files."""
    root = tmp_path_factory.mktemp('videos')
    for name in ('bark', 'clap', 'notes'):
        (root / name).mkdir()
    for name in ('bark/one.mp4', 'bark/two.MP4', 'clap/one.mp4', 'clap/same.mkv', 'clap/same.mov'):
        make_file(root / name, frame_seconds=CFR[:25], audio_seconds=1.0)
    make_file(root / 'clap' / 'mute.mp4', frame_seconds=CFR[:5], audio=None)
    make_file(root / 'clap' / 'apart.mkv', frame_seconds=CFR[:5], audio_start=1.0, audio_seconds=0.2)
    (root / 'clap' / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    (root / 'clap' / 'cut.mp4').write_bytes((root / 'bark' / 'one.mp4').read_bytes()[:9000])
    with av.open(str(root / 'clap' / 'deaf.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=16000, layout='mono')
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (root / 'notes' / 'readme.txt').write_text('no video')
    return root


@pytest.fixture(scope='module')
def written(folder, tmp_path_factory):
    prefix = tmp_path_factory.mktemp('out') / 'set'
    return prefix, write.write_records(str(folder), str(prefix), short_side=32, shards=2, num_workers=2)


def test_folder(written):
    prefix, summary = written
    found = {record.example_id.numpy().decode(): record for record in read_set(prefix)}
    assert sorted(found) == ['bark/one', 'bark/two', 'clap/one', 'clap/same.mkv', 'clap/same.mov']
    labels = {name: (list(r.label_index.numpy()), [s.decode() for s in r.label_string.numpy()]) for name, r in found.items()}
    assert labels['bark/two'] == ([0], ['bark']) and labels['clap/one'] == ([1], ['clap'])
    with open(f'{prefix}.labels.txt', encoding='utf-8') as file:
        assert file.read() == 'bark\nclap\n'
    record = found['bark/one']
    assert record.frames.shape[0] == 25 and record.waveform.shape[0] == 16000
    assert record.frame_rate == 25.0 and record.sample_rate == 16000.0
    np.testing.assert_allclose(record.frame_seconds, np.arange(25) / 25, atol=1e-6)
    assert [read_picture(frame) for frame in record.frames.numpy()] == pytest.approx(CFR[:25])

    with open(records.summary_path(str(prefix)), encoding='utf-8') as file:
        assert json.load(file) == summary
    assert summary['records'] == 5 and summary['shards'] == 2 and summary['duration_seconds'] == pytest.approx(5.0)
    assert summary['skipped'] == {'unreadable': 2, 'no_video': 1, 'no_audio': 1, 'too_short': 1}
    assert not os.path.exists(f'{prefix}.writing')


def test_report_lists_every_file_once(written):
    report = {line['path']: line for line in read_report(written[0])}
    assert len(report) == len(read_report(written[0])) == 10
    reasons = {path: line['reason'] for path, line in report.items()}
    assert reasons == {
        'bark/one.mp4': '', 'bark/two.MP4': '', 'clap/one.mp4': '', 'clap/same.mkv': '', 'clap/same.mov': '',
        'clap/mute.mp4': 'no_audio', 'clap/apart.mkv': 'too_short', 'clap/noise.mp4': 'unreadable',
        'clap/cut.mp4': 'unreadable', 'clap/deaf.mp4': 'no_video',
    }
    assert (report['bark/one.mp4']['status'], report['bark/one.mp4']['frames']) == ('written', '25')
    assert float(report['bark/one.mp4']['seconds']) == 1.0
    assert all(line['detail'] for line in report.values() if line['status'] == 'skipped')


def test_worker_count_changes_no_byte(folder, written, tmp_path):
    write.write_records(str(folder), str(tmp_path / 'set'), short_side=32, shards=2, num_workers=1)
    for name in os.listdir(written[0].parent):
        assert (tmp_path / name).read_bytes() == (written[0].parent / name).read_bytes(), name


def test_csv(folder, tmp_path):
    table = folder / 'list.csv'
    table.write_text('colour,video_path,size\nred,bark/one.mp4,2\n,clap/one.mp4,10\nblue,clap/gone.mp4,3\n')
    summary = write.write_records(str(table), str(tmp_path / 'a'), short_side=32, audio_encoding='float', dataset_name='mine')
    assert summary['skipped'] == {'missing': 1} and summary['labels'] == {'blue': 0, 'red': 1}
    found = {record.example_id.numpy().decode(): record for record in read_set(tmp_path / 'a')}
    assert list(found['bark/one'].label_string.numpy()) == [b'red'] and list(found['bark/one'].label_index.numpy()) == [1]
    assert found['clap/one'].label_string.shape == (0,)
    expected = media.read_media(str(folder / 'bark' / 'one.mp4'), media.MediaOptions(short_side=32))
    np.testing.assert_array_equal(found['bark/one'].waveform, expected.waveform)
    assert [line['path'] for line in read_report(tmp_path / 'a')] == ['bark/one.mp4', 'clap/gone.mp4', 'clap/one.mp4']

    assert [source.label for source in write.find_sources(str(table), 'size')] == ['2', '3', '10']
    table.write_text(f'video_path\n{folder}/bark/one.mp4\n')
    assert [source.label for source in write.find_sources(str(table))] == ['']


def test_mistakes_are_explained(folder, tmp_path):
    table = tmp_path / 'list.csv'
    output = str(tmp_path / 'out')

    def message(table_text=None, input_path=None, output=output, **options):
        if table_text is not None:
            table.write_text(table_text)
        with pytest.raises(UserError) as caught:
            write.write_records(str(input_path or table), output, **options)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    assert 'gone' in message(input_path=tmp_path / 'gone')
    assert '.mp4' in message(input_path=folder / 'notes')
    assert 'video_path' in message('path,label\na.mp4,1\n')
    assert 'colour, size' in message('video_path,colour,size\na.mp4,1,2\n', label_column='shape')
    assert 'line 3' in message('video_path\na.mp4\na.mp4\n')
    assert 'only the first line' in message('video_path\n')
    assert 'UTF-8' in message(input_path=folder / 'clap' / 'noise.mp4')
    assert '--label_column' in message(input_path=folder, label_column='colour')
    assert '--shards=99' in message(input_path=folder, shards=99)
    assert '--short_side=3' in message(input_path=folder, short_side=3)
    assert '--audio_encoding=mp3' in message(input_path=folder, audio_encoding='mp3')
    assert '--output=' in message(input_path=folder, output=str(tmp_path))
    (tmp_path / 'file').write_text('')
    assert 'cannot be written' in message(input_path=folder, output=str(tmp_path / 'file' / 'set'))
    (tmp_path / 'out-00000-of-00007').write_text('')
    assert 'out-00000-of-00007' in message(input_path=folder)


def test_command_line(tmp_path):
    (tmp_path / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(5000))
    output = tmp_path / 'new' / 'set'
    command = [sys.executable, '-m', 'tfrecords_tools.write', f'--input={tmp_path}', f'--output={output}']
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 1 and '0 written, 1 skipped (1 unreadable)' in done.stdout
    assert 'no record could be made' in done.stderr and 'Traceback' not in done.stderr
    assert os.listdir(output.parent) == ['set.report.csv']
    done = subprocess.run([*command, '--fps=0'], capture_output=True, text=True, cwd=root)
    assert done.returncode == 2 and '--fps=0' in done.stderr and 'Traceback' not in done.stderr


def test_workers_start_without_tensorflow():
    code = '(__import__("avts_tf.media"), "tensorflow" in __import__("sys").modules)[1]'
    assert list(workers.run_in_order(eval, [code], 1, 60.0)) == [(False, None)]


def test_dead_and_hanging_workers_cost_one_task_each():
    tasks = [
        '1 + 1', '__import__("os")._exit(7)', '__import__("os").abort()', '__import__("time").sleep(60)', '[][0]',
        '"x" * 10**6', *(str(i) for i in range(20)),
    ]
    begin = time.monotonic()
    outcomes = list(workers.run_in_order(eval, tasks, 2, 1.0))
    assert time.monotonic() - begin < 15
    assert outcomes[0] == (2, None) and outcomes[5] == ('x' * 10**6, None) and outcomes[6:] == [(i, None) for i in range(20)]
    failures = [failure for _, failure in outcomes[1:5]]
    assert [reason for reason, _ in failures] == ['crashed', 'crashed', 'timeout', 'crashed']
    assert ['exit code 7' in failures[0][1], 'SIGABRT' in failures[1][1], 'IndexError' in failures[3][1]] == [True] * 3


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with the awkward files')
def test_awkward_files(tmp_path):
    folder = os.path.join(os.environ['AVTS_DATA'], 'awkward')
    summary = write.write_records(folder, str(tmp_path / 'a'), short_side=32)
    assert summary['skipped'] == {'no_video': 2, 'no_audio': 4} and summary['records'] == 9
