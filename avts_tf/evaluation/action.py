"""`--mode=action_recognition`: towers fine-tuned with a softmax on the labels of records.

The pooled features of the towers that `streams` names (the last convolution of the video tower, conv5 of the audio tower),
standardised and put side by side, go into one softmax. It is trained on windows at random places; a video's scores are the mean of
the softmax over windows that are equally spaced from its beginning to its end, whatever they show.
"""

import dataclasses
import os
import re
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from avts_tf import plots, progress
from avts_tf.config import Config
from avts_tf.data import records
from avts_tf.data.reading import in_plain_tensorflow
from avts_tf.data.shards import find_shards
from avts_tf.data.state import PipelineState
from avts_tf.data.window_datasets import make_labelled_dataset
from avts_tf.errors import UserError
from avts_tf.evaluation.classification import (
    classification_metrics,
    describe,
    percent,
    wilson_interval,
)
from avts_tf.models.build import build_model
from avts_tf.models.layers import BatchNorm
from avts_tf.training.devices import make_strategy, own_batches
from avts_tf.training.optimizer import LearningRate, make_optimizer
from avts_tf.training.run_folder import (
    RunFolder,
    load_config,
    load_inputs,
    load_model,
    refuse_another_run,
    update_result,
)
from avts_tf.training.trainer import ADAPT_BATCHES

MODE = 'action_recognition'
STREAMS = {'video': ('video',), 'audio': ('audio',), 'both': ('video', 'audio')}
SAME_IN_RUN = ('clip', 'logmel', 'towers')  # groups of the configuration that come with the towers of a run
LAST_STAGE = 5  # the towers of AVTS name their layers by five stages, conv1... to conv5... or mixed_5...


