"""The command line as a newcomer uses it: a whole run, resuming, and mistakes."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avts_tf import command_line, commands
from avts_tf.commands import _demo, evaluate
from avts_tf.config import make_config, parameters
from avts_tf.data import records
from avts_tf.data.shards import find_shards
from avts_tf.data.synthetic import write_world
from avts_tf.errors import UserError
from tests.helpers import PATIENCE_SECONDS, ROOT

# Small enough for seconds: nothing is learned by it, everything is gone through.
TINY = ['--preset=tiny', '--frame_size=16', '--batch_size=8', '--warmup_steps=2',
        '--regime=easy:1,easy=0.5+hard=0.5:1']


def run_main(*flags):
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '2', 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run([sys.executable, str(ROOT / 'main.py'), *flags], check=False, text=True,
                          capture_output=True, env=environment, timeout=PATIENCE_SECONDS)


def _main(*flags):
    command_line.read(list(flags))()


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp('world')
    write_world(str(folder / 'train'), videos=20, size=24, seconds=3.0, shards=2)
    write_world(str(folder / 'held'), videos=8, size=24, seconds=3.0, seed=1)
    return folder


@pytest.fixture(scope='module')
def finished(world, tmp_path_factory):
    """A run that was stopped after one epoch and gone on with, and one that was not stopped."""
    folder = tmp_path_factory.mktemp('runs')
    flags = [*TINY, f'--records={world}/train-*-of-*', f'--eval_records={world}/held-*-of-*',
             f'--export_dir={folder}/models']
    unbroken = run_main(*flags, f'--run_dir={folder}/unbroken')
    assert unbroken.returncode == 0, unbroken.stderr
    return folder, flags, unbroken


def test_training_leaves_what_the_readme_says(finished):
    folder, _, process = finished
    run = folder / 'unbroken'
    assert 'AVTS accuracy' in process.stdout and 'Traceback' not in process.stderr
    with open(run / 'history.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['stage'] for row in rows] == ['0', '1']
    assert float(rows[0]['pairs_hard']) == 0 and not rows[0]['distance_hard']
    pairs = {kind: float(rows[1][f'pairs_{kind}']) for kind in ('positive', 'easy', 'hard')}
    assert pairs['easy'] + pairs['hard'] == pairs['positive']
    result = json.loads((run / 'result.json').read_text())
    assert result['sync']['held_out'] and result['sync']['epochs'] == 2
    assert result['sync']['chosen_on_these'] is False
    low, high = result['sync']['avts_accuracy_interval']
    assert low <= result['sync']['avts_accuracy'] <= high
    for name in ('plots/training.png', 'plots/distances.png', 'plots/sync_curve.png', 'config.json',
                 'timing.csv', 'checkpoints/epoch-0002-step-000000.npz',
                 'tensorboard/projector_config.pbtxt'):
        assert (run / name).exists()
    events = EventAccumulator(str(run / 'tensorboard')).Reload()
    assert {'batch', 'epoch/loss', 'epoch/auc_hard'} <= set(events.Tags()['tensors'])
    assert [event.step for event in events.Tensors('epoch/loss')] == [1, 2]
    assert (folder / 'models/audio_tower/1/saved_model.pb').exists()
    assert (folder / 'models/video_tower/1/saved_model.pb').exists()


def test_exported_towers_tell_of_their_training(finished):
    folder, _, _ = finished
    metadata = {name: json.loads((folder / f'models/{name}/1/assets/metadata.json').read_text())
                for name in ('audio_tower', 'video_tower')}
    training = metadata['video_tower']['training']
    assert training['epochs'] == 2
    assert training['records'] == {'glob': 'train-*-of-*', 'records': 20, 'datasets': ['synthetic']}
    assert training['eval_records']['records'] == 8
    result = json.loads((folder / 'unbroken/result.json').read_text())
    assert training['results']['sync']['threshold'] == result['sync']['threshold']
    assert str(folder) not in json.dumps(metadata)


@pytest.mark.slow
def test_resumed_run_equals_the_unbroken_one(finished):
    # What a run leaves that was killed in its second epoch.
    folder, flags, _ = finished
    run, unbroken = folder / 'resumed', folder / 'unbroken'
    (run / 'checkpoints').mkdir(parents=True)
    for name in ('config.json', 'checkpoints/epoch-0001-step-000000.npz'):
        (run / name).write_bytes((unbroken / name).read_bytes())
    process = run_main(*flags, f'--run_dir={run}')
    assert process.returncode == 0, process.stderr
    assert 'Resuming after epoch 1.' in process.stdout
    assert (run / 'history.csv').read_bytes() == (unbroken / 'history.csv').read_bytes()
    results = [json.loads((path / 'result.json').read_text()) for path in (run, unbroken)]
    assert all(result.pop('exported') for result in results)  # a new version each time
    assert results[0] == results[1]


@pytest.mark.slow
def test_evaluate_again_and_shortcuts(finished):
    folder, _, _ = finished
    process = run_main('--mode=evaluate', f'--run_dir={folder}/unbroken', '--windows_per_record=2',
                       '--shortcuts')
    assert process.returncode == 0, process.stderr
    shortcuts = json.loads((folder / 'unbroken/result.json').read_text())['shortcuts']
    assert shortcuts['position_known']['hard'] == 1.0
    assert 'position_guessed' in process.stdout


@pytest.mark.parametrize(('flags', 'words'), [
    (['--records=nowhere/*'], ['--records', 'nowhere/*']),
    (['--records={world}/train-*-of-*', '--select_records=nowhere/*'],
     ['--select_records', 'nowhere/*']),
    (['--regime=sometimes'], ['--regime', 'sometimes', 'curriculum_mixed']),
    (['--records={world}/train-*-of-*', '--batch_size=900'],
     ['--batch_size', '900', '18 records to train on']),
    pytest.param(['--records={world}/train-*-of-*', '--frames=900'],
                 ['too_short', 'synthetic-'], marks=pytest.mark.slow),
    pytest.param(['--records={world}/train-*-of-*', '--sample_rate=22050'],
                 ['other_sample_rate', '22050'], marks=pytest.mark.slow),
    (['--records={world}/train-*-of-*', '--margin=-1'], ['--margin=-1', 'at least 0']),
    (['--records={world}/train-*-of-*', '--spec_augment', '--spec_freq_bands=41'],
     ['--spec_freq_bands=41', '--mel_bands=40']),
    (['--records={world}/train-*-of-*', '--spec_augment', '--spec_time_seconds=9'],
     ['--spec_time_seconds=9', '0.48 s']),
    (['--mode=evaluate', '--run_dir=nowhere'], ['nowhere', 'no run']),
    (['--mode=evaluate', '--run_dir=nowhere', '--margin=1'], ['--margin', 'leave it out']),
    (['--optimizer=magic'], ['--optimizer=magic', 'sgd']),
    (['extra'], ["'extra'", '--name=value']),
])
def test_mistakes(world, tmp_path, flags, words):
    flags = [flag.format(world=world) for flag in flags]
    if not any(flag.startswith('--run_dir') for flag in flags):
        flags.append(f'--run_dir={tmp_path}/run')
    if '--mode=evaluate' not in flags:
        flags += ['--epochs=2', '--preset=tiny']
    with pytest.raises(UserError) as error:
        _main(*flags)
    message = error.value.on_command_line()
    assert all(word in message for word in words), message
    assert not (tmp_path / 'run' / 'world').exists()  # nothing is written first


def test_a_mistake_is_one_message_and_exit_status_2(world, tmp_path):
    process = run_main(f'--records={world}/train-*-of-*', f'--run_dir={tmp_path}/run',
                       '--preset=tiny', '--batch_size=9', '--devices=2')
    assert process.returncode == 2
    assert process.stdout == '' and 'Traceback' not in process.stderr
    message = [line for line in process.stderr.splitlines() if line.startswith('main.py:')]
    assert len(message) == 1
    assert '--batch_size=9' in message[0] and '2 devices' in message[0]


def test_run_folder_of_another_configuration_is_refused(finished):
    folder, flags, _ = finished
    with pytest.raises(UserError, match=r'margin is 1\.3, asked for 0\.5'):
        _main(*flags, f'--run_dir={folder}/unbroken', '--margin=0.5')


@pytest.mark.slow
def test_damaged_shard_is_named(world, tmp_path):
    data = bytearray((world / 'train-00000-of-00002').read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / 'flipped-00000-of-00001'
    path.write_bytes(data)
    with pytest.raises(UserError, match=f'{path}.*damaged after'):
        _main(*TINY, f'--records={path}', f'--run_dir={tmp_path}/run', '--on_bad_record=stop')


@pytest.mark.slow
@pytest.mark.parametrize(('flags', 'words'), [
    (['--on_bad_record=stop'], 'clip.: bad_frame.*on_bad_record=skip'),
    ([], 'no full batch of usable clips.*8 bad_frame'),
])
def test_frames_that_are_no_pictures(tmp_path, flags, words):
    sound = np.zeros(48000, np.int16)
    with tf.io.TFRecordWriter(str(tmp_path / 'broken')) as writer:
        for number in range(8):
            video = records.Video(f'clip{number}', [b'no picture'] * 75, 25.0, 8, 8, sound, 16000)
            writer.write(records.encode(video))
    with pytest.raises(UserError, match=words):
        _main(*TINY, f'--records={tmp_path}/broken', f'--run_dir={tmp_path}/run', *flags)


def _shown(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        command_line.read(list(arguments))
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_lists_the_modes_a_line_each(capsys):
    lines = _shown(capsys, '--help').splitlines()
    for mode in commands.modes():
        line, = [line for line in lines if line.startswith(f'  {mode} ')]
        assert len(line) <= 120 and line.endswith('.')


def test_every_parameter_is_a_flag_with_help(capsys):
    shown = _shown(capsys, '--mode=train', '--help')
    assert all(f'  --{field.name}' in shown for _, field in parameters())


@pytest.mark.parametrize('mode', commands.modes())
def test_help_on_a_mode_shows_its_flags_only(mode, capsys):
    shown = _shown(capsys, f'--mode={mode}', '--help')
    command = commands.load(mode)
    own = {flag.name for group in command.FLAGS.values() for flag in group}
    named = set(re.findall(r'^  --(\w+)', shown, re.M))
    config = {'preset', *(field.name for _, field in parameters())}
    assert named == own | (config if command.PARAMETERS else set())
    assert max(map(len, shown.splitlines())) <= 120


def test_without_arguments_it_trains_on_the_demo():
    call = command_line.read([])
    assert call.func is commands.load('train').run
    assert call.args[0].records is None and call.args[0].parameters == {}


def test_a_flag_file_may_name_the_mode(tmp_path):
    (tmp_path / 'flags').write_text('--mode=offset\n--min_confidence=0.5\n')
    call = command_line.read([f'--flagfile={tmp_path}/flags'])
    assert call.func is commands.load('offset').run and call.args[0].min_confidence == 0.5


@pytest.mark.parametrize(('flags', 'words'), [
    (['--mode=offset', '--trials=3'], '--trials: .*only for tune'),
    (['--mode=evaluate', '--nofreeze'], '--nofreeze: .*only for action_recognition'),
    (['--mode=never'], '--mode=never: use one of'),
    (['--margn=1'], "'margn'. Did you mean: margin"),
])
def test_flags_that_do_not_belong_are_refused(flags, words):
    with pytest.raises(UserError) as error:
        command_line.read(flags)
    assert re.search(words, error.value.on_command_line())


@pytest.mark.parametrize(('flags', 'expected'), [
    (['--mode=evaluate', '--checkpoint=best', '--windows_per_record=2', '--shortcuts'],
     {'checkpoint': 'best', 'windows_per_record': 2, 'shortcuts': True, 'parameters': {}}),
    (['--mode=offset', '--input=a', '--input=b', '--max_offset_seconds=0.5', '--fix'],
     {'input': ['a', 'b'], 'max_offset_seconds': 0.5, 'fix': True}),
    (['--mode=tune', '--records=t', '--trials=3', '--margin=0.7', '--flip=false'],
     {'preset': None, 'records': 't', 'trials': 3, 'parameters': {'margin': 0.7, 'flip': False}}),
    (['--records=t', '--noflip', '--checkpoint_minutes=2', '--deterministic'],
     {'records': 't', 'checkpoint_minutes': 2.0, 'deterministic': True,
      'parameters': {'flip': False}}),
    (['--mode=action_recognition', '--splits=1,2'], {'splits': ['1', '2'], 'init_run_dir': None}),
])
def test_flags_reach_the_mode(flags, expected):
    assert expected.items() <= vars(command_line.read(flags).args[0]).items()


def test_without_records_a_world_is_made_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(_demo, 'VIDEOS', {'train': (6, 0), 'eval': (3, 1)})
    for _ in range(2):
        flags = command_line.read([f'--run_dir={tmp_path}/run']).args[0]
        calls.append(_demo.records_or_demo(flags)[1:])
    (config, train, held), again = calls
    assert again == calls[0] and config == make_config('tiny')
    assert [sum(count for _, count in find_shards(pattern)) for pattern in (train, held)] == [6, 3]


# A run that is finished.

def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
            if path.is_file()}


@pytest.fixture
def copied(finished, tmp_path):
    """The flags of the finished training, and a copy of its run folder."""
    folder, flags, _ = finished
    shutil.copytree(folder / 'unbroken', tmp_path / 'run')
    return [*flags, f'--run_dir={tmp_path}/run'], tmp_path / 'run', folder / 'models'


@pytest.mark.parametrize(('flag', 'other'), [
    ('records', 'train-00000-of-*'), ('records', 'held-*-of-*'), ('eval_records', 'train-*-of-*'),
    ('select_records', 'held-*-of-*'),
])
def test_a_finished_run_is_not_overwritten_by_other_records(copied, world, flag, other):
    flags, run, models = copied
    before, exported = _contents(run), _contents(models)
    with pytest.raises(UserError, match=f'{flag}=.*is finished.*Evaluate.*another'):
        _main(*flags, f'--{flag}={world}/{other}')
    assert _contents(run) == before and _contents(models) == exported


def test_what_a_finished_run_has_is_not_made_again(copied, world, capsys, caplog):
    caplog.set_level('INFO', logger='avts_tf')
    flags, run, models = copied
    before, exported = _contents(run), _contents(models)
    # Other globs of the same files.
    _main(*flags, f'--records={world}/train-0000[01]-of-00002,{world}/train-*-of-*',
          f'--eval_records={world}/../{world.name}/held-*-of-*')
    shown = capsys.readouterr().out
    assert 'all 2 epochs are done' in caplog.text
    assert '--mode=evaluate' in shown and 'AVTS accuracy' in shown
    after = _contents(run)
    assert all(after[path] == content for path, content in before.items()
               if path.name != 'config.json')
    assert _contents(models) == exported


@pytest.mark.parametrize(('select', 'flags', 'chosen'), [
    (None, [], None), (None, ['--checkpoint=best'], 'held-*-of-*'),
    ('train-*-of-*', ['--checkpoint=best'], 'train-*-of-*'),
    # Perhaps the parameters were chosen on them: a trial of --mode=tune.
    ('held-*-of-*', [], 'held-*-of-*'),
])
def test_evaluation_knows_what_was_chosen_on(copied, world, monkeypatch, select, flags, chosen):
    _, run, _ = copied
    config, measured = json.loads((run / 'config.json').read_text()), []
    config['inputs']['select_records'] = select and f'{world}/{select}'
    (run / 'config.json').write_text(json.dumps(config))
    monkeypatch.setattr('avts_tf.training.run_folder.load_model', lambda *_: (None, 2))
    monkeypatch.setattr(evaluate, 'measure',
                        lambda *_, **options: measured.append(options['chosen_on']))
    _main('--mode=evaluate', f'--run_dir={run}', *flags)
    assert measured == [chosen and f'{world}/{chosen}']


@pytest.mark.slow
def test_figures_of_what_was_chosen_on_these_records_say_so(copied, world, capsys):
    _, run, _ = copied
    _main('--mode=evaluate', f'--run_dir={run}', '--checkpoint=best',
          f'--eval_records={world}/held-00000-of-00001', '--windows_per_record=1')
    assert 'CHOSEN on these records' in capsys.readouterr().out
    assert json.loads((run / 'result.json').read_text())['sync']['chosen_on_these'] is True
