"""Record shards to batches of pairs: read, parsed, sampled, decoded, augmented, batched.

    shards.py      find_shards      which files, and how many records are in each
    aside.py       is_aside         which of them are not trained on
    shares.py      Share            which of them this machine reads, of several
    reading.py     read_pass        serialised records, shuffled, each with its position
    clips.py       cut_clips        records parsed and checked; what cannot be used is noted
    augment.py     change_speed     played faster or slower
    sampling.py    draw_kinds       the kinds of a clip's pairs, by the mix
                   sample_clip      its windows (where they lie: places.py)
    clips.py       mix_clips        only with several clips of a record: these among those of others
    images.py      decode_window    the frames of its video window
    augment.py     change_audio     its audio windows louder or quieter, brighter or duller
    sampling.py    fill_easy        easy negatives, across the batch

With several clips of a record (`clips_per_read`) it is they that are shuffled, as JPEGs: a window
of them is a small part of its record, and a fortieth of its decoded pixels.

The batches are a function of the records, the configuration, the mix and the epoch. The mix and the
epoch are variables of a `PipelineState` (state.py), which also holds what could not be used.
"""

import tensorflow as tf

from avts_tf.config import Config
from avts_tf.data.aside import count_aside, is_aside
from avts_tf.data.augment import change_audio, change_speed, strength_at
from avts_tf.data.clips import Clip, clip_seed, cut_clips, decode_clips, mix_clips, settle_clips
from avts_tf.data.images import decode_window
from avts_tf.data.reading import PASS_BITS, in_plain_tensorflow, ordered, read_pass
from avts_tf.data.records import Record, hash_name
from avts_tf.data.sampling import NEGATIVES, Kind, draw_kinds, fill_easy, in_mix, sample_clip
from avts_tf.data.shards import find_shards, total_records
from avts_tf.data.shares import ALL, Share, least_trained
from avts_tf.data.state import PipelineState
from avts_tf.errors import UserError

EVAL_BATCH_SIZE = 32  # clips among which evaluation finds its easy negatives, for all models
OF_THE_RECORD = ('position', 'example_id', 'example_hash', 'waveform')  # not of each of its clips
EVAL_SEED = 0  # of evaluation, whatever the seed of the training: the same pairs for all models


