"""The house rules that can be checked: which way imports run, and how long a file may be."""

import ast
import pathlib

import pytest

from tests.helpers import ROOT

# A module imports from its own layer and from those before it, never from a later one.
LAYERS = (
    ('errors',), ('lazy', 'progress', 'signals', 'files', 'config', 'processor'), ('program',),
    ('data',), ('metrics', 'plots'), ('models',), ('training',), ('inference',), ('evaluation',),
    ('experiments',), ('commands',), ('command_line',),
)
LONGEST = 400  # lines
FILES = sorted((ROOT / 'avts_tf').rglob('*.py'))


def layer_of(module: str) -> int:
    """The layer of a module such as `avts_tf.data.records`."""
    name = module.split('.')[1]
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imported_by(path: pathlib.Path, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports; `from a import b` counts as a.b."""
    found, tree = set(), ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f'{node.module}.{name.name}' for name in node.names}
    return found


def module_of(path: pathlib.Path) -> str:
    """`avts_tf/data/records.py` -> `avts_tf.data.records`."""
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


@pytest.mark.parametrize('path', [path for path in FILES if module_of(path) != 'avts_tf'],
                         ids=module_of)
def test_imports_run_one_way(path):
    own = layer_of(module_of(path))
    for name in imported_by(path):
        assert not name.startswith('tfrecords_tools')
        if name.startswith('avts_tf.') and not name.startswith('avts_tf.__'):
            assert layer_of(name) <= own, name


def test_no_module_imports_itself_by_way_of_others():
    known = {module_of(path): path for path in FILES}
    # A name may be a module or a thing in one.
    others = known.keys() - {'avts_tf'}
    graph = {module: {name if name in known else name.rpartition('.')[0]
                      for name in imported_by(path, top_level_only=True)} & others
             for module, path in known.items()}
    done = set()

    def visit(module, above):
        assert module not in above, ' -> '.join([*above, module])
        if module not in done:
            for name in graph[module] - {module}:
                visit(name, [*above, module])
            done.add(module)

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_no_file_is_too_long(path):
    assert len(path.read_text().splitlines()) <= LONGEST
