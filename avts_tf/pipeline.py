"""Record shards to batches of pairs: shuffled, parsed, sampled, decoded, augmented, batched."""

import tensorflow as tf

from avts_tf import records
from avts_tf.config import UserError
from avts_tf.pairs import clip_samples, draw_kinds, fill_easy, sample_clip, sounds_at, usable_frames, window_frames
from avts_tf.windows import KINDS

SKIP_REASONS = ('no_frames', 'no_frame_times', 'no_audio', 'other_sample_rate', 'too_short')
EVAL_BATCH_SIZE = 32  # clips among which evaluation finds its easy negatives: one number, so that all measure the same pairs
CROP_SCALES = 4  # the multi-scale crop draws among this many sizes, evenly spaced


class PipelineState:
    """What a pipeline reads anew in every epoch, and what it counts.

    Attributes:
        epoch: int64 variable, part of every seed.
        mix: float32 [3] variable, parts of easy, hard and super-hard among the negatives.
        skipped: int64 [len(SKIP_REASONS)] variable, records that no window could be taken from.
        first_skipped: string [len(SKIP_REASONS)] variable, id of the first of each.
        replaced: int64 variable, hard and super-hard negatives that became easy because the clip is too short for them.
    """

    def __init__(self):
        with tf.device('CPU:0'):
            self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.mix = tf.Variable([1.0, 0.0, 0.0], trainable=False)
            self.skipped = tf.Variable(tf.zeros([len(SKIP_REASONS)], tf.int64), trainable=False)
            self.first_skipped = tf.Variable([''] * len(SKIP_REASONS), trainable=False)
            self.replaced = tf.Variable(0, dtype=tf.int64, trainable=False)

    def reset_counts(self):
        """Sets the counts back to nothing."""
        self.skipped.assign(tf.zeros_like(self.skipped))
        self.first_skipped.assign([''] * len(SKIP_REASONS))
        self.replaced.assign(0)

    def skips(self):
        """Dict from reason to (count, id of the first), of the reasons that occurred."""
        counts, firsts = self.skipped.numpy(), self.first_skipped.numpy()
        return {reason: (int(counts[i]), firsts[i].decode()) for i, reason in enumerate(SKIP_REASONS) if counts[i]}

    def describe_skips(self):
        """One sentence on the skipped records, or ''."""
        parts = [f'{count} {reason} (first: {first!r})' for reason, (count, first) in self.skips().items()]
        return 'records skipped: ' + ', '.join(parts) if parts else ''


def make_dataset(pattern, config, *, training=True, state=None, passes=None, batch_size=None, flag='records'):
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

    Returns:
        `tf.data.Dataset` of dicts: `video` uint8 [B, frames, size, size, 3]; `audio` int16 [B, K, samples]; `label` float32
        [B, K], 1 in sync; `kind` int32 [B, K], index into `windows.KINDS`; `example_hash` int64 [B] and `audio_hash` int64
        [B, K], which clips picture and sound come from; `video_start_seconds` float64 [B], `audio_start_seconds` float64
        [B, K]; when training with SpecAugment `spec_mask` int32 [B, K].

    Raises:
        UserError: no record file matches, one is damaged, or there are fewer records than a batch (or than 2) needs.
    """
    shards = records.find_shards(pattern, flag)
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
    dataset = tf.data.Dataset.range(passes).flat_map(lambda p: _one_pass(shards, config, training, state, p))
    dataset = dataset.map(lambda p, serialized: (p, records.parse(serialized)), tf.data.AUTOTUNE)
    dataset = dataset.filter(lambda p, record: _usable(record, config, state))
    dataset = dataset.map(lambda p, record: _clip(record, p, config, training, state), tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size, drop_remainder=training).map(fill_easy, tf.data.AUTOTUNE)
    return _ordered(dataset)


def _ordered(dataset):
    """The end of every pipeline: the same order each time, whatever the number of threads and devices."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def steps_per_epoch(shards, config):
    """Steps of an epoch if no record is skipped; `shards` is the result of `records.find_shards`."""
    return sum(count for _, count in shards) * config.train.passes_per_epoch // config.train.batch_size