@in_plain_tensorflow
def make_dataset(pattern: str, config: Config, *, training: bool = True,
                 aside: bool = False, state: PipelineState | None = None,
                 passes: int | None = None,
                 batch_size: int | None = None, parameter: str = 'records',
                 shards: list[tuple[str, int]] | None = None,
                 on_bad_record: str = 'skip', share: Share = ALL) -> tf.data.Dataset:
    """Batches of pairs from record shards.

    Args:
        pattern: glob(s) of record files, separated by commas.
        config: `Config`.
        training: True shuffles, augments and draws kinds by the mix in `state`, anew in every
            epoch, and leaves out the records that are set aside (aside.py). False gives the same
            batches each time, whatever the seed: centre crops, and one window of each `Kind`.
        aside: with `training=False`, take only the records that training sets aside, or all where
            it sets none aside.
        state: `PipelineState`; None makes one with easy negatives.
        passes: times to go through the records, other windows each time; default
            `passes_per_epoch`, or 1 for evaluation.
        batch_size: clips in a batch; default that of the configuration divided by the machines,
            or 32 for evaluation. A last batch that is not full is left out when training.
        parameter: name of the parameter that the pattern comes from, for messages.
        shards: result of `shards.find_shards` for the pattern, where it is known already.
        on_bad_record: 'skip' leaves out what cannot be used, and notes it in `state`; 'stop' fails
            with a TensorFlow error, and `state.first_fault` says what was wrong.
        share: the part of the records that this machine trains on. A batch and its easy negatives
            come from it alone.

    Returns:
        `tf.data.Dataset`, whose `cardinality` is that with all records used, when training the
        least of all machines, of dicts. B is the
        number of clips, K that of audio windows (`audio_windows`; for evaluation the number of
        kinds):

            video                uint8 [B, frames, size, size, 3]
            audio                int16 [B, K, samples]
            label                float32 [B, K], 1 in sync, 0 out of sync
            kind                 int32 [B, K], a `sampling.Kind`, or `sampling.NO_PAIR`
            example_hash         int64 [B], the record that the video comes from
            audio_hash           int64 [B, K], the record that the audio comes from
            video_start_seconds  float64 [B]
            audio_start_seconds  float64 [B, K]
            end                  int64 [B], position after the batch
            replaced             int32 [B], negatives that became easy: too short a clip for them
            spec_mask            int32 [B, K], only when training with SpecAugment: seeds of masks

    Raises:
        UserError: no record file matches, one is damaged, or there are fewer records than a batch
            (or than 2) needs.

    Example:
        dataset = make_dataset('data/world-*', make_config('tiny'))
        batch = next(iter(dataset))
        print(batch['video'].shape, batch['audio'].shape, batch['label'].numpy())
    """
    # Before a training a damaged file is refused; evaluation uses what is left of it and says what
    # is lost.
    shards = shards or find_shards(pattern, parameter, tolerant=not training)
    state = state or PipelineState()
    machines = share.machines
    batch_size = batch_size or (
        config.train.batch_size // machines if training else EVAL_BATCH_SIZE)
    passes = passes or (config.train.passes_per_epoch if training else 1)
    clips_per_read = config.train.clips_per_read if training else 1
    stored = total_records(shards)
    total = least_trained(stored, machines) if training else (
        (aside and count_aside(stored)) or stored)
    each = f' for each of {machines} machines' if machines > 1 else ''
    if total < 2:
        raise UserError(parameter, pattern, f'{total} record(s){each}, but an easy negative needs '
                        'the audio of another; give at least 2.')
    if training and total * passes * clips_per_read < batch_size:
        raise UserError(
            parameter, pattern, f'{total} records to train on{each} make no full batch of '
            f'{batch_size}; lower `batch_size`, or raise `passes_per_epoch`.')
    block, places = _mixing(config, batch_size) if training else (1, 1)
    skip = on_bad_record == 'skip'
    seed = config.train.seed if training else EVAL_SEED
    leaves_out = bool(count_aside(stored)) and (training or aside)

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        over_all = (state.epoch.read_value() * passes if training else 0) + number
        return read_pass(shards, config, state, number, over_all, seed, skip,
                         chosen if leaves_out else None, share, places)

    def chosen(number: tf.Tensor) -> tf.Tensor:
        return tf.equal(is_aside(number, stored), aside)

    def cut(record: Record, usable: tf.Tensor, number: tf.Tensor) -> Clip:
        if training:
            strength = strength_at(config, state.epoch.read_value())
            record, usable = change_speed(record, usable, config, number, strength)
        return _cut_pairs(record, usable, number, config, training, state)

    def decode(clip: Clip) -> Clip:
        frames, seed = clip.pop('frames'), clip.pop('augment_seed')
        if not training:
            return {**clip, 'video': decode_window(frames, config, None)}
        seeds, strength = tf.random.split(seed, 2), strength_at(config, state.epoch.read_value())
        return {**clip, 'video': decode_window(frames, config, seeds[0], strength),
                'audio': change_audio(clip['audio'], config, seeds[1], strength)}

    elements = tf.data.Dataset.range(passes).flat_map(one_pass)
    if clips_per_read == 1:
        clips = cut_clips(elements, config, state, skip, lambda *record: decode(cut(*record)))
    else:
        clips = mix_clips(cut_clips(elements, config, state, skip, cut), block, OF_THE_RECORD)
        clips = clips.filter(lambda clip: clip['position'] >= state.start.read_value())
        clips = decode_clips(clips, state, skip, decode)
    if skip:
        clips = settle_clips(clips, state)

    def finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        position = batch.pop('position')
        return {**fill_easy(batch, config), 'end': tf.fill(tf.shape(position), position[-1] + 1)}

    # Whole waveforms differ in length; what has a fixed shape is batched densely all the same.
    same_place = training and config.pairs.easy_place == 'same'
    batch = clips.ragged_batch if same_place else clips.batch
    batches = batch(batch_size, drop_remainder=training).map(finish, tf.data.AUTOTUNE)
    dataset = ordered(batches)
    # TensorFlow cannot know it, and asserting it would fail where records are skipped. Keras takes
    # an end that it was not told of for data that ran out, and warns.
    count = total * passes * clips_per_read
    steps = count // batch_size if training else -(-count // batch_size)
    dataset.cardinality = lambda: tf.constant(steps, tf.int64)
    return dataset


def _cut_pairs(record: Record, usable: tf.Tensor, number: tf.Tensor, config: Config, training: bool,
               state: PipelineState) -> Clip:
    """The JPEGs and audio windows of one record's clip, or when training of `clips_per_read`, of
    which the easy ones are filled in later.
    """
    seeds = tf.random.split(clip_seed(record, config.train.seed if training else EVAL_SEED, number),
                            5)
    shape: tuple[int, ...] = ()
    if training:
        if config.train.clips_per_read > 1:
            shape = (config.train.clips_per_read,)
        kinds = draw_kinds(seeds[0], state.mix, config.pairs.audio_windows, shape)
        allowed = in_mix(state.mix)
    else:
        kinds, allowed = tf.range(len(Kind)), dict.fromkeys(NEGATIVES, tf.constant(True))
    clip = sample_clip(record, usable, kinds, allowed, seeds[1], config, repeated=training)
    clip['frames'] = tf.gather(record.frames, clip.pop('frame_index'))
    clip['augment_seed'], clip['seed'] = (
        tf.random.split(seed, shape[0]) if shape else seed for seed in (seeds[2], seeds[3]))
    clip['example_hash'] = hash_name(record.example_id)
    if shape:
        clip['example_id'] = record.example_id
    if training and config.pairs.easy_place == 'same':
        clip['waveform'] = record.waveform
    if training and config.augment.spec_augment:
        clip['spec_mask'] = tf.random.stateless_uniform(kinds.shape, seeds[4], 0, 2**31 - 1,
                                                        tf.int32)
    return clip


def _mixing(config: Config, batch_size: int) -> tuple[int, int]:
    """The records of a block of `mix_clips`, and the numbers that a record takes as its position:
    so many that all clips of a block come before the next block. (1, 1) for one clip of a record.
    """
    if config.train.clips_per_read == 1:
        return 1, 1
    # A whole batch at least, so that clips of one record come in different batches.
    block = max(config.train.shuffle_records, batch_size)
    return block, block * config.train.clips_per_read + 1


def steps_per_epoch(shards: list[tuple[str, int]], config: Config, machines: int = 1) -> int:
    """Steps of an epoch if no record is skipped, the least of all machines.

    Args:
        shards: result of `shards.find_shards`.
        config: `Config`.
        machines: how many train together, each on its share.
    """
    train = config.train
    records = least_trained(total_records(shards), machines) * train.passes_per_epoch
    return records * train.clips_per_read // (train.batch_size // machines)


def position_after(steps: int, shards: list[tuple[str, int]], config: Config, share: Share) -> int:
    """The position of a machine in its share (see reading.py) after steps of which none left a
    record out.
    """
    batch_size = config.train.batch_size // share.machines
    block, places = _mixing(config, batch_size)
    blocks, clip = divmod(steps * batch_size, block * config.train.clips_per_read)
    records = share.count_trained(total_records(shards))
    number, index = divmod(blocks * block, records)
    return (number << PASS_BITS) + index * places + clip
