"""keras-tuner searches for the parameters that separate hard negatives best.

    RUN_DIR/
        search.json         what all trials share
        search/             keras-tuner's own state, from which the same command resumes
        trials/0007/        the run folder of a trial, as `train` leaves it
        tensorboard/        the trials for TensorBoard's HParams page
        trials.csv          a row per finished trial, best first

What is given is not searched: the search space is the rest of `SPACE`.
"""

import csv
import json
import logging
import os
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.errors import FailedTrialError, FatalRuntimeError
from tensorboard.plugins.hparams import api as hparams

from avts_tf import files, program
from avts_tf.config import make_config
from avts_tf.data.sampling import NEGATIVES
from avts_tf.errors import Diverged, Stopped, UserError
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.run_folder import RunFolder, refuse_another_run, writing
from avts_tf.training.trainer import train

OBJECTIVE = 'auc_hard'

logger = logging.getLogger(__name__)

# Parameter → how keras-tuner draws it. Numbers are ordered: the search knows near from far.
SPACE: dict[str, Any] = {
    'margin': {'min_value': 0.5, 'max_value': 1.7, 'step': 0.1},
    'learning_rate': {'min_value': 3e-4, 'max_value': 3e-2, 'sampling': 'log'},
    'embedding_size': [32, 64, 128, 256],
    'regime': ['easy', 'mixed', 'easy=0.5+hard=0.5', 'easy=0.5+hard=0.25+super_hard=0.25',
               'curriculum_mixed', 'curriculum_hard'],
    'crop_scale_min': [0.66, 0.8, 0.9, 1.0],
    'colour_jitter': [0.0, 0.1, 0.2],
    'spec_augment': bool,
}


class Trial(NamedTuple):
    """A finished trial: its AUC on hard negatives after the last epoch, values, run folder."""

    auc_hard: float
    values: dict
    run_dir: str


def search_space(held: dict) -> keras_tuner.HyperParameters:
    """keras-tuner's space: `SPACE` without the parameters in `held`.

    Raises:
        UserError: nothing is left to search.
    """
    space = keras_tuner.HyperParameters()
    for name, drawn in SPACE.items():
        if name in held:
            continue
        if isinstance(drawn, dict):
            space.Float(name, **drawn)
        elif drawn is bool:
            space.Boolean(name)
        else:
            space.Choice(name, drawn, ordered=not isinstance(drawn[0], str) or None)
    if not space.space:
        raise UserError(None, None, f'each of {", ".join(SPACE)} is given, so that nothing is left '
                        'to search; leave some of them out.')
    return space