def _one_pass(shards, config, training, state, number):
    """Serialised records of one pass as (pass over all epochs, string), in an order that seed and pass give."""
    # This function is a graph of its own, so that this sets no global state: it keeps the caller's seed out of the order.
    tf.random.set_seed(1)
    passes = config.train.passes_per_epoch if training else 1
    number = (state.epoch.read_value() * passes if training else tf.constant(0, tf.int64)) + number
    paths = tf.data.Dataset.from_tensor_slices([path for path, _ in shards])
    order = tf.cast(config.train.seed, tf.int64) * 1_000_003 + number + 1
    paths = paths.shuffle(len(shards), seed=order, reshuffle_each_iteration=False)
    serialized = paths.interleave(
        tf.data.TFRecordDataset, cycle_length=min(len(shards), 8), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    serialized = serialized.shuffle(config.train.shuffle_records, seed=order, reshuffle_each_iteration=False)
    return serialized.map(lambda record: (number, record))


def _usable(record, config, state):
    """Whether a window can be taken from a record; if not, it is counted with its reason."""
    rate = tf.cast(tf.round(record.sample_rate), tf.int32)
    conditions = [
        tf.size(record.frames) == 0,
        (tf.size(record.frames) > 1) & (tf.reduce_max(record.frame_seconds) <= 0.0),
        tf.size(record.waveform) == 0,
        rate != config.clip.sample_rate,
        usable_frames(record, config) == 0,
    ]
    reason = tf.argmax(tf.stack([*conditions, tf.constant(True)]))

    def count():
        state.skipped.scatter_nd_add([[reason]], [tf.constant(1, tf.int64)])
        if_new = tf.where(state.first_skipped[reason] == '', record.example_id, state.first_skipped[reason])
        state.first_skipped.scatter_nd_update([[reason]], [if_new])
        return tf.constant(False)

    return tf.cond(reason < len(SKIP_REASONS), count, lambda: tf.constant(True))


def _hash(record):
    return tf.strings.to_hash_bucket_fast(record.example_id, 2**62)


def _clip_seed(record, number, config):
    """The seed of a record in a pass, which counts over all epochs: int32 [2]."""
    seed = tf.stack([tf.constant(config.train.seed, tf.int64), number])
    return tf.random.fold_in(tf.cast(seed, tf.int32), tf.cast(_hash(record) % (2**31 - 1), tf.int32))


def _clip(record, number, config, training, state):
    """One record to one clip with its audio windows."""
    hashed = _hash(record)
    seeds = tf.random.split(_clip_seed(record, number, config), 5)
    kinds = draw_kinds(seeds[0], state.mix, config.pairs.audio_windows) if training else tf.range(len(KINDS))
    clip = sample_clip(record, kinds, seeds[1], config)
    state.replaced.assign_add(tf.cast(clip.pop('replaced'), tf.int64))
    frames = tf.gather(record.frames, clip.pop('frame_index'))
    clip['video'] = _decode(frames, config, seeds[2] if training else None)
    clip['example_hash'] = hashed
    clip['seed'] = seeds[3]
    if training and config.augment.spec_augment:
        clip['spec_mask'] = tf.random.stateless_uniform(kinds.shape, seeds[4], 0, 2**31 - 1, tf.int32)
    return clip


def _decode(frames, config, seed):
    """Decodes and crops the frames of a window: string [frames] -> uint8 [frames, size, size, 3].

    All frames of a clip are cropped, mirrored and coloured alike. Without a seed the crop is the largest centred square.
    """
    augment, size = config.augment, config.clip.frame_size
    height, width = tf.unstack(tf.io.extract_jpeg_shape(frames[0])[:2])
    shorter = tf.minimum(height, width)
    if seed is None:
        side = shorter
        top, left = (height - side) // 2, (width - side) // 2
    else:
        seeds = tf.random.split(seed, 8)
        step = tf.random.stateless_uniform([], seeds[0], 0, CROP_SCALES, tf.int32)
        scale = 1.0 - (1.0 - augment.crop_scale_min) * tf.cast(step, tf.float32) / (CROP_SCALES - 1)
        side = tf.cast(tf.round(tf.cast(shorter, tf.float32) * scale), tf.int32)
        if augment.crop_scale_min < 1.0:
            top = tf.random.stateless_uniform([], seeds[1], 0, height - side + 1, tf.int32)
            left = tf.random.stateless_uniform([], seeds[2], 0, width - side + 1, tf.int32)
        else:
            top, left = (height - side) // 2, (width - side) // 2
    window = tf.stack([top, left, side, side])
    pixels = tf.map_fn(
        lambda jpeg: tf.io.decode_and_crop_jpeg(jpeg, window, channels=3), frames,
        fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
    )
    pixels = tf.image.resize(pixels, [size, size])                               # float32 in [0, 255]
    if seed is not None:
        if augment.flip:
            mirrored = tf.random.stateless_uniform([], seeds[3]) < 0.5
            pixels = tf.cond(mirrored, lambda: tf.reverse(pixels, [2]), lambda: pixels)
        if augment.colour_jitter > 0:
            pixels = pixels / 255.0
            low, high = 1.0 - augment.colour_jitter, 1.0 + augment.colour_jitter
            pixels = tf.image.stateless_random_brightness(pixels, augment.colour_jitter, seeds[4])
            pixels = tf.image.stateless_random_contrast(pixels, low, high, seeds[5])
            pixels = tf.image.stateless_random_saturation(tf.clip_by_value(pixels, 0.0, 1.0), low, high, seeds[6])
            pixels = pixels * 255.0
    pixels = tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    return tf.ensure_shape(pixels, [config.clip.frames, size, size, 3])



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

    def random_window(record, number):
        seeds = tf.random.split(_clip_seed(record, number, config), 2)
        first = tf.random.stateless_uniform([], seeds[0], 0, usable_frames(record, config), tf.int64)
        return window(record, first, seeds[1])

    def spaced_windows(record):
        firsts = tf.linspace(tf.constant(0.0, tf.float64), tf.cast(usable_frames(record, config) - 1, tf.float64), windows)
        kinds = {'video': tf.uint8, 'audio': tf.int16}
        return tf.map_fn(lambda first: window(record, first, None), tf.cast(tf.round(firsts), tf.int64),
                         fn_output_signature={name: kinds[name] for name in streams})

    dataset = tf.data.Dataset.range(passes).flat_map(lambda p: _one_pass(shards, config, training, state, p))
    dataset = dataset.filter(lambda p, serialized: table.lookup(records.parse_labels(serialized)[0]) >= 0)
    dataset = dataset.map(lambda p, serialized: (p, records.parse(serialized)), tf.data.AUTOTUNE)
    dataset = dataset.filter(lambda p, record: _usable(record, config, state))
    if training:
        dataset = dataset.map(
            lambda p, record: (random_window(record, p), table.lookup(record.example_id)), tf.data.AUTOTUNE)
        dataset = dataset.batch(config.train.batch_size, drop_remainder=True)
    else:
        dataset = dataset.map(
            lambda p, record: (spaced_windows(record), tf.fill([windows], table.lookup(record.example_id))), tf.data.AUTOTUNE)
    return _ordered(dataset)


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
        whether that window lies within the clip; `example_id` string scalar.
    """
    shards = records.find_shards(pattern, flag)
    state = state or PipelineState()

    def shifted(record):
        first = usable_frames(record, config) // 2
        starts = record.frame_seconds[first] + tf.constant(offsets_seconds, tf.float64)
        first_samples = tf.cast(tf.round(starts * config.clip.sample_rate), tf.int64)
        frames = tf.gather(record.frames, window_frames(record.frame_seconds, first, config))
        return {
            'video': _decode(frames, config, None)[None],
            'audio': sounds_at(record, starts, config)[None],
            'fits': (first_samples >= 0) & (first_samples + config.clip.window_samples <= clip_samples(record)),
            'example_id': record.example_id,
        }

    dataset = _one_pass(shards, config, False, state, 0).map(lambda p, serialized: records.parse(serialized), tf.data.AUTOTUNE)
    return _ordered(dataset.filter(lambda record: _usable(record, config, state)).map(shifted, tf.data.AUTOTUNE))
