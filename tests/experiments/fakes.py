"""Settings of a table, and steps that write results without training."""

import json
import math
import os

from avts_tf.experiments.cells import Settings

DATA = ('kinetics_records', 'audioset_records', 'soundnet_records', 'ucf101_records',
        'hmdb51_records', 'esc10_input', 'esc50_input', 'dcase2014_input')
SETS = dict.fromkeys(('train', 'held', 'labelled', 'test', 'struck train', 'struck held',
                      'sustained train', 'sustained held'), 'world')  # globs of no files


def make_settings(folder, seeds=(0, 1), data=(), **given):
    """Settings of a table with the preset tiny, on the synthetic world."""
    values = {'ucf101_records': 'ucf/{part}{split}-*', 'hmdb51_records': 'hmdb/{part}{split}-*',
              'esc10_input': 'esc.csv', 'kinetics_records': 'kinetics/{part}-*'}
    data = {name: values[name] for name in data}
    return Settings(str(folder), 'tiny', given, tuple(seeds), 0.8, None, None, '', data, 'auto')


class FakeRuns:
    """Runs steps by writing made-up results, and keeps which it ran."""

    def __init__(self, stop_at=math.inf, failing=()):
        self.ran, self.stop_at, self.failing = [], stop_at, dict(failing)

    def __call__(self, step, table_dir, lock, interruption):
        if len(self.ran) == self.stop_at:
            raise KeyboardInterrupt
        self.ran.append(step.folder)
        if reason := self.failing.get(step.folder):
            return reason
        folder = os.path.join(table_dir, step.folder)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'step.json'), 'w') as file:
            json.dump(step._asdict(), file)
        seed = step.arguments['config']['seed']
        accuracy = {'easy': 0.7, 'hard': 0.5}.get(step.arguments['config'].get('regime'),
                                                  0.6) + 0.02 * seed
        with open(os.path.join(folder, 'result.json'), 'w') as file:
            json.dump({'sync': {'avts_accuracy': accuracy, 'auc_easy': accuracy, 'auc_hard': 0.5,
                                'auc_super_hard': 0.5, 'accuracy_easy_same_class': 0.5,
                                'accuracy_easy_other_class': accuracy,
                                'accuracy_super_hard': 0.5},
                       'action_recognition': {'accuracy': accuracy}}, file)
        return ''
