"""Action recognition: towers fine-tuned with a softmax on the labels of records.

The towers are trained on windows at random places. The scores of a video are the mean of the
softmax over windows that are equally spaced from its beginning to its end.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from avts_tf import progress
from avts_tf.config import Config
from avts_tf.data.state import PipelineState
from avts_tf.data.window_datasets import make_labelled_dataset
from avts_tf.errors import UserError
from avts_tf.evaluation.classification import (
    classification_report,
    describe_classes,
    wilson_interval,
)
from avts_tf.evaluation.fine_tune import (
    STREAMS,
    build_classifier,
    fine_tune,
    scale_layers,
    stages_below_softmax,
)
from avts_tf.evaluation.labels import read_labels, stratified
from avts_tf.metrics import percent
from avts_tf.models.build import build_model
from avts_tf.models.two_tower import TwoTower
from avts_tf.training.devices import make_strategy
from avts_tf.training.optimizer import make_optimizer
from avts_tf.training.run_folder import (
    RunFolder,
    load_config,
    load_inputs,
    load_model,
    refuse_another_run,
)

MODE = 'action_recognition'
SAME_IN_RUN = ('clip', 'logmel', 'towers')  # groups of the configuration that belong to the towers

logger = logging.getLogger(__name__)


class Protocol(NamedTuple):
    """What is done with the towers; the rest is in `Config`.

    Attributes:
        init: 'scratch' for random weights, 'trained' for those of the run in `init_run_dir`.
        init_run_dir: run folder of a training or of a fine-tuning, whose towers are taken; with
            init='scratch' their sizes only; '' takes the sizes of the configuration.
        streams: key of `fine_tune.STREAMS`.
        freeze: whether the towers stay as they are, so that only the softmax is trained.
        layer_decay: the learning rate of each of a tower's five stages is this multiple of that of
            the stage above it; that of the last, this multiple of the softmax's.
        label_prefix: of the labels of a record, the one that begins so is its class; '' where it
            has only one.
        train_clips: number of training records, drawn by `seed` with all classes in their
            proportions; 0 takes all.
        clips_per_video: windows per video whose scores are averaged.
    """

    init: str = 'scratch'
    init_run_dir: str = ''
    streams: str = 'video'
    freeze: bool = False
    layer_decay: float = 1.0
    label_prefix: str = ''
    train_clips: int = 0
    clips_per_video: int = 10


def take_sizes(config: Config, given: Mapping[str, object], run_dir: str) -> Config:
    """The configuration with the window, front end and towers of a run.

    Args:
        config: configuration of the fine-tuning.
        given: parameters that the user asked for, by name.
        run_dir: run folder of the towers.

    Raises:
        UserError: there is no run, or a parameter that comes from it was asked for.
    """
    source = load_config(run_dir)
    for group in SAME_IN_RUN:
        for field in dataclasses.fields(getattr(config, group)):
            if field.name in given:
                raise UserError(field.name, None,
                                f'belongs to the towers of {run_dir}; leave it out.')
    return dataclasses.replace(config, **{group: getattr(source, group) for group in SAME_IN_RUN})


def recognise_actions(
    config: Config, protocol: Protocol, records: str, eval_records: str, run_dir: str,
    devices: str = 'auto',
) -> dict:
    """Trains a classifier, or resumes its training, and measures it on other records.

    Args:
        config: configuration of the fine-tuning.
        protocol: what is done with the towers.
        records: glob of training records.
        eval_records: glob of records to measure on.
        run_dir: run folder of this fine-tuning, for its checkpoints and history.
        devices: see `devices.make_strategy`.

    Returns:
        The dict of `classification.classification_report`, with `train_videos`, `classes` (names)
        and the protocol.

    Raises:
        UserError: the records, their labels, the run folders or the devices are unfit for it.

    Example:
        >>> protocol = Protocol('trained', 'runs/mine', clips_per_video=10)
        >>> config = take_sizes(make_config('small'), {}, 'runs/mine')
        >>> recognise_actions(config, protocol, 'ucf101-train1-*', 'ucf101-test1-*', 'runs/ucf')
        {'accuracy': 0.858..., ...}
    """
    for parameter, value in (('records', records), ('eval_records', eval_records)):
        if not value:
            raise UserError(parameter, None, 'needed: action recognition trains on some labelled '
                            'records and is measured on others.')
    if protocol.layer_decay != 1 and config.towers.system != 'avts':
        raise UserError('layer_decay', f'{protocol.layer_decay:g}', 'the layers of '
                        f'`system`={config.towers.system} are not in stages; leave it out.')
    strategy = make_strategy(devices)  # before TensorFlow fixes the number of its devices
    if config.train.batch_size % strategy.num_replicas_in_sync:
        raise UserError('batch_size', config.train.batch_size, 'must be a multiple of the number '
                        f'of devices, {strategy.num_replicas_in_sync} (`devices`={devices}).')
    labels = read_labels(records, protocol.label_prefix, 'records')
    tested = read_labels(eval_records, protocol.label_prefix, 'eval_records')
    names = _check_classes(labels, tested, records, eval_records)
    chosen = list(labels)
    if protocol.train_clips:
        chosen = stratified(labels, protocol.train_clips, config.train.seed)
    class_of = {example: names.index(labels[example]) for example in chosen}
    tested_class_of = {example: names.index(label) for example, label in tested.items()}

    inputs = {'mode': MODE, **protocol._asdict(), 'records': records,
              'eval_records': eval_records, 'classes': names}
    if os.path.exists(os.path.join(run_dir, 'config.json')):
        refuse_another_run('run_dir', run_dir, load_inputs(run_dir), inputs)
    run = RunFolder(run_dir, config, inputs)
    with strategy.scope():
        model = initial_model(config, protocol)
        classifier = build_classifier(
            model, protocol.streams, len(names), protocol.freeze, config.train.seed)
        optimizer = make_optimizer(config)
        scale_layers(optimizer, [protocol.layer_decay ** stages
                                 for stages in stages_below_softmax(classifier)])
        classifier.compile(optimizer)
        optimizer.build(classifier.trainable_variables)
    from_scratch = protocol.init == 'scratch'
    weights = 'random weights' if from_scratch else f'weights of {protocol.init_run_dir}'
    logger.info('%d training and %d test videos of %d classes; streams: %s; %s%s.', len(class_of),
                len(tested), len(names), protocol.streams, weights,
                ', frozen' if protocol.freeze else '')
    front_end = None
    if from_scratch and 'audio' in STREAMS[protocol.streams]:
        front_end = model.audio_tower.get_layer('log_mel')
    fine_tune(classifier, strategy, records, class_of, protocol.streams, config, run, front_end)

    scores, truth = score_videos(classifier, eval_records, tested_class_of, config, protocol)
    return {'train_videos': len(class_of), 'classes': names, **protocol._asdict(),
            **classification_report(scores, truth, names)}


def _check_classes(
    labels: Mapping[str, str], tested: Mapping[str, str], records: str, eval_records: str,
) -> list[str]:
    """The names of the classes, where those of both sets of records fit together."""
    names = sorted(set(labels.values()))
    if len(names) < 2:
        raise UserError('records', records,
                        f'one class only, {names[0]!r}; classification needs 2 or more.')
    if unknown := sorted(set(tested.values()) - set(names)):
        raise UserError('eval_records', eval_records,
                        f'class {unknown[0]!r} is not among the {len(names)} classes of '
                        f'`records`={records} ({", ".join(names[:5])}'
                        f'{", ..." if len(names) > 5 else ""}).')
    if both := sorted(set(labels) & set(tested)):
        logger.warning('%d records are trained on and measured on (first: %r).', len(both), both[0])
    return names


def recognise_splits(
    config: Config, protocol: Protocol, records: str, eval_records: str, run_dir: str,
    splits: Sequence[str], devices: str = 'auto',
) -> dict:
    """`recognise_actions` for each official split, and the mean over them.

    Args:
        config, protocol, devices: as in `recognise_actions`.
        records: glob of training records, in which {split} is replaced by each name.
        eval_records: the same of records to measure on.
        run_dir: folder of the splits' run folders, split1 and so on.
        splits: names of the splits.

    Returns:
        Dict: `splits`, the results of each by name; `accuracy` and, where there are more than 5
        classes, `top5`, means over the splits, each with its 95 % interval (Wilson, over the videos
        of one split: those of the others are mostly the same).
    """
    for parameter, value in (('records', records), ('eval_records', eval_records)):
        if '{split}' not in (value or ''):
            raise UserError(parameter, value, 'must contain {split}, which each name of '
                            f'`splits`={",".join(splits)} replaces.')
    results = {}
    for split in splits:
        logger.info('Split %s:', split)
        train, test = (value.replace('{split}', split) for value in (records, eval_records))
        results[split] = recognise_actions(
            config, protocol, train, test, os.path.join(run_dir, f'split{split}'), devices)
    summary: dict[str, Any] = {'splits': results}
    for name in ('accuracy', 'top5'):
        values = [result[name] for result in results.values() if name in result]
        if values:
            videos = round(np.mean([result['examples'] for result in results.values()]))
            summary[name] = float(np.mean(values))
            summary[f'{name}_interval'] = wilson_interval(round(summary[name] * videos), videos)
    return summary


def score_videos(
    classifier: keras.Model, eval_records: str, class_of: Mapping[str, int], config: Config,
    protocol: Protocol,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of each video, averaged over its windows.

    Args:
        classifier: result of `fine_tune.build_classifier`.
        eval_records: glob of records.
        class_of: from example id to class; other records are left out.
        config: configuration of the fine-tuning.
        protocol: its `streams` and `clips_per_video` are used.

    Returns:
        Scores float32 [N, C], and the true classes, int [N].

    Raises:
        UserError: no video can be used.
    """
    state = PipelineState()
    dataset = make_labelled_dataset(
        eval_records, config, class_of, windows=protocol.clips_per_video,
        streams=STREAMS[protocol.streams], state=state, parameter='eval_records')
    probabilities = tf.function(
        lambda inputs: tf.reduce_mean(tf.nn.softmax(classifier(inputs, training=False)), 0),
        autograph=False)
    scores, truth = [], []
    for inputs, classes in progress.bar(dataset, 'test videos', total=len(class_of), unit='video'):
        scores.append(probabilities(inputs).numpy())
        truth.append(int(classes[0]))
    if state.skips():
        logger.info('%s: %s', eval_records, state.describe_skips())
    if not scores:
        raise UserError('eval_records', eval_records, f'no usable video; {state.describe_skips()}.')
    return np.stack(scores), np.array(truth)