class _Search(keras_tuner.engine.base_tuner.BaseTuner):
    """keras-tuner's loop, whose trials are trainings."""

    def __init__(self, run_one: Callable[[str, dict], float], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._run_one = run_one

    def run_trial(self, trial: keras_tuner.engine.trial.Trial) -> float:
        return self._run_one(trial.trial_id, trial.hyperparameters.values)


def tune(
    preset: str, given: dict, records: str, run_dir: str, trials: int, *,
    eval_records: str | None = None, select_records: str | None = None,
    devices: str | int = 'auto',
) -> list[Trial]:
    """Searches for the parameters with the highest AUC on hard negatives, or resumes a search.

    Args:
        preset: see `make_config`.
        given: parameters by name that all trials share; `epochs` is the length of a trial.
        records: glob of training records.
        run_dir: folder of the search.
        trials: number of trials in all.
        eval_records: glob of records to measure on; None where there are `select_records`.
        select_records: glob of records that trials are compared on; None takes `eval_records`.
        devices: see `devices.make_strategy`.

    Returns:
        The finished trials, best first.

    Raises:
        UserError: a value is not allowed, the records are not fit for it, or the folder holds
            another search.
        Stopped: a signal came; the same call resumes the trial.

    Example:
        >>> found = tune('tiny', {'epochs': 6}, 'data/train-*', 'runs/search', trials=20,
        ...              select_records='data/select-*')
        >>> found[0].values
    """
    compared = select_records or eval_records
    if not compared:
        raise UserError('select_records', None, 'needed to choose the best trial; give records '
                        'that are not trained on. (With `eval_records` alone they are what trials '
                        'are compared on, and then no longer an honest measure of the best.)')
    train_config = make_config(preset, **given).train
    epochs, space, errors = train_config.epochs, search_space(given), []
    for regime in SPACE['regime'] if 'regime' not in given else ():
        # No trial may turn out to be impossible.
        parse_regime(_parameters({'regime': regime}, epochs)['regime'], epochs)
    _claim(run_dir, {'preset': preset, 'held': given, 'records': records,
                     'eval_records': eval_records, 'select_records': select_records})

    def run_one(trial_id: str, values: dict) -> float:
        folder = os.path.join(run_dir, 'trials', trial_id)
        logger.info(f'trial {trial_id}: {_in_words(values)}')
        keras.backend.clear_session()
        try:
            config = make_config(preset, **{**given, **_parameters(values, epochs)})
            train(config, records, folder, eval_records=eval_records,
                  select_records=select_records, devices=devices)
        except Diverged as error:
            raise FailedTrialError(str(error)) from error  # of these values alone
        except (UserError, Stopped) as error:
            errors.append(error)  # keras-tuner would try again, in vain
            raise FatalRuntimeError(str(error)) from error
        row = RunFolder(folder, config).history()[-1]
        if OBJECTIVE not in row:
            name = 'select_records' if select_records else 'eval_records'
            errors.append(UserError(name, compared, 'no clip there is long enough for a hard '
                                    'negative, by which trials are compared.'))
            raise FatalRuntimeError(str(errors[-1]))
        _log_trial(os.path.join(run_dir, 'tensorboard', trial_id), values, row)
        return row[OBJECTIVE]

    # The oracle draws by what it has seen, from a table that it keeps in the folder.
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective(OBJECTIVE, 'max'), max_trials=trials,
        hyperparameters=space, seed=train_config.seed)
    oracle.verbose = 0
    try:
        search = _Search(run_one, oracle=oracle, directory=run_dir, project_name='search')
    except ValueError as error:
        raise UserError(None, os.path.join(run_dir, 'search'), 'what keras-tuner wrote there '
                        f'cannot be read ({error}). Remove that folder: the search begins anew, '
                        'and trials with the values of before take their finished runs.') from None
    try:
        search.search()
    except FatalRuntimeError:
        raise errors[-1] from None
    except RuntimeError as error:  # keras-tuner's own, after three trials in a row that failed
        lines = str(error).strip().splitlines()
        raise UserError(None, run_dir, f'{lines[0]} The last one: {lines[-1]}') from error
    found = [Trial(float(trial.score), trial.hyperparameters.values,
                   os.path.join(run_dir, 'trials', trial.trial_id))
             for trial in oracle.trials.values() if trial.status == 'COMPLETED']
    found.sort(key=lambda trial: (-trial.auc_hard, trial.run_dir))
    for trial in oracle.trials.values():
        if trial.status in ('FAILED', 'INVALID'):
            reason = (trial.message or '').strip().splitlines()[-1]
            logger.warning(f'trial {trial.trial_id} failed: {reason}')
    if not found:
        raise UserError(None, run_dir, 'no trial succeeded; the messages above say why.')
    _write_table(os.path.join(run_dir, 'trials.csv'), found)
    best = found[0]
    logger.info(f'{len(found)} trials in {run_dir}/trials.csv; curves and HParams: '
                f'tensorboard --logdir={run_dir}/tensorboard')
    logger.info(f'Best: AUC of hard negatives {best.auc_hard:.4f} in {best.run_dir}, CHOSEN on '
                f'{compared}: figures on other records are lower. The same as a training:')
    logger.info(command_line(preset, {**given, **_parameters(best.values, epochs)}, records,
                             eval_records, compared))
    return found


def _claim(run_dir: str, shared: dict) -> None:
    """Makes the folder of a search, or checks that the search in it is this one."""
    path = os.path.join(run_dir, 'search.json')
    with writing(run_dir):
        os.makedirs(run_dir, exist_ok=True)
        if os.path.exists(path):
            with open(path) as file:
                refuse_another_run('run_dir', run_dir, json.load(file), shared, 'search')
        else:
            files.write_text(path, json.dumps(shared, indent=2))


def _parameters(values: dict, epochs: int) -> dict:
    """What a trial's values are as parameters: a mix of negatives lasts all the epochs."""
    regime = values.get('regime')
    return {**values, 'regime': f'{regime}:{epochs}'} if regime and '=' in regime else {**values}


def _in_words(values: dict) -> str:
    return ', '.join(f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}'
                     for name, value in values.items())


def _log_trial(folder: str, values: dict, row: dict) -> None:
    """A trial for TensorBoard's HParams page."""
    with tf.summary.create_file_writer(folder).as_default():
        hparams.hparams(dict(values))
        for name in (*(f'auc_{kind}' for kind in NEGATIVES), 'loss'):
            if name in row:
                tf.summary.scalar(name, row[name], step=int(row['epoch']))


def _write_table(path: str, found: list[Trial]) -> None:
    names = list(found[0].values)
    with files.replacing(path) as aside, open(aside, 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow([OBJECTIVE, *names, 'run_dir'])
        writer.writerows([trial.auc_hard, *(trial.values[name] for name in names), trial.run_dir]
                         for trial in found)


def command_line(preset: str, values: dict, records: str, eval_records: str | None,
                 select_records: str) -> str:
    """The training with these values as a command line for a shell."""
    flags = {'preset': preset, **values, 'records': records, 'eval_records': eval_records,
             'select_records': select_records, 'run_dir': 'runs/best'}
    words = [f'--{name}={str(value).lower() if isinstance(value, bool) else value}'
             for name, value in flags.items() if value is not None]
    return shlex.join([*program.command(), *words])
