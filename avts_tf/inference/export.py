"""Writes both towers as SavedModels that need nothing but TensorFlow."""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from avts_tf import files
from avts_tf.errors import UserError
from avts_tf.inference.audio_signatures import AudioSignatures
from avts_tf.inference.metadata import make_metadata
from avts_tf.inference.signatures import Examples, TowerSignatures
from avts_tf.inference.verify import verify_towers
from avts_tf.inference.video_signatures import VideoSignatures
from avts_tf.models.two_tower import TwoTower

logger = logging.getLogger(__name__)

WARMUP = os.path.join('assets.extra', 'tf_serving_warmup_requests')
# For another export to the same folder: a training should not end in vain.
WAIT_SECONDS = 600.0


def export_towers(
    model: TwoTower, export_dir: str | os.PathLike, training: dict[str, Any] | None = None,
) -> dict[str, str]:
    """Exports both towers, each as `EXPORT_DIR/<tower>/<version>/`.

    The version is one higher than the highest there. The towers are written aside, loaded in a
    fresh process that imports only TensorFlow, every signature compared with the Keras towers, and
    only then renamed.

    Example:
        >>> import avts_tf
        >>> config = avts_tf.make_config('tiny', video_width=0.05, audio_width=0.05)
        >>> model = avts_tf.build_two_tower(config)              # or a trained one
        >>> paths = avts_tf.export_towers(model, 'saved_models')
        >>> tower = avts_tf.load_tower(paths['audio_tower'])     # saved_models/audio_tower/1

    Args:
        model: `TwoTower`.
        export_dir: folder.
        training: result of `metadata.describe_training`, for the metadata.

    Returns:
        Dict from 'audio_tower' and 'video_tower' to the folder of the new version.

    Raises:
        UserError: the folder cannot be written.
        RuntimeError: a reloaded tower gives other values than the Keras tower.
    """
    export_dir = os.fspath(export_dir)
    towers = [AudioSignatures(model.audio_tower, model.config),
              VideoSignatures(model.video_tower, model.config)]
    paths = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.locked(export_dir, 'export_dir', WAIT_SECONDS))
        asides = [stack.enter_context(_folder_aside(export_dir, tower)) for tower in towers]
        try:
            for tower, aside in zip(towers, asides, strict=True):
                _save(tower, aside, training)
            differences = verify_towers(towers, asides)
        except (OSError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError,
                tf.errors.UnknownError) as error:
            reason = getattr(error, 'strerror', None) or str(error).splitlines()[0]
            raise UserError(
                'export_dir', export_dir, f'cannot be written: {reason}. The weights are in the '
                'run folder; once there is room, export the towers again.') from error
        for tower, aside, difference in zip(towers, asides, differences, strict=True):
            os.chmod(aside, 0o755)  # mkdtemp makes it private; a server runs as somebody else
            folder = os.path.dirname(aside)
            path = paths[tower.name] = os.path.join(folder, str(_next_version(folder)))
            os.rename(aside, path)
            logger.info(
                '%s: written, loaded in a fresh process, and its outputs equal those of the Keras '
                'tower (greatest relative difference %.1e).', path, difference)
    return paths


@contextlib.contextmanager
def _folder_aside(export_dir: str, tower: TowerSignatures) -> Iterator[str]:
    """A new folder beside the versions of a tower, removed at the end unless it was renamed."""
    folder = os.path.join(export_dir, tower.name)
    try:
        os.makedirs(folder, exist_ok=True)
        aside = tempfile.mkdtemp(prefix='.writing-', dir=folder)
    except OSError as error:
        problem = f'cannot be written: {error.strerror}.'
        raise UserError('export_dir', export_dir, problem) from None
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _next_version(folder: str):
    return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=0) + 1


def _save(tower: TowerSignatures, path: str, training: dict[str, Any] | None):
    """Saves a tower with its metadata and warm-up requests."""
    signatures = tower.trace()
    with tempfile.TemporaryDirectory() as folder:
        metadata = os.path.join(folder, 'metadata.json')
        with open(metadata, 'w', encoding='utf-8') as file:
            file.write(json.dumps(make_metadata(tower, training), indent=2) + '\n')
        tower.metadata = tf.saved_model.Asset(metadata)
        tf.saved_model.save(tower, path, signatures=signatures)
    examples = tower.examples(np.random.default_rng(0))
    write_warmup(tower.name, examples, os.path.join(path, WARMUP))


def write_warmup(
    model_name: str, examples: Examples, path: str,
) -> None:
    """Writes requests that a server answers to itself when it loads a model.

    So the first client need not wait.

    Args:
        model_name: name under which the model is served.
        examples: dict from the name of each signature to a dict of its inputs.
        path: file; its folder is made.
    """
    from tensorflow_serving.apis import (  # only needed to write these
        predict_pb2,
        prediction_log_pb2,
    )

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as writer:
        for name, inputs in examples.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = model_name, name
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictLog(request=request)
            entry = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(entry.SerializeToString())
