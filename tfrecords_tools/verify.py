"""Checks record by record what `docs/records.md` promises."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from avts_tf import progress
from avts_tf.data import records, shards
from avts_tf.errors import UserError
from avts_tf.lazy import tf
from tfrecords_tools.facts import facts_of, read_image

# What frame times and durations may be off by: readers take windows to the nearest frame and
# sample.
ALIGNED_SECONDS = 0.001


def verify(patterns: Iterable[str]) -> tuple[int, list[tuple[str, int, str, str]]]:
    """Reads every record of every shard and checks what `docs/records.md` promises.

    Args:
        patterns: paths, globs or folders; several in one, with commas.

    Returns:
        Number of records, and a list of (path, index in the shard, id or '', reason) of the bad
        ones.

    Raises:
        UserError: a pattern matches no file.
    """
    paths = set()
    for part in [part.strip() for pattern in patterns for part in pattern.split(',')] or ['']:
        found = shards.list_files(part)
        if not found:
            raise UserError(None, part or 'no record files given',
                            'no file matches. Give a glob of '
                            'record files, quoted, such as "data/clips-*".')
        paths.update(found)
    bad, count = [], 0
    places: dict[str, tuple[str, int]] = {}  # from id to file and number
    with progress.bar(title='verify', unit='record') as bar:
        for path in sorted(paths):
            try:
                for index, serialized in enumerate(shards.walk(path)):
                    count += 1
                    bar.update()
                    if serialized is None:
                        bad.append((path, index, '', 'the checksum is wrong'))
                        continue
                    name, reason = _fault(serialized)
                    if name and name in places and not reason:
                        other, place = places[name]
                        reason = f'the id is that of record {place} of {other} too'
                    places.setdefault(name, (path, index))
                    if reason:
                        bad.append((path, index, name, reason))
            except shards.Damage as damage:
                count += 1
                bad.append((path, damage.whole, '', damage.reason))
    return count, bad


def _fault(serialized: bytes):
    """(id of a record, what is wrong with it or '')."""
    try:
        example = tf.train.SequenceExample.FromString(serialized)
    except DecodeError:
        return '', 'no tf.train.SequenceExample'
    context, lists = example.context.feature, example.feature_lists.feature_list
    ids = context[records.EXAMPLE_ID].bytes_list.value
    name = ids[0].decode(errors='replace') if ids else ''
    seen = records.FRAMES in lists
    heard = records.AUDIO_BYTES in lists or records.AUDIO_FLOATS in lists
    wanted = [records.SAMPLE_RATE, records.NUM_SAMPLES] if heard else []
    wanted += [records.FRAME_RATE, records.IMAGE_HEIGHT, records.IMAGE_WIDTH] if seen else []
    missing = [] if name else [records.EXAMPLE_ID]
    missing += [key for key in wanted
                if not (context[key].float_list.value or context[key].int64_list.value)]
    if missing:
        return name, f'no {", ".join(missing)}'
    if not seen and not heard:
        keys = records.FRAMES, records.AUDIO_BYTES, records.AUDIO_FLOATS
        return name, f'neither {" nor ".join(keys)}'
    raw = b''.join(value for feature in lists[records.AUDIO_BYTES].feature
                   for value in feature.bytes_list.value)
    if len(raw) % 2:
        return name, f'{len(raw)} bytes of audio, no whole number of 16-bit samples'
    try:
        record = records.as_numpy(records.parse(serialized))
    except tf.errors.InvalidArgumentError as error:
        return name, f'cannot be parsed: {error.message}'
    facts = facts_of(record)
    if heard:
        stated = next(iter(context[records.NUM_SAMPLES].int64_list.value), None)
        if stated is None:
            return name, f'{records.NUM_SAMPLES} is no integer'
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
        return name, (f'a frame is stated {1000 * facts.grid_error_seconds:.1f} ms off the grid of '
                      f'{facts.frame_rate:g} fps')
    if heard and abs(facts.audio_seconds - facts.video_seconds) > ALIGNED_SECONDS:
        return name, (f'{facts.audio_seconds:.4f} s of audio beside {facts.video_seconds:.4f} s of '
                      'video')
    size = tuple(context[key].int64_list.value[0]
                 for key in (records.IMAGE_WIDTH, records.IMAGE_HEIGHT))
    for i, frame in enumerate(record.frames):
        image = read_image(frame)
        try:
            if image is None or image.format != 'JPEG':
                return name, f'frame {i} is no JPEG'
            image.load()
        except (OSError, SyntaxError) as error:  # what Pillow raises on damaged images
            return name, f'frame {i} cannot be decoded: {error}'
        if image.size != size:
            return name, (f'frame {i} is {image.width} x {image.height}, and the record states '
                          f'{size[0]} x {size[1]}')
    return name, ''
