"""Record shards to batches of pairs: shuffled, parsed, sampled, decoded, augmented, batched.

The batches are a function of the records, the configuration and the epoch. Every record that a pass reads has a position in the
epoch, and each clip of a batch tells its own: to go on after a batch, `PipelineState.start` is set to the position after its last
clip, and what lies before is read but neither parsed nor decoded.

What cannot be used is counted when a later record, or the end, has come through: a record that is still at work, when a pipeline
is dropped say, is not counted, and neither is one before the position that was started from.
"""

import os

import tensorflow as tf

from avts_tf.data import records
from avts_tf.data.sampling import (
    NEGATIVES,
    Kind,
    clip_samples,
    draw_kinds,
    fill_easy,
    sample_clip,
    sounds_at,
    usable_frames,
    window_frames,
)
from avts_tf.errors import UserError

# Why a record is not used. 'lost' is what a damaged or vanished file no longer holds.
UNREADABLE, BAD_PICTURE, LOST = 'unreadable', 'bad_picture', 'lost'
CONTENT_REASONS = ('no_frames', 'no_frame_times', 'bad_frame_times', 'no_audio', 'bad_sound', 'other_sample_rate', 'too_short')
NAMED_SKIPS = 5  # ids that are kept of each reason
PARALLEL_CLIPS = os.cpu_count()  # TensorFlow's tuning does not see through a stage that leaves errors out
EVAL_BATCH_SIZE = 32  # clips among which evaluation finds its easy negatives: one number, so that all measure the same pairs
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the grey of an RGB pixel
CROP_SCALES = 4  # the multi-scale crop draws among this many sizes, evenly spaced
MAX_PIXELS = 2**25  # of a frame, a little more than 8K video has: decoding one that claims more would take all memory
END = 2**63 - 1  # a position after all others
# Nothing here needs AutoGraph, which would rewrite every function before it is traced: seconds of each start.
in_plain_tensorflow = tf.autograph.experimental.do_not_convert
PASS_BITS = 40  # a position is the number of the pass, shifted by this, plus the number of the record in it


class PipelineState:
    """What a pipeline reads anew in every epoch, and what it could not use.

    Attributes:
        epoch: int64 variable, part of every seed.
        mix: float32 [negatives] variable, the part of each of `sampling.NEGATIVES`; easy only to begin with.
        start: int64 variable, position that an epoch starts from; 0 is its beginning.
    """

    def __init__(self):
        with tf.device('CPU:0'):
            self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.mix = tf.Variable([float(kind == Kind.EASY) for kind in NEGATIVES], trainable=False)
            self.start = tf.Variable(0, dtype=tf.int64, trainable=False)
            # From position to reason, count and name. A record stands here from before it is looked at until it is found good,
            # so that one which makes an operation fail is told too.
            self._faults = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, '')
            # Position up to which all records have been found good or not: what stands above may still be at work.
            self._settled = tf.Variable(-1, dtype=tf.int64, trainable=False)

    def note(self, position, reason, name, count=1):
        """Notes, inside a graph, what is wrong at a position, in place of what was noted there; returns the operation."""
        count = tf.strings.as_string(tf.convert_to_tensor(count))
        return self._faults.insert(position, tf.strings.join([reason, count, name], '\t'))

    def clear(self, position):
        """Takes back, inside a graph, what was noted of a position; returns the operation."""
        return self._faults.remove(tf.reshape(position, [1]))

    def settle(self, position):
        """Notes, inside a graph, that all records up to a position are done; returns the operation."""
        return self._settled.assign(position)

    def reset_counts(self):
        """Forgets the records that were not used."""
        self._faults.remove(self._faults.export()[0])
        self._settled.assign(-1)

    def skips(self) -> dict[str, tuple[int, list[str]]]:
        """The records that could not be used, of those that have been met since the last reset.

        Returns:
            Dict from reason to (count, ids of the first `NAMED_SKIPS`), in the order of the records. Batches are made ahead of
            those that are asked for, so that records after the last batch may be among them.
        """
        return self._told(self._settled.numpy())

    def first_fault(self):
        """(reason, name) of the first record that failed where a bad record stops the pipeline; None if none has."""
        # The error comes in order: of what is noted, only the first was found bad; the others were at work.
        for reason, (_, names) in self._told(END).items():
            return reason, names[0]
        return None

    def _told(self, settled):
        positions, values = (tensor.numpy() for tensor in self._faults.export())
        skips = {}
        for position, value in sorted(zip(positions, values, strict=True)):
            if position <= settled:
                reason, count, name = value.decode(errors='replace').split('\t', 2)
                skips = merge_skips(skips, {reason: (int(count), [name])})
        return skips

    def describe_skips(self):
        """One sentence on the records that were not used, or ''."""
        return describe_skips(self.skips())


