"""What the programs have in common: --help at once, mistyped flags, no noise; and the package.

The package is what `pip install` makes of them.
"""

import email
import os
import subprocess
import sys
import tomllib
import zipfile

import pytest
from tensorflow.python.util import _pywrap_util_port

from tests.helpers import PATIENCE_SECONDS, ROOT

MAIN = [str(ROOT / 'main.py')]
PROGRAMS = {'main.py': MAIN} | {
    module: ['-m', module]
    for module in ('tfrecords_tools.write', 'tfrecords_tools.inspect', 'tfrecords_tools.synthetic',
                   'tfrecords_tools.beam', 'tfrecords_tools.disguise', 'avts_tf.inference.client')}
SLOW_IMPORTS = ('tensorflow', 'keras', 'matplotlib', 'apache_beam', 'sklearn')
# Runs a program as Python does, and tells at its end which of these it has imported.
TELLING = f'''
import atexit, runpy, sys
slow = {SLOW_IMPORTS}
atexit.register(lambda: print('imported', *(name for name in slow if name in sys.modules)))
sys.argv = sys.argv[1:]
(runpy.run_path(sys.argv[0], run_name='__main__') if sys.argv[0].endswith('.py')
 else runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True))
'''


def _run(*words, **options):
    return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True,
                          cwd=ROOT, timeout=PATIENCE_SECONDS, **options)


@pytest.mark.parametrize('program', PROGRAMS)
def test_help_is_no_failure_and_waits_for_no_library(program):
    process = _run('-c', TELLING, PROGRAMS[program][-1], '--help')
    assert process.returncode == 0, process.stderr
    *text, imported = process.stdout.splitlines()
    assert imported.split() == ['imported']
    assert process.stderr == ''
    told = '\n'.join(text)
    assert ('--mode=MODE' if program == 'main.py' else '--output:') in told


@pytest.mark.parametrize('program', PROGRAMS)
def test_a_flag_that_cannot_be_read_is_one_line(program):
    flag = '--batch_sise=3' if program != 'tfrecords_tools.beam' else '--fps=many'
    process = _run('-c', TELLING, PROGRAMS[program][-1], flag)
    assert process.returncode == 2
    assert process.stdout.split() == ['imported']
    [line] = process.stderr.splitlines()
    assert line.startswith(program.split('.')[-1] + '.py:' if program != 'main.py' else 'main.py:')
    assert 'batch_si' in line or 'fps=many' in line


@pytest.mark.parametrize(('program', 'flags'), [
    pytest.param('main.py', ['--mode=evaluate', '--run_dir=nowhere'], marks=pytest.mark.slow),
    ('tfrecords_tools.write', ['--input=nowhere', '--output=nowhere/set']),
    pytest.param('tfrecords_tools.inspect', ['nowhere'], marks=pytest.mark.slow),
    pytest.param('tfrecords_tools.beam', ['--input=nowhere', '--output=nowhere/set'],
                 marks=pytest.mark.slow),
    pytest.param('avts_tf.inference.client',
                 ['--server=localhost:1', '--retries=0', f'--input={__file__}'],
                 marks=pytest.mark.slow),
])
def test_a_mistake_is_one_line_without_noise(program, flags):
    process = _run(*PROGRAMS[program], *flags)
    assert process.returncode == 2
    [line] = (process.stdout + process.stderr).splitlines()
    assert 'nowhere' in line or 'localhost:1' in line or 'column' in line


