"""The README's Python runs, and what the documentation names is there."""

import re
import warnings
from collections.abc import Iterator

import pytest

import avts_tf
from avts_tf import commands
from avts_tf.commands._flags import flag_groups
from avts_tf.data.synthetic import write_world
from tests.helpers import ROOT

README = ROOT / 'README.md'
PAGES = [README, ROOT / 'saved_models' / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
BLOCKS = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
# What would take long, and what stands for it here.
SMALLER = {"'small', batch_size=16": "'tiny', frame_size=16, batch_size=4",
           'epochs=90': 'epochs=2'}
# Of the programs of others (docker, hear-validator, pip, tensorboard, tensorflow_model_server,
# tf2onnx), and --name=value.
FOREIGN_FLAGS = {'profile', 'model', 'logdir', 'enable_batching', 'saved-model', 'signature_def',
                 'opset', 'output', 'name', 'no-binary', 'no-deps'}
CODE_FOLDERS = ('avts_tf', 'tfrecords_tools', 'benchmarks', 'docs', 'tests')


# The first blocks load exported towers; the last trains.
@pytest.mark.parametrize('number', [
    *range(len(BLOCKS) - 1), pytest.param(len(BLOCKS) - 1, marks=pytest.mark.slow)])
def test_python_of_the_readme(towers, tmp_path, monkeypatch, number):
    """Word for word but for sizes, and without a warning."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'saved_models').symlink_to(towers)
    write_world('data/train', videos=8, size=24, seconds=2.0)
    code = BLOCKS[number]
    for words, others in SMALLER.items():
        code = code.replace(words, others)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter('always', UserWarning)
        exec(compile(code, f'README.md, Python block {number}', 'exec'), {})
    assert [str(warning.message) for warning in given
            if issubclass(warning.category, UserWarning)] == []


def test_what_is_made_smaller_is_in_the_readme():
    assert all(any(words in block for block in BLOCKS) for words in SMALLER)


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 200


def _flags() -> set[str]:
    """The names of all flags of the modes and of the other programs."""
    names = {flag.name for mode in commands.modes()
             for group in flag_groups(commands.load(mode)).values() for flag in group}
    for folder in ('avts_tf', 'tfrecords_tools', 'benchmarks', 'docs'):
        for path in (ROOT / folder).rglob('*.py'):
            names.update(re.findall(r"(?:DEFINE_\w+\(|add_argument\(|_flag\()\s*'(?:--)?(\w+)'",
                                    path.read_text()))
    return names | {'mode', 'help', 'flagfile'}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_flags_of_the_documentation_exist(page):
    flags = _flags() | FOREIGN_FLAGS
    named = re.findall(r'(?<![-\w])--([a-z][\w-]*)', page.read_text())
    assert [name for name in dict.fromkeys(named)
            if name not in flags and name.removeprefix('no') not in flags] == []


def _paths(page_text: str) -> Iterator[str]:
    """What a page names of this repository, from its root; not what a program makes."""
    pattern = r'(?<![\w/.<-])(?:avts_tf|tfrecords_tools|benchmarks|docs|tests|serving)/[\w./-]*'
    yield from (path.rstrip('.') for path in re.findall(pattern, page_text))
    yield from re.findall(r'(?<![\w/.-])(?:main\.py|Makefile|requirements[\w-]*\.txt|'
                          r'constraints\.txt|pyproject\.toml)', page_text)
    for module in re.findall(r'python -m ((?:avts_tf|tfrecords_tools|benchmarks|docs)[\w.]+)',
                             page_text):
        yield module.replace('.', '/') + '.py'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_of_the_documentation_exist(page):
    text = page.read_text()
    named = [path for path in _paths(text) if 'NAME' not in path]
    assert [path for path in dict.fromkeys(named) if not (ROOT / path).exists()] == []
    prose = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
    links = [link.partition('#')[0] for link in re.findall(r'\]\(([^)\s]+)\)', prose)
             if '://' not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_names_of_the_documentation_exist(page):
    named = re.findall(r'(?<![\w./])avts_tf\.(\w+)', page.read_text())
    assert [name for name in dict.fromkeys(named)
            if name not in avts_tf.__all__ and not (ROOT / 'avts_tf' / name).exists()
            and not (ROOT / 'avts_tf' / f'{name}.py').exists()] == []


def test_pages_that_the_code_names_exist():
    missing = [f'{path.relative_to(ROOT)}: {page}' for folder in CODE_FOLDERS
               for path in (ROOT / folder).rglob('*.py')
               for page in re.findall(r'docs/\w+\.md', path.read_text())
               if not (ROOT / page).exists()]
    assert missing == []


def test_every_page_can_be_reached_from_the_readme():
    linked = set(re.findall(r'\]\((docs/\w+\.md)\)', README.read_text()))
    linked |= {f'docs/{name}' for page in PAGES
               for name in re.findall(r'\]\((\w+\.md)\)', page.read_text())}
    assert {f'docs/{page.name}' for page in PAGES if page.parent.name == 'docs'} - linked == set()