def merge_skips(first, second):
    """Two results of `PipelineState.skips`, one after the other, as one."""
    merged = dict(first)
    for reason, (count, names) in second.items():
        before, named = merged.get(reason, (0, []))
        merged[reason] = (before + count, list(dict.fromkeys([*named, *names]))[:NAMED_SKIPS])
    return merged


def describe_skips(skips):
    """One sentence on a result of `PipelineState.skips`, or ''."""
    parts = [f'{count} {reason} (first: {", ".join(map(repr, names))})' for reason, (count, names) in skips.items()]
    return 'records skipped: ' + '; '.join(parts) if parts else ''


@in_plain_tensorflow
def make_dataset(pattern, config, *, training=True, state=None, passes=None, batch_size=None, flag='records',
                 shards=None, on_bad_record='skip'):
    """Batches of pairs from record shards.

    Args:
        pattern: glob(s) of record files.
        config: `Config`.
        training: True shuffles, augments and draws kinds by the mix in `state`, anew in every epoch. False gives the same
            batches each time: centre crops, and K = 4 with one window of each kind.
        state: `PipelineState`; None makes one with easy negatives.
        passes: times to go through the records, other windows each time; default `passes_per_epoch`, or 1 for evaluation.
        batch_size: clips in a batch; default that of the configuration, or 32 for evaluation. A last batch that is not full is
            left out when training.
        flag: name of the flag that the pattern comes from, for messages.
        shards: result of `records.find_shards` for the pattern, where it is known already.
        on_bad_record: 'skip' leaves out what cannot be used, and tells it in `state`; 'stop' fails with a TensorFlow error, and
            `state.first_fault` tells what was wrong.

    Returns:
        `tf.data.Dataset`, whose `cardinality` is that with all records used, of dicts: `video` uint8 [B, frames, size, size, 3];
        `audio` int16 [B, K, samples]; `label` float32
        [B, K], 1 in sync; `kind` int32 [B, K], a `sampling.Kind`; `example_hash` int64 [B] and `audio_hash` int64
        [B, K], which clips picture and sound come from; `video_start_seconds` float64 [B], `audio_start_seconds` float64
        [B, K]; `end` int64 [B], position after the batch; `replaced` int32 [B], negatives that became easy because the clip is
        too short for them; when training with SpecAugment `spec_mask` int32 [B, K].

    Raises:
        UserError: no record file matches, one is damaged, or there are fewer records than a batch (or than 2) needs.
    """
    # Before a training a damaged file is refused; what is measured on what is left of it tells what is lost.
    shards = shards or records.find_shards(pattern, flag, tolerant=not training)
    state = state or PipelineState()
    batch_size = batch_size or (config.train.batch_size if training else EVAL_BATCH_SIZE)
    passes = passes or (config.train.passes_per_epoch if training else 1)
    total = sum(count for _, count in shards)
    if total < 2:
        raise UserError(f'--{flag}={pattern}: 1 record, but an easy negative needs the sound of another; give at least 2.')
    if training and total * passes < batch_size:
        raise UserError(
            f'--{flag}={pattern}: {total} records make no full batch of --batch_size={batch_size}; lower it, or raise '
            '--passes_per_epoch.'
        )
    skip = on_bad_record == 'skip'

    def one_pass(number):
        over_all = (state.epoch.read_value() * passes if training else 0) + number
        return read_pass(shards, config, state, number, over_all, skip)

    clips = _clips(tf.data.Dataset.range(passes).flat_map(one_pass), config, state, skip,
                   lambda record, usable, number: _clip(record, usable, number, config, training, state))

    def finish(batch):
        position = batch.pop('position')
        return {**fill_easy(batch), 'end': tf.fill(tf.shape(position), position[-1] + 1)}

    dataset = ordered(clips.batch(batch_size, drop_remainder=training).map(finish, tf.data.AUTOTUNE))
    # TensorFlow cannot tell it, and asserting it would fail where records are skipped. Keras takes an end that it was not told of
    # for data that ran out, and warns.
    batches = total * passes // batch_size if training else -(-total * passes // batch_size)
    dataset.cardinality = lambda: tf.constant(batches, tf.int64)
    return dataset


