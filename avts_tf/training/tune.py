"""`--mode=tune`: keras-tuner searches for the parameters that tell hard negatives best.

    TUNE_DIR/
        search.json         what all trials share
        search/             keras-tuner's own state, from which the same command goes on
        trials/0007/        the run folder of a trial, as `--mode=train` leaves it
        tensorboard/        the trials for TensorBoard's HParams page
        trials.csv          a row per finished trial, best first

What is set by a flag is not searched: the search space is the rest of `SPACE`.
"""

import csv
import json
import os
import shlex

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.errors import FailedTrialError, FatalRuntimeError
from tensorboard.plugins.hparams import api as hparams

from avts_tf import program
from avts_tf.config import make_config
from avts_tf.data.sampling import NEGATIVES
from avts_tf.errors import Diverged, Stopped, UserError
from avts_tf.training.curriculum import parse_regime
from avts_tf.training.run_folder import RunFolder, write_aside
from avts_tf.training.trainer import train

OBJECTIVE = 'auc_hard'

# Parameter → how keras-tuner draws it. Choices are ordered, so that the search can tell near from far.
SPACE = {
    'margin': {'min_value': 0.5, 'max_value': 1.7, 'step': 0.1},
    'learning_rate': {'min_value': 3e-4, 'max_value': 3e-2, 'sampling': 'log'},
    'embedding_size': [32, 64, 128, 256],
    'regime': ['easy', 'mixed', 'easy=0.5+hard=0.5', 'easy=0.5+hard=0.25+super_hard=0.25', 'curriculum_mixed', 'curriculum_hard'],
    'crop_scale_min': [0.66, 0.8, 0.9, 1.0],
    'colour_jitter': [0.0, 0.1, 0.2],
    'spec_augment': bool,
}


def search_space(held):
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
        raise UserError(f'--mode=tune: each of {", ".join(SPACE)} is set by a flag; leave out those that are to be searched.')
    return space


class _Search(keras_tuner.engine.base_tuner.BaseTuner):
    """keras-tuner's loop, whose trials are trainings."""

    def __init__(self, run_one, **kwargs):
        super().__init__(**kwargs)
        self._run_one = run_one

    def run_trial(self, trial):
        return self._run_one(trial.trial_id, trial.hyperparameters.values)