def initial_model(config: Config, protocol: Protocol) -> TwoTower:
    """The model whose towers are fine-tuned."""
    if protocol.init == 'scratch':
        return build_model(config)
    run_dir, source = protocol.init_run_dir, {}
    if os.path.exists(os.path.join(run_dir, 'config.json')):
        source = load_inputs(run_dir)
    if source.get('mode') != MODE:
        return load_model(run_dir)[0]
    if missing := set(STREAMS[protocol.streams]) - set(STREAMS[source['streams']]):
        raise UserError('init', run_dir, f'was fine-tuned with `streams`={source["streams"]} and '
                        f'has no {missing.pop()} tower; use `streams`={source["streams"]}.')
    # Of a fine-tuning: its classifier has the same towers.
    run_config = load_config(run_dir)
    model = build_model(run_config)
    classifier = build_classifier(model, source['streams'], len(source['classes']),
                                  source['freeze'])
    if not RunFolder(run_dir, run_config).restore(classifier, optimizer=False):
        raise UserError('init', run_dir, 'has no intact checkpoint.')
    return model


def describe(results: dict) -> Iterator[str]:
    """Lines for the terminal, from the results of `recognise_actions` or `recognise_splits`."""
    if 'splits' in results:
        for split, of_split in results['splits'].items():
            accuracy = percent(of_split['accuracy'], of_split['accuracy_interval'])
            yield f'split {split}: accuracy {accuracy}'
        yield f'mean of {len(results["splits"])} splits: {_accuracies(results)}'
        return
    yield (f'{_accuracies(results)} of {results["examples"]} videos; the largest class alone is '
           f'{100 * results["chance"]:.1f} %.')
    yield from describe_classes(results)


def _accuracies(results: dict) -> str:
    return ', '.join(f'{words} {percent(results[name], results[f"{name}_interval"])}'
                     for name, words in (('accuracy', 'accuracy'), ('top5', 'top-5'))
                     if name in results)