def _clips(elements, config, state, skip, cut):
    """Elements of `read_pass` to dicts of tensors, with their `position`; what cannot be used is noted in `state`.

    Args:
        elements: `tf.data.Dataset` of what `unpack` reads.
        config: `Config`.
        state: `PipelineState`.
        skip: whether what cannot be used is left out, or fails.
        cut: function (record, number of its usable frames, number of the pass over all epochs) -> dict of tensors.
    """
    def clip(*element):
        position, number, place, serialized = unpack(element)
        # What can fail waits for the note that says so.
        with tf.control_dependencies([state.note(position, UNREADABLE, place)]):
            record = records.parse(tf.identity(serialized))
        usable = usable_frames(record, config)
        reason = _content_fault(record, usable, config)
        with tf.control_dependencies([state.note(position, tf.gather([*CONTENT_REASONS, BAD_PICTURE], reason), record.example_id)]):
            fine = _check(reason == len(CONTENT_REASONS))
        with tf.control_dependencies([fine]):
            parts = cut(record, tf.identity(usable), number)
        with tf.control_dependencies(list(parts.values())), tf.control_dependencies([state.clear(position)]):
            return {'position': tf.identity(position), **{name: tf.identity(value) for name, value in parts.items()}}

    clips = elements.map(clip, PARALLEL_CLIPS)
    if not skip:
        return clips

    def settled(parts):
        with tf.control_dependencies([state.settle(parts['position'])]):
            return {name: tf.identity(value) for name, value in parts.items()}

    clips = clips.ignore_errors().map(settled)
    # Of this nothing comes but the word that the end is reached.
    end = tf.data.Dataset.from_tensors(END).filter(lambda end: state.settle(end) < 0).flat_map(lambda _: clips)
    return clips.concatenate(end)