def tune(preset, given, pattern, eval_pattern, tune_dir, trials, devices='auto', say=print, select_pattern=None):
    """Searches for the parameters with the highest AUC on hard negatives, or goes on with a search.

    Args:
        preset: see `make_config`.
        given: dict of parameters that are held, by name; `epochs` is the length of a trial.
        pattern: glob of training records.
        eval_pattern: glob of records to measure on; None where there is a `select_pattern`.
        tune_dir: folder of the search.
        trials: number of trials in all.
        devices: see `training.make_strategy`.
        say: function that shows a line of text.
        select_pattern: glob of records that trials are compared on; None takes those of `eval_pattern`.

    Returns:
        List of (AUC on hard negatives after the last epoch, values, run folder) of the finished trials, best first.

    Raises:
        UserError: a value is not allowed, the records are not fit for it, or the folder holds another search.
        Stopped: a signal came; the same command goes on with the trial.
    """
    select_flag, given_pattern = ('select_records' if select_pattern else 'eval_records'), select_pattern
    select_pattern = select_pattern or eval_pattern
    if not select_pattern:
        raise UserError('--select_records: needed to choose the best trial (or --eval_records, which then are no longer an '
                        'honest measure of it); give records that are not trained on.')
    train_config = make_config(preset, **given).train
    epochs, space, problems = train_config.epochs, search_space(given), []
    for regime in SPACE['regime'] if 'regime' not in given else ():
        parse_regime(_parameters({'regime': regime}, epochs)['regime'], epochs)  # no trial may turn out to be impossible
    _claim(tune_dir, {'preset': preset, 'held': given, 'records': pattern, 'eval_records': eval_pattern,
                      'select_records': given_pattern})

    def run_one(trial_id, values):
        folder = os.path.join(tune_dir, 'trials', trial_id)
        say(f'trial {trial_id}: {_in_words(values)}')
        keras.backend.clear_session()
        try:
            config = make_config(preset, **{**given, **_parameters(values, epochs)})
            train(config, pattern, folder, eval_pattern, devices, say, select_pattern=select_pattern)
        except Diverged as error:
            raise FailedTrialError(str(error)) from error  # of these values alone
        except (UserError, Stopped) as error:
            problems.append(error)  # keras-tuner would try again; the records will not be better then
            raise FatalRuntimeError(str(error)) from error
        row = RunFolder(folder, config).history()[-1]
        if OBJECTIVE not in row:
            problems.append(UserError(f'--{select_flag}={select_pattern}: no clip there is long enough for a hard negative, '
                                      'so that trials cannot be told apart.'))
            raise FatalRuntimeError(str(problems[-1]))
        _log_trial(os.path.join(tune_dir, 'tensorboard', trial_id), values, row)
        return row[OBJECTIVE]

    # The oracle draws by what it has seen, from a table that it keeps in the folder: the same command goes on with it.
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective(OBJECTIVE, 'max'), max_trials=trials, hyperparameters=space,
        seed=train_config.seed)
    oracle.verbose = 0
    try:
        search = _Search(run_one, oracle=oracle, directory=tune_dir, project_name='search')
    except ValueError as error:
        raise UserError(f'{os.path.join(tune_dir, "search")}: what keras-tuner wrote there cannot be read ({error}). Remove that '
                        'folder: the search begins anew, and trials with the values of before take their finished runs.') from None
    try:
        search.search()
    except FatalRuntimeError:
        raise problems[-1] from None
    except RuntimeError as error:  # keras-tuner's own, after three trials in a row that failed
        raise UserError(f'{tune_dir}: {str(error).strip().splitlines()[0]} The last one: '
                        f'{str(error).strip().splitlines()[-1]}') from error
    found = sorted(((float(trial.score), trial.hyperparameters.values, os.path.join(tune_dir, 'trials', trial.trial_id))
                    for trial in oracle.trials.values() if trial.status == 'COMPLETED'), key=lambda item: (-item[0], item[2]))
    failed = [trial for trial in oracle.trials.values() if trial.status in ('FAILED', 'INVALID')]
    for trial in failed:
        say(f'trial {trial.trial_id} failed: {(trial.message or "").strip().splitlines()[-1]}')
    if not found:
        raise UserError(f'{tune_dir}: no trial ended well; what stands above says why.')
    _write_table(os.path.join(tune_dir, 'trials.csv'), found)
    score, values, folder = found[0]
    say(f'{len(found)} trials in {tune_dir}/trials.csv; curves and HParams: tensorboard --logdir={tune_dir}/tensorboard')
    say(f'Best: AUC of hard negatives {score:.4f} in {folder}, CHOSEN on {select_pattern}: figures on others are lower. '
        'The same as a training:')
    say(command_line(preset, {**given, **_parameters(values, epochs)}, pattern, eval_pattern, select_pattern))
    return found


def _claim(tune_dir, shared):
    """Makes the folder of a search, or checks that the search in it is this one."""
    path = os.path.join(tune_dir, 'search.json')
    try:
        os.makedirs(tune_dir, exist_ok=True)
        if os.path.exists(path):
            with open(path) as file:
                before = json.load(file)
            different = [name for name in shared if before.get(name) != shared[name]]
            if different:
                raise UserError(f'--run_dir={tune_dir}: holds a search with other {", ".join(different)}; use its flags to go on '
                                'with it, or another --run_dir for a new one.')
            return
        write_aside(path, json.dumps(shared, indent=2))
    except OSError as error:
        raise UserError(f'--run_dir={tune_dir}: cannot be written: {error.strerror}.') from None


def _parameters(values, epochs):
    """What a trial's values are as parameters: a mix of negatives lasts all the epochs."""
    regime = values.get('regime')
    return {**values, 'regime': f'{regime}:{epochs}'} if regime and '=' in regime else dict(values)


def _in_words(values):
    return ', '.join(f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}' for name, value in values.items())


def _log_trial(folder, values, row):
    """A trial for TensorBoard's HParams page."""
    with tf.summary.create_file_writer(folder).as_default():
        hparams.hparams(dict(values))
        for name in (*(f'auc_{kind}' for kind in NEGATIVES), 'loss'):
            if name in row:
                tf.summary.scalar(name, row[name], step=int(row['epoch']))


def _write_table(path, found):
    names = list(found[0][1])
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow([OBJECTIVE, *names, 'run_dir'])
        writer.writerows([score, *(values[name] for name in names), folder] for score, values, folder in found)


def command_line(preset, values, pattern, eval_pattern, select_pattern):
    """The training with these values as a command line for a shell."""
    flags = {'preset': preset, **values, 'records': pattern, 'eval_records': eval_pattern,
             'select_records': select_pattern, 'run_dir': 'runs/best'}
    words = [f'--{name}={str(value).lower() if isinstance(value, bool) else value}' for name, value in flags.items()
             if value is not None]
    return shlex.join([*program.command(), *words])
