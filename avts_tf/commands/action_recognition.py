"""Fine-tune towers with a softmax on the records' labels and measure it on others."""

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

from avts_tf.commands._flags import DEVICES, EVAL_RECORDS, RECORDS, RUN_DIR, Flag

if TYPE_CHECKING:
    from avts_tf.config import Config
    from avts_tf.evaluation.action import Protocol

LABEL_PREFIX = Flag('label_prefix', '', 'Beginning of the label that is the class, where records '
                    'have several.')
PARAMETERS = True
FLAGS = {
    'Files': [
        RUN_DIR,
        RECORDS,
        EVAL_RECORDS,
        Flag('splits', None, 'Official splits, such as 1,2,3; each replaces {split} in the globs.',
             type=list),
        LABEL_PREFIX,
        Flag('train_clips', 0, 'Number of training records, classes in their proportions; 0 is '
             'all.', minimum=0),
    ],
    'Towers': [
        Flag('init', 'scratch', 'The towers to begin with: "scratch" is random weights, "avts" '
             'those of --init_run_dir; a run folder stands for both.'),
        Flag('init_run_dir', None, 'Run folder that the towers come from; with --init=scratch '
             'their sizes only.'),
        Flag('streams', 'video', 'Which towers are fine-tuned.',
             choices=('video', 'audio', 'both')),
        Flag('freeze', False, 'Train the softmax alone and leave the towers as they are.'),
        Flag('layer_decay', 1.0, 'Each stage of a tower learns at this multiple of the rate of the '
             'one above it.', minimum=0.0, maximum=1.0),
    ],
    'Running': [
        DEVICES,
        Flag('clips_per_video', 10, 'Windows per test video whose scores are averaged.',
             minimum=1),
    ],
}


def run(flags: SimpleNamespace) -> None:
    """Fine-tunes and measures, for each split where there are several."""
    from avts_tf.config import make_config
    from avts_tf.data.shards import naming_damage
    from avts_tf.errors import UserError
    from avts_tf.evaluation import action
    from avts_tf.training.devices import refuse_several_machines
    from avts_tf.training.run_folder import hold_run

    refuse_several_machines('mode', 'action_recognition', 'trains on the devices of one machine; '
                            'unset TF_CONFIG.')
    init, init_run_dir = flags.init, flags.init_run_dir
    if init not in ('scratch', 'avts'):
        if init_run_dir:
            raise UserError('init', init, 'names a run folder, and so does '
                            f'`init_run_dir`={init_run_dir}; give one.')
        init, init_run_dir = 'avts', init
    if init == 'avts' and not init_run_dir:
        raise UserError('init', 'avts', 'give the run folder of the training with `init_run_dir`.')
    config = make_config(flags.preset or 'small', **flags.parameters)
    if init_run_dir:
        config = action.take_sizes(config, flags.parameters, init_run_dir)
    protocol = action.Protocol(
        init='trained' if init == 'avts' else 'scratch', init_run_dir=init_run_dir or '',
        streams=flags.streams, freeze=flags.freeze, layer_decay=flags.layer_decay,
        label_prefix=flags.label_prefix, train_clips=flags.train_clips,
        clips_per_video=flags.clips_per_video)
    splits = flags.splits or []
    globs = [(pattern or '').replace('{split}', split)
             for pattern in (flags.records, flags.eval_records) for split in splits or ['']]
    with hold_run(flags.run_dir), naming_damage(*globs):
        recognise(config, protocol, flags.records, flags.eval_records, flags.run_dir, splits,
                  flags.devices)


def recognise(
    config: 'Config', protocol: 'Protocol', records: str, eval_records: str, run_dir: str,
    splits: list[str], devices: str,
) -> None:
    """Fine-tunes and measures; prints, plots and writes the results into the run folder.

    Args:
        config, protocol, records, eval_records, run_dir, devices: as in
            `evaluation.action.recognise_actions`.
        splits: names of official splits, or [].
    """
    from avts_tf import plots
    from avts_tf.evaluation import action
    from avts_tf.training.run_folder import plot_path, update_result, writing

    if splits:
        results = action.recognise_splits(
            config, protocol, records, eval_records, run_dir, splits, devices)
        runs = {os.path.join(run_dir, f'split{split}'): of_split
                for split, of_split in results['splits'].items()}
    else:
        results = action.recognise_actions(
            config, protocol, records, eval_records, run_dir, devices)
        runs = {run_dir: results}
    for folder, of_run in runs.items():
        title = f'{of_run["examples"]} videos, accuracy {100 * of_run["accuracy"]:.1f} %'
        with writing(folder):
            plots.confusion_matrix(of_run['confusion'], of_run['classes'], title,
                                   plot_path(folder, 'confusion.png'))
    for folder, values in {**runs, run_dir: results}.items():
        update_result(folder, {action.MODE: values})
    print(*action.describe(results), sep='\n')
