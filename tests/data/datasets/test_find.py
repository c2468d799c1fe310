"""Datasets are found by name; parts are taken, and what is held out never shares a group."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avts_tf.data import datasets
from tests.data.datasets.miniatures import make, message
from tests.media_files import DATA, needs_data

groups = st.lists(st.text(max_size=8), min_size=1, max_size=60)
fractions = st.floats(0, 1)


def sources_of(groups):
    return [datasets.Source(str(i), f'/{i}', str(i), group=name) for i, name in enumerate(groups)]


def ids(sources):
    return [source.example_id for source in sources]


def test_each_file_is_a_dataset():
    assert set(datasets.DATASETS) == {
        '', 'audioset', 'dcase2014', 'esc10', 'esc50', 'hmdb51', 'kinetics', 'ucf101'}
    audio_only = {name for name, dataset in datasets.DATASETS.items() if dataset.audio_only}
    assert audio_only == {'dcase2014', 'esc10', 'esc50'}
    facts = {name: (dataset.windows_per_clip, dataset.clip_seconds, dataset.folds)
             for name, dataset in datasets.DATASETS.items()}
    assert facts['esc50'] == facts['esc10'] == (10, 5.0, 5)
    assert facts['dcase2014'] == (60, None, 0) and facts[''] == (10, None, 0)
    assert datasets.DATASETS['ucf101'].splits == datasets.DATASETS['hmdb51'].splits


def test_mistakes_are_explained(tmp_path):
    root = make(tmp_path, 'a.mp4')
    assert message(root, 'kinetiks').startswith('dataset=kinetiks: must be one of audioset, ')
    assert 'split=train: ' in message(root, split='train')
    assert 'without parts' in message(root, split='train')
    assert f'input={root}/gone: there is no such file; give' in message(f'{root}/gone')


@given(groups, fractions, fractions, st.integers(0, 59))
def test_hold_out(names, fraction, other, extra):
    sources = sources_of(names)
    train, held = (datasets.hold_out(sources, fraction, side) for side in datasets.SIDES)
    assert sorted(train + held, key=lambda s: int(s.example_id)) == sources  # each once
    assert not {s.group for s in train} & {s.group for s in held}
    # What is held out stays so when other files go, and when the fraction grows.
    kept = [source for source in held if source in sources[extra:]]
    assert datasets.hold_out(sources[extra:], fraction, 'held') == kept
    less, more = (set(datasets.hold_out(sources, part, 'held'))
                  for part in sorted((fraction, other)))
    assert less <= more
    assert datasets.hold_out(sources, 0.0, 'held') == []
    assert datasets.hold_out(sources, 1.0, 'held') == sources


def test_hold_out_takes_about_the_fraction():
    sources = sources_of(f'video {i}' for i in range(4000))
    held = datasets.hold_out(sources, 0.2, 'held')
    assert abs(len(held) - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5
    # The same on every machine and in every version: golden.
    assert ids(datasets.hold_out(sources[:20], 0.2, 'held')) == ['8', '9', '12']


@needs_data
def test_real_lists():
    def facts(collection):
        return {(os.path.basename(s.path), s.label, s.split, s.group) for s in collection.sources}

    collection = datasets.read_collection(f'{DATA}/esc10.csv', 'esc10')
    by_name = datasets.read_collection(f'{DATA}/esc10', 'esc10')
    assert len(collection.sources) == 240 and len(collection.labels) == 10
    assert sorted(collection.splits) == ['fold1', 'fold2', 'fold3']
    assert all(os.path.isfile(source.path) for source in collection.sources)
    assert facts(collection) == facts(by_name)
    first, rest = ({s.group for s in datasets.find_sources(f'{DATA}/esc10.csv', 'esc10', folds)}
                   for folds in ('fold1', 'fold2,fold3'))
    assert not first & rest
    assert len(datasets.find_sources(f'{DATA}/grid_s1.csv', label_column='digit')) == 709


@pytest.mark.parametrize('dataset, name, text', [
    ('kinetics', 'k.csv', 'label,youtube_id,time_start,time_end,split\nx,../../x,0,10,train\n'),
    ('audioset', 'a_segments.csv', '../../x, 0, 10, "/m/1"\n'),
    ('ucf101', 'trainlist01.txt', '../x.avi 1\n'),
    ('hmdb51', 'wave_test_split1.txt', '../../x.avi 1\n'),
    ('esc50', 'esc50.csv', 'filename,fold,category\n1-../../x-A-0.wav,1,dog\n'),
])
def test_names_in_lists_are_no_paths(dataset, name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert '..' in message(str(tmp_path), dataset)