def ordered(dataset):
    """The end of every pipeline: the same order each time, whatever the number of threads and devices."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def steps_per_epoch(shards, config):
    """Steps of an epoch if no record is skipped; `shards` is the result of `records.find_shards`."""
    return sum(count for _, count in shards) * config.train.passes_per_epoch // config.train.batch_size


def read_pass(shards, config, state, number, number_over_all, skip):
    """Serialised records of one pass, in an order that follows from the seed and the pass, from `state.start` on.

    Args:
        shards: result of `records.find_shards`.
        config: `Config`.
        state: `PipelineState`.
        number: int64 scalar, the pass in this epoch.
        number_over_all: int64 scalar, the pass counted over all epochs.
        skip: whether damage to a file is noted in `state`, or fails.

    Returns:
        `tf.data.Dataset` of what `unpack` reads.
    """
    # This function is traced into a graph of its own, so that this sets no global state: it keeps the caller's seed out.
    tf.random.set_seed(1)
    seed = tf.cast(config.train.seed, tf.int64) * 1_000_003 + number_over_all + 1
    files = tf.data.Dataset.from_tensor_slices(([path for path, _ in shards], [count for _, count in shards])).enumerate()
    files = files.shuffle(len(shards), seed=seed, reshuffle_each_iteration=False)

    def read(index, file):
        path, count = file
        count = tf.cast(count, tf.int64)
        # The range is counted first, so that a file which cannot be opened ends after as many failures as it should hold records.
        whole = tf.data.Dataset.zip((
            tf.data.Dataset.range(count), tf.data.Dataset.from_tensors(path).repeat(), tf.data.TFRecordDataset(path)))
        if skip:
            whole = whole.ignore_errors()
        end = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), path, ''))

        def is_record(seen, item):
            def at_end():
                lost = count - seen
                key = -1 - tf.bitwise.left_shift(number, PASS_BITS) - index
                noted = tf.cond(lost > 0, lambda: _after(state.note(key, LOST, path, lost), True), lambda: tf.constant(False))
                with tf.control_dependencies([] if skip else [_check(~noted)]):
                    return noted & False
            return tf.cond(item[0] >= 0, lambda: tf.constant(True), at_end)

        return whole.concatenate(end).enumerate().filter(is_record)

    elements = files.interleave(
        read, cycle_length=min(len(shards), 8), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    elements = elements.shuffle(config.train.shuffle_records, seed=seed, reshuffle_each_iteration=False)
    start = state.start.read_value()
    first, done = tf.bitwise.right_shift(start, PASS_BITS), tf.bitwise.bitwise_and(start, 2**PASS_BITS - 1)
    done = tf.where(number == first, done, tf.where(number < first, tf.constant(-1, tf.int64), 0))  # -1 skips all, unread
    numbers = tf.data.Dataset.from_tensors((number, number_over_all)).repeat()
    return tf.data.Dataset.zip((numbers, elements.enumerate().skip(done)))


def unpack(element):
    """(position, number of the pass over all epochs, file and number in it, serialised record) of an element of `read_pass`."""
    (number, number_over_all), (index, (_, (record, path, serialized))) = element
    place = tf.strings.join([path, ': record ', tf.strings.as_string(record)])
    return tf.bitwise.left_shift(number, PASS_BITS) + index, number_over_all, place, serialized


def _after(operation, value):
    """A value that is there after an operation."""
    with tf.control_dependencies([operation]):
        return tf.constant(value)


def _content_fault(record, usable, config):
    """Index into `CONTENT_REASONS` of what keeps a record from being used, their number if nothing does: int64 scalar."""
    seconds = record.frame_seconds
    steps = seconds[1:] - seconds[:-1]
    # A hole as long as a window could be filled with one picture.
    in_order = tf.reduce_all(tf.math.is_finite(seconds)) & tf.reduce_all((steps >= 0.0) & (steps < config.clip.window_seconds))
    conditions = [
        tf.size(record.frames) == 0,
        (tf.size(record.frames) > 1) & (tf.reduce_max(seconds) <= 0.0),
        ~in_order,
        tf.size(record.waveform) == 0,
        ~record.finite_sound,
        tf.round(record.sample_rate) != config.clip.sample_rate,
        usable == 0,
    ]
    return tf.argmax(tf.stack([*conditions, tf.constant(True)]))


def _hash(record):
    return tf.strings.to_hash_bucket_fast(record.example_id, 2**62)


def _clip_seed(record, number, config):
    """The seed of a record in a pass, which counts over all epochs: int32 [2]."""
    seed = tf.stack([tf.constant(config.train.seed, tf.int64), number])
    return tf.random.fold_in(tf.cast(seed, tf.int32), tf.cast(_hash(record) % (2**31 - 1), tf.int32))


def _clip(record, usable, number, config, training, state):
    """One record to one clip with its audio windows."""
    hashed = _hash(record)
    seeds = tf.random.split(_clip_seed(record, number, config), 5)
    kinds = room_for = tf.range(len(Kind))
    if training:
        kinds, room_for = draw_kinds(seeds[0], state.mix, config.pairs.audio_windows)
    clip = sample_clip(record, usable, kinds, room_for, seeds[1], config)
    frames = tf.gather(record.frames, clip.pop('frame_index'))
    clip['video'] = _decode(frames, config, seeds[2] if training else None)
    clip['example_hash'] = hashed
    clip['seed'] = seeds[3]
    if training and config.augment.spec_augment:
        clip['spec_mask'] = tf.random.stateless_uniform(kinds.shape, seeds[4], 0, 2**31 - 1, tf.int32)
    return clip


def _check(condition):
    """An operation that fails where a condition does not hold; lighter than `tf.debugging.Assert`, which is a conditional."""
    return tf.raw_ops.Assert(condition=condition, data=['the record cannot be used'])


def is_frame_size(height, width):
    """Whether pictures are no larger than a frame may be: int32 of any shape, twice -> bool of the same."""
    return height <= MAX_PIXELS // tf.maximum(width, 1)


def _decode(frames, config, seed):
    """Decodes and crops the frames of a window: string [frames] -> uint8 [frames, size, size, 3].

    All frames of a clip are cropped, mirrored and coloured alike. Without a seed the crop is the largest centred square. It
    fails where a frame is no JPEG, is not of the size of the first, or is larger than `MAX_PIXELS`.
    """
    augment, size = config.augment, config.clip.frame_size
    shape = tf.io.extract_jpeg_shape(frames[0])[:2]
    height, width = tf.unstack(shape)
    shorter = tf.minimum(height, width)
    if seed is None:
        side = shorter
        top, left = (height - side) // 2, (width - side) // 2
    else:
        seeds = tf.random.split(seed, 5)
        step = tf.random.stateless_uniform([], seeds[0], 0, CROP_SCALES, tf.int32)
        scale = 1.0 - (1.0 - augment.crop_scale_min) * tf.cast(step, tf.float32) / (CROP_SCALES - 1)
        side = tf.cast(tf.round(tf.cast(shorter, tf.float32) * scale), tf.int32)
        if augment.crop_scale_min < 1.0:
            top = tf.random.stateless_uniform([], seeds[1], 0, height - side + 1, tf.int32)
            left = tf.random.stateless_uniform([], seeds[2], 0, width - side + 1, tf.int32)
        else:
            top, left = (height - side) // 2, (width - side) // 2
    with tf.control_dependencies([_check(is_frame_size(height, width))]):
        window = tf.stack([top, left, side, side])
    pixels, shapes = tf.map_fn(
        lambda jpeg: (tf.io.decode_and_crop_jpeg(jpeg, window, channels=3), tf.io.extract_jpeg_shape(jpeg)[:2]), frames,
        fn_output_signature=(tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int32)),
    )
    with tf.control_dependencies([_check(tf.reduce_all(shapes == shape))]):
        pixels = tf.identity(pixels)
    pixels = tf.image.resize(pixels, [size, size])                               # float32 in [0, 255]
    if seed is not None:
        if augment.flip:
            mirrored = tf.random.stateless_uniform([], seeds[3]) < 0.5
            # As one tall picture, whose rows TensorFlow mirrors fast.
            tall = tf.reshape(pixels, [-1, size, 3])
            pixels = tf.reshape(tf.cond(mirrored, lambda: tf.reverse(tall, [1]), lambda: tall), tf.shape(pixels))
        if augment.colour_jitter > 0:
            pixels = tf.reshape(_jitter(pixels, augment.colour_jitter, seeds[4]), [-1, size, size, 3])
    pixels = tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    return tf.ensure_shape(pixels, [config.clip.frames, size, size, 3])


def _jitter(pixels, most, seed):
    """Pixels in [0, 255] with other colours, each frame alike: float32 [frames, height, width, 3] -> float32 [..., 3].

    Brightness is moved by up to `most` of the full range; contrast, the distance from the clip's mean grey, and saturation, that
    from the pixel's own grey, are multiplied by up to 1 +- `most`.
    """
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform([3], seed, -most, most))
    grey = tf.constant([[weight] * 3 for weight in LUMA])  # [3, 3]: pixels @ grey are as bright and have no colour
    mean = tf.linalg.matvec(grey, tf.reduce_mean(pixels[::4], [0, 1, 2]), transpose_a=True)  # frames of a clip are alike
    # All three are linear: one matrix for the colours of a pixel.
    factor = (1.0 + contrast) * (1.0 + saturation)
    matrix = factor * tf.eye(3) + (1.0 + contrast - factor) * grey
    return tf.linalg.matmul(tf.reshape(pixels, [-1, 3]), matrix) + (255.0 * brightness - contrast * mean)


@in_plain_tensorflow
def make_labelled_dataset(pattern, config, class_of, *, windows=0, streams=('video', 'audio'), state=None, flag='records'):
    """Batches of windows in sync, each with the class of its record.

    Args:
        pattern: glob(s) of record files.
        config: `Config`.
        class_of: dict from example id to class index; records that it lacks are left out.
        windows: 0 for training: a window of each record at a random place, `passes_per_epoch` times an epoch, shuffled and
            augmented, anew in every epoch; a last batch that is not full is left out. Otherwise this many windows of each
            record, equally spaced from its first to its last, with the centre crop, one record at a time.
        streams: what to bring; what is not asked for is not decoded.
        state: `PipelineState`, which gives the epoch and counts the records that no window could be taken from.
        flag: name of the flag that the pattern comes from, for messages.

    Returns:
        `tf.data.Dataset` of (inputs, class index): inputs a dict of `video` uint8 [B, frames, size, size, 3] and `audio` int16
        [B, samples], with int32 [B]. B is the batch size for training, else `windows`.
    """
    shards = records.find_shards(pattern, flag)
    training, state = not windows, state or PipelineState()
    passes = config.train.passes_per_epoch if training else 1
    entries = tf.lookup.KeyValueTensorInitializer(list(class_of), tf.constant(list(class_of.values()), tf.int32))
    table = tf.lookup.StaticHashTable(entries, -1)

    def window(record, first, seed):
        inputs = {}
        if 'video' in streams:
            inputs['video'] = _decode(tf.gather(record.frames, window_frames(record.frame_seconds, first, config)), config, seed)
        if 'audio' in streams:
            inputs['audio'] = sounds_at(record, record.frame_seconds[first], config)
        return inputs

    def random_window(record, usable, number):
        seeds = tf.random.split(_clip_seed(record, number, config), 2)
        first = tf.random.stateless_uniform([], seeds[0], 0, usable, tf.int64)
        return {**window(record, first, seeds[1]), 'class': table.lookup(record.example_id)}

    def spaced_windows(record, usable, number):
        firsts = tf.linspace(tf.constant(0.0, tf.float64), tf.cast(usable - 1, tf.float64), windows)
        kinds = {'video': tf.uint8, 'audio': tf.int16}
        inputs = tf.map_fn(lambda first: window(record, first, None), tf.cast(tf.round(firsts), tf.int64),
                           fn_output_signature={name: kinds[name] for name in streams})
        return {**inputs, 'class': tf.fill([windows], table.lookup(record.example_id))}

    def one_pass(number):
        over_all = (state.epoch.read_value() * passes if training else 0) + number
        return read_pass(shards, config, state, number, over_all, skip=True)

    elements = tf.data.Dataset.range(passes).flat_map(one_pass)
    elements = elements.filter(lambda *element: table.lookup(records.parse_labels(unpack(element)[3])[0]) >= 0)
    clips = _clips(elements, config, state, True, random_window if training else spaced_windows)
    if training:
        clips = clips.batch(config.train.batch_size, drop_remainder=True)
    return ordered(clips.map(lambda clip: ({name: clip[name] for name in streams}, clip['class'])))


@in_plain_tensorflow
def make_offset_dataset(pattern, config, offsets_seconds, *, state=None, flag='eval_records'):
    """The middle video window of each record, with its sound shifted by given offsets; one record at a time.

    Args:
        pattern: glob(s) of record files.
        config: `Config`.
        offsets_seconds: float [O], time of the sound's window minus that of the video's.
        state: `PipelineState`, which counts the records that no window could be taken from.
        flag: name of the flag that the pattern comes from, for messages.

    Returns:
        `tf.data.Dataset` of dicts: `video` uint8 [1, frames, size, size, 3]; `audio` int16 [1, O, samples]; `fits` bool [O],
        whether that window lies within the clip; `example_id` string scalar; `label_string` string [L].
    """
    shards = records.find_shards(pattern, flag, tolerant=True)
    state = state or PipelineState()

    def shifted(record, usable, number):
        first = usable // 2
        starts = record.frame_seconds[first] + tf.constant(offsets_seconds, tf.float64)
        first_samples = tf.cast(tf.round(starts * config.clip.sample_rate), tf.int64)
        frames = tf.gather(record.frames, window_frames(record.frame_seconds, first, config))
        return {
            'video': _decode(frames, config, None)[None],
            'audio': sounds_at(record, starts, config)[None],
            'fits': (first_samples >= 0) & (first_samples + config.clip.window_samples <= clip_samples(record)),
            'example_id': record.example_id,
            'label_string': record.label_string,
        }

    zero = tf.constant(0, tf.int64)
    return ordered(_clips(read_pass(shards, config, state, zero, zero, skip=True), config, state, True, shifted))