def test_a_name_that_is_no_text_is_shown(tmp_path):
    path = os.fsencode(tmp_path) + b'/a\xff.mp4'
    with open(path, 'wb') as file:
        file.write(b'no video')
    process = _run(*PROGRAMS['tfrecords_tools.disguise'], b'--input=' + path,
                   f'--output={tmp_path}/out',
                   env={**os.environ, 'PYTHONIOENCODING': 'utf-8:strict'})
    assert process.returncode == 0, process.stderr
    assert 'a\\udcff.mp4: left out' in process.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel of this folder, built without a network: setuptools is there."""
    folder = tmp_path_factory.mktemp('wheel')
    # A copy, because setuptools leaves build/ and *.egg-info beside what it builds.
    process = _run('-c', BUILD, str(ROOT), str(folder))
    assert process.returncode == 0, process.stderr
    [path] = folder.glob('*.whl')
    return path


BUILD = '''
import os, pathlib, shutil, sys
source, folder = map(pathlib.Path, sys.argv[1:])
copy = folder / 'copy'
copy.mkdir()
for name in ('avts_tf', 'tfrecords_tools'):
    shutil.copytree(source / name, copy / name)
for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(source / name, copy)
os.chdir(copy)
from setuptools import build_meta
build_meta.build_wheel(str(folder))
'''


def test_wheel_has_the_program_and_nothing_at_the_top_level(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    at_the_top = {name.split('/')[0] for name in names if 'dist-info' not in name}
    assert at_the_top == {'avts_tf', 'tfrecords_tools'}
    assert 'avts_tf/py.typed' in names and 'tfrecords_tools/py.typed' in names
    modules = {str(path.relative_to(ROOT)) for top in ('avts_tf', 'tfrecords_tools')
               for path in (ROOT / top).rglob('*.py')}
    assert modules == {name for name in names if name.endswith('.py')}


def test_installed_program_is_main(wheel, tmp_path):
    process = _run('-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps',
                   '--no-index', '--target', str(tmp_path), str(wheel))
    assert process.returncode == 0, process.stderr
    environment = {'PYTHONPATH': str(tmp_path), 'PATH': '/usr/bin:/bin'}
    outside = tmp_path / 'elsewhere'
    outside.mkdir()

    def avts(*flags):
        return subprocess.run([sys.executable, str(tmp_path / 'bin/avts'), *flags], check=False,
                              capture_output=True, text=True, cwd=outside, env=environment,
                              timeout=PATIENCE_SECONDS)

    shown, ours = avts('--help'), _run(*MAIN, '--help')
    assert shown.returncode == ours.returncode == 0
    assert (shown.stdout.replace(str(tmp_path / 'bin/avts'), 'PROGRAM')
            == ours.stdout.replace(MAIN[0], 'PROGRAM'))
    mistaken = avts('--batch_size=many')
    assert mistaken.returncode == 2 and mistaken.stderr.startswith('avts: ')


def test_package_asks_for_ranges_that_hold_the_pins(wheel):
    with zipfile.ZipFile(wheel) as file:
        [name] = [name for name in file.namelist() if name.endswith('METADATA')]
        metadata = email.message_from_bytes(file.read(name))
    from packaging.requirements import Requirement
    asked = {found.name: found.specifier
             for found in map(Requirement, metadata.get_all('Requires-Dist'))}
    pinned = [Requirement(line) for line in (ROOT / 'requirements.txt').read_text().split('\n')
              if line]
    assert set(asked) == {pin.name for pin in pinned}
    for pin in pinned:
        versions = [clause.version for clause in pin.specifier]
        assert all(version in asked[pin.name] for version in versions)
        assert all(clause.operator != '==' for clause in asked[pin.name])
    version = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']
    import avts_tf
    assert metadata['Version'] == version == avts_tf.__version__


@pytest.mark.parametrize('given', [None, '0'])
@pytest.mark.parametrize('module', [
    'avts_tf.command_line', 'avts_tf.inference.client', 'avts_tf.data.workers',
    'tfrecords_tools.write',
])
def test_onednn_is_on_unless_the_user_says_otherwise(module, given):
    name = 'TF_ENABLE_ONEDNN_OPTS'
    environment = ({key: value for key, value in os.environ.items() if key != name}
                   | ({name: given} if given else {}))
    code = f'import os, sys, {module}; print(os.environ[{name!r}], "tensorflow" in sys.modules)'
    assert _run('-c', code, env=environment).stdout.split() == [given or '1', 'False']


def test_onednn_is_on_in_these_tests():
    assert _pywrap_util_port.IsMklEnabled() or os.environ['TF_ENABLE_ONEDNN_OPTS'] == '0'


@pytest.mark.slow
def test_tensorflow_imported_first_is_said_where_it_has_onednn_off():
    environment = {key: value for key, value in os.environ.items()
                   if key != 'TF_ENABLE_ONEDNN_OPTS'}
    code = ('import tensorflow; from tensorflow.python.util import _pywrap_util_port as port\n'
            'on = port.IsMklEnabled(); import avts_tf; print(on)')
    process = _run('-W', 'default', '-c', code, env=environment)
    assert ('imported before avts_tf' in process.stderr) == (process.stdout.split() == ['False'])