class Protocol(NamedTuple):
    """What is done with the towers; the rest is in `Config`.

    Attributes:
        init: 'scratch' for random weights, 'trained' for those of the run in `init_run_dir`.
        init_run_dir: run folder of a training or of a fine-tuning, whose towers are taken; with init='scratch' their sizes
            only; '' takes the sizes of the configuration.
        streams: key of `STREAMS`.
        freeze: whether the towers stay as they are, so that the softmax alone is trained.
        layer_decay: each of a tower's five stages learns this many times as fast as the one above it; the last, this many times
            as fast as the softmax.
        label_prefix: of the labels of a record, the one that begins so is its class; '' where it has only one.
        train_clips: number of training records, drawn by `seed` with all classes in their proportions; 0 takes all.
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


def take_sizes(config, given, run_dir):
    """The configuration with the window, front end and towers of a run.

    Args:
        config: `Config`.
        given: names of the parameters that were asked for.
        run_dir: run folder.

    Raises:
        UserError: there is no run, or a parameter that comes from it was asked for.
    """
    source = load_config(run_dir)
    for group in SAME_IN_RUN:
        for field in dataclasses.fields(getattr(config, group)):
            if field.name in given:
                raise UserError(f'--{field.name}: comes with the towers of {run_dir}; leave it out.')
    return Config(**{**{group.name: getattr(config, group.name) for group in dataclasses.fields(Config)},
                     **{group: getattr(source, group) for group in SAME_IN_RUN}})


def recognise_actions(config, protocol, pattern, eval_pattern, run_dir, devices='auto', say=print):
    """Trains a classifier (or goes on), measures it on other records and writes `result.json`, `plots/confusion.png`.

    Args:
        config: `Config`.
        protocol: `Protocol`.
        pattern: glob of training records.
        eval_pattern: glob of records to measure on.
        run_dir: run folder of this fine-tuning.
        devices: see `devices.make_strategy`.
        say: function that shows a line of text.

    Returns:
        The metrics, as in `classification.classification_metrics`, with `train_videos`, `classes` and the protocol.

    Raises:
        UserError: the records, their labels, the run folders or the devices are not fit for it.
    """
    for flag, value in (('records', pattern), ('eval_records', eval_pattern)):
        if not value:
            raise UserError(f'--{flag}: --mode={MODE} needs records with labels to train on and others to test on.')
    if protocol.layer_decay != 1 and config.towers.system != 'avts':
        raise UserError(f'--layer_decay={protocol.layer_decay:g}: the layers of --system={config.towers.system} are not in stages; '
                        'leave it out.')
    strategy = make_strategy(devices)  # before TensorFlow starts, which then keeps the number of its devices
    if config.train.batch_size % strategy.num_replicas_in_sync:
        raise UserError(f'--batch_size={config.train.batch_size}: cannot be divided among {strategy.num_replicas_in_sync} devices '
                        f'(--devices={devices}); use a multiple.')
    labels = read_labels(pattern, protocol.label_prefix, 'records')
    tested = read_labels(eval_pattern, protocol.label_prefix, 'eval_records')
    names = sorted(set(labels.values()))
    if len(names) < 2:
        raise UserError(f'--records={pattern}: one class only, {names[0]!r}; there is nothing to tell apart.')
    unknown = sorted(set(tested.values()) - set(names))
    if unknown:
        raise UserError(
            f'--eval_records={eval_pattern}: class {unknown[0]!r} is not among the {len(names)} classes of --records={pattern} '
            f'({", ".join(names[:5])}{", ..." if len(names) > 5 else ""}).'
        )
    if both := sorted(set(labels) & set(tested)):
        say(f'WARNING: {len(both)} records are trained on and measured on (first: {both[0]!r}).')
    chosen = stratified(labels, protocol.train_clips, config.train.seed) if protocol.train_clips else list(labels)
    class_of, tested_class = ({example: names.index(label[example]) for example in examples}
                              for label, examples in ((labels, chosen), (tested, tested)))

    inputs = {'mode': MODE, **protocol._asdict(), 'records': pattern, 'eval_records': eval_pattern, 'classes': names}
    if os.path.exists(os.path.join(run_dir, 'config.json')):
        refuse_another_run('run_dir', run_dir, load_inputs(run_dir), inputs)
    run = RunFolder(run_dir, config, inputs)
    with strategy.scope():
        model = _initial_model(config, protocol)
        classifier = build_classifier(model, protocol.streams, len(names), protocol.freeze, config.train.seed)
        optimizer = make_optimizer(config)
        scale_layers(optimizer, [protocol.layer_decay ** depth for depth in depths(classifier)])
        classifier.compile(optimizer)
        optimizer.build(classifier.trainable_variables)
    weights = f'weights of {protocol.init_run_dir}' if protocol.init == 'trained' else 'random weights'
    say(f'{len(class_of)} training and {len(tested)} test videos of {len(names)} classes; streams: {protocol.streams}; '
        f'{weights}{", frozen" if protocol.freeze else ""}.')
    _fit(classifier, model, strategy, class_of, pattern, protocol, config, run, say)

    scores, truth = score_videos(classifier, eval_pattern, tested_class, config, protocol, say)
    results = {'train_videos': len(class_of), 'classes': names, **protocol._asdict(),
               **classification_metrics(scores, truth, names)}
    os.makedirs(os.path.join(run_dir, 'plots'), exist_ok=True)
    plots.confusion_matrix(results['confusion'], names, f'{len(truth)} videos, top-1 {100 * results["top1"]:.1f} %',
                           os.path.join(run_dir, 'plots', 'confusion.png'))
    update_result(run_dir, {MODE: results})
    for line in describe(results):
        say(line)
    return results


def recognise_splits(config, protocol, pattern, eval_pattern, run_dir, splits, devices='auto', say=print):
    """`recognise_actions` for each official split, whose name replaces {split} in the globs, and the mean over them.

    Args:
        splits: names of the splits; the rest as in `recognise_actions`.

    Returns:
        Dict: `splits`, the metrics of each by name; `top1` and, where there are more than 5 classes, `top5`, means, each with
        its 95 % interval (Wilson, over the videos of one split: those of the others are the same in good part).
    """
    for flag, value in (('records', pattern), ('eval_records', eval_pattern)):
        if '{split}' not in (value or ''):
            raise UserError(f'--{flag}={value}: --splits={",".join(splits)} wants {{split}} in it, which each name replaces.')
    results = {}
    for split in splits:
        say(f'Split {split}:')
        train, test = (value.replace('{split}', split) for value in (pattern, eval_pattern))
        results[split] = recognise_actions(config, protocol, train, test, os.path.join(run_dir, f'split{split}'), devices, say)
    summary = {'splits': results}
    for name in ('top1', 'top5'):
        values = [result[name] for result in results.values() if name in result]
        if values:
            videos = round(np.mean([result['videos'] for result in results.values()]))
            summary[name] = float(np.mean(values))
            summary[f'{name}_interval'] = wilson_interval(summary[name] * videos, videos)
    update_result(run_dir, {MODE: summary})
    for split, result in results.items():
        say(f'split {split}: top-1 {percent(result["top1"], result["top1_interval"])}')
    means = [f'{name} {percent(summary[name], summary[f"{name}_interval"])}' for name in ('top1', 'top5') if name in summary]
    say(f'mean of {len(splits)} splits: {", ".join(means)}')
    return summary


def read_labels(pattern, prefix, flag):
    """The class of every record: dict from example id to label, without the prefix.

    Raises:
        UserError: a record has no such label or several, or two records of one name differ in it.
    """
    paths = [path for path, _ in find_shards(pattern, flag)]
    labels = {}
    for example, found in tf.data.TFRecordDataset(paths).map(in_plain_tensorflow(records.parse_labels)).as_numpy_iterator():
        example, found = example.decode(), [label.decode() for label in found]
        fitting = [label for label in found if label.startswith(prefix)]
        if len(fitting) != 1:
            which = f' that begin with {prefix!r}' if prefix else ''
            raise UserError(
                f'--{flag}={pattern}: record {example!r} has {len(fitting) or "no"} labels{which} (its labels: '
                f'{", ".join(found) or "none"}), but needs one; '
                + ('choose with --label_prefix.' if found else 'write the records from a CSV with a label column.')
            )
        label = fitting[0][len(prefix):]
        if labels.setdefault(example, label) != label:
            raise UserError(f'--{flag}={pattern}: two records are called {example!r}, of {labels[example]!r} and of {label!r}.')
    return labels


def stratified(labels, count, seed):
    """Draws records so that the classes keep their proportions.

    Args:
        labels: dict from example id to label.
        count: number of records, at least one per class.
        seed: of the draw.

    Returns:
        List of `count` example ids; those of a smaller count are among those of a larger one where the quotas allow it.

    Raises:
        UserError: there are more classes than `count`, or fewer records.
    """
    by_class = {}
    for example in sorted(labels):
        by_class.setdefault(labels[example], []).append(example)
    if not len(by_class) <= count <= len(labels):
        raise UserError(
            f'--train_clips={count}: must lie between the number of classes, {len(by_class)}, and of records, {len(labels)}.')
    rng = np.random.default_rng(seed)
    names = sorted(by_class)
    for name in names:
        rng.shuffle(by_class[name])
    # One of each, then always to the class that is furthest behind its part.
    quota = dict.fromkeys(names, 1)
    for _ in range(count - len(names)):
        behind = [name for name in names if quota[name] < len(by_class[name])]
        quota[max(behind, key=lambda name: len(by_class[name]) * count / len(labels) - quota[name])] += 1
    return [example for name in names for example in by_class[name][:quota[name]]]


def build_classifier(model, streams, classes, freeze, seed):
    """Towers with a softmax.

    Args:
        model: `TwoTower`, whose towers are shared, not copied.
        streams: key of `STREAMS`.
        classes: number of classes.
        freeze: whether the towers' weights and batch-norm statistics stay.
        seed: of the softmax's weights.

    Returns:
        `keras.Model` from a dict of `video` uint8 [B, frames, size, size, 3] and `audio` int16 [B, samples], as far as `streams`
        asks for them, to logits float32 [B, classes].
    """
    inputs, features = {}, []
    names = STREAMS[streams]
    if streams == 'both' and hasattr(model, 'fused'):
        # A net that joins the two itself; see others/multisensory.py.
        inputs = {name: keras.Input(like.shape[1:], dtype=like.dtype, name=name) for name, like in model.fused.input.items()}
        model.fused.trainable = not freeze
        features, names = [model.fused(inputs)], ()
    if 'video' in names:
        tower = model.video_tower
        if tower is None:
            raise UserError(f'--streams={streams}: {model.name} has no video tower; use --streams=audio.')
        inputs['video'] = keras.Input(tower.input.shape[1:], dtype='uint8', name='video')
        network = keras.Model(tower.input, tower.output['features'], name='video_features')
        network.trainable = not freeze
        features.append(network(inputs['video']))
    if 'audio' in names:
        tower, network = model.audio_tower, model.audio_tower.get_layer('audio_network')
        inputs['audio'] = keras.Input(tower.input.shape[1:], dtype='int16', name='audio')
        network = keras.Model(network.input, network.output['conv5'], name='audio_features')
        network.trainable = not freeze
        features.append(network(tower.get_layer('log_mel')(inputs['audio'])))
    # The two towers' features differ in scale by orders of magnitude.
    features = [BatchNorm(center=False, scale=False, synchronized=model.config.towers.sync_batchnorm, name=f'standardise{i}')(x)
                for i, x in enumerate(features)]
    x = keras.layers.Concatenate(name='join')(features) if len(features) > 1 else features[0]
    initializer = keras.initializers.GlorotUniform(seed)
    logits = keras.layers.Dense(classes, kernel_initializer=initializer, dtype='float32', name='softmax')(x)
    return keras.Model(inputs, logits, name='classifier')


def scale_layers(optimizer, factors):
    """Makes an optimiser multiply the learning rate of each trainable variable, in their order, by a factor.

    The step alone is scaled; the decoupled weight decay, which is small beside it, is not.
    """
    plain = optimizer.update_step

    def update_step(gradient, variable, learning_rate):
        plain(gradient, variable, learning_rate * factors[optimizer._get_variable_index(variable)])

    optimizer.update_step = update_step


def depths(classifier):
    """How many stages below the softmax each trainable variable of a classifier lies; 0 for what is above the towers."""
    stage = {}
    for network in classifier.layers:
        if isinstance(network, keras.Model):
            for layer in network.layers:
                digit = re.search(r'\d', layer.name)
                stage.update({id(variable): int(digit[0]) if digit else LAST_STAGE for variable in layer.trainable_variables})
    return [LAST_STAGE + 1 - stage.get(id(variable), LAST_STAGE + 1) for variable in classifier.trainable_variables]


def score_videos(classifier, pattern, class_of, config, protocol, say):
    """Softmax of each video, averaged over its windows: float32 [N, C], and the true classes, int [N]."""
    state = PipelineState()
    dataset = make_labelled_dataset(pattern, config, class_of, windows=protocol.clips_per_video, streams=STREAMS[protocol.streams],
                                    state=state, parameter='eval_records')
    probabilities = tf.function(
        lambda inputs: tf.reduce_mean(tf.nn.softmax(classifier(inputs, training=False)), 0), autograph=False)
    scores, truth = [], []
    for inputs, classes in progress.bar(dataset, 'test videos', total=len(class_of), unit='video'):
        scores.append(probabilities(inputs).numpy())
        truth.append(int(classes[0]))
    if state.skips():
        say(f'{pattern}: {state.describe_skips()}')
    if not scores:
        raise UserError(f'--eval_records={pattern}: no usable video; {state.describe_skips()}.')
    return np.stack(scores), np.array(truth)


def _initial_model(config, protocol):
    """The `TwoTower` whose towers are fine-tuned."""
    if protocol.init == 'scratch':
        return build_model(config)
    source = load_inputs(protocol.init_run_dir) if os.path.exists(os.path.join(protocol.init_run_dir, 'config.json')) else {}
    if source.get('mode') != MODE:
        return load_model(protocol.init_run_dir)[0]
    if missing := set(STREAMS[protocol.streams]) - set(STREAMS[source['streams']]):
        raise UserError(f'--init={protocol.init_run_dir}: was fine-tuned with --streams={source["streams"]} and has no '
                        f'{missing.pop()} tower; use --streams={source["streams"]}.')
    # Of a fine-tuning: its classifier holds the same towers.
    run_config = load_config(protocol.init_run_dir)
    run = RunFolder(protocol.init_run_dir, run_config)
    model = build_model(run_config)
    classifier = build_classifier(model, source['streams'], len(source['classes']), source['freeze'], 0)
    if not run.restore(classifier, optimizer=False):
        raise UserError(f'--init={protocol.init_run_dir}: no checkpoint that is whole there.')
    return model


def _fit(classifier, model, strategy, class_of, pattern, protocol, config, run, say):
    """Trains until all epochs are done, going on after those that are."""
    state = PipelineState()
    dataset = make_labelled_dataset(pattern, config, class_of, streams=STREAMS[protocol.streams], state=state)
    steps = len(class_of) * config.train.passes_per_epoch // config.train.batch_size
    if not steps:
        raise UserError(f'{len(class_of)} training videos make no full batch of --batch_size={config.train.batch_size}; lower it, '
                        'or raise --passes_per_epoch.')
    done = run.epochs_done()
    if done:
        run.restore(classifier)
        say(f'{run.path}: going on after epoch {done} of {config.train.epochs}.' if done < config.train.epochs else
            f'{run.path}: all {done} epochs are done.')
    elif protocol.init == 'scratch' and 'audio' in STREAMS[protocol.streams]:
        sounds = [inputs['audio'] for inputs, _ in dataset.take(ADAPT_BATCHES)]
        model.audio_tower.get_layer('log_mel').adapt(sounds)
    if done >= config.train.epochs:
        return
    state.reset_counts()
    # A loop of our own: Keras's ends an epoch on several devices with a step on a batch of zeros.
    labelled = dataset.map(in_plain_tensorflow(lambda inputs, classes: {**inputs, 'class': classes}))
    batches = own_batches(labelled, strategy)

    rows, optimizer = run.history()[:done], classifier.optimizer
    learning_rate = LearningRate(config.train, steps * config.train.epochs, [row['loss'] for row in rows])
    with strategy.scope():
        mean_loss, accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()

    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(batch):
        def one(batch):
            classes = batch.pop('class')
            with tf.GradientTape() as tape:
                logits = classifier(batch, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
                # Keras's optimisers add the gradients of the replicas up, so that each gives its part of the global mean.
                scaled = tf.reduce_mean(losses) / strategy.num_replicas_in_sync
            variables = classifier.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
            mean_loss.update_state(losses)
            accuracy.update_state(classes, logits)
        strategy.run(one, args=(dict(batch),))

    with progress.bar(total=steps * config.train.epochs, initial=steps * done, unit='step') as bar:
        for epoch in range(done, config.train.epochs):
            state.epoch.assign(epoch)
            before = int(optimizer.iterations.numpy())
            mean_loss.reset_state()
            accuracy.reset_state()
            for batch in batches:
                optimizer.learning_rate.assign(learning_rate.at(int(optimizer.iterations.numpy())))
                train_step(batch)
                bar.update()
            if int(optimizer.iterations.numpy()) == before:
                raise UserError(f'--records={pattern}: the records that can be used make no full batch of --batch_size='
                                f'{config.train.batch_size}; {state.describe_skips()}.')
            logs = {'loss': float(mean_loss.result()), 'accuracy': float(accuracy.result())}
            if not np.isfinite(logs['loss']):
                raise UserError(f'the loss is {logs["loss"]} in epoch {epoch + 1}; lower --learning_rate and use a new --run_dir.')
            rows.append({'epoch': epoch + 1, **logs})
            learning_rate.end_epoch(logs['loss'])
            run.write_history(rows)
            run.save(classifier, epoch + 1)
            line = (f'epoch {epoch + 1}/{config.train.epochs} loss {logs["loss"]:.4f} | '
                    f'accuracy on training windows {100 * logs["accuracy"]:.1f} %')
            with bar.external_write_mode():
                say(line)
    if state.skips():
        say(state.describe_skips())
