"""Your own files: folders, globs, single files, and CSVs that name them."""

import os

from avts_tf.data import datasets
from tests.data.datasets.miniatures import brief, make, message


def test_folder_glob_and_file(tmp_path):
    root = make(tmp_path / 'in', 'b/two.mp4', 'a/one.MKV', 'a/deep/one.mov', 'top.mp4',
                'a/.hidden.mp4', 'a/sound.wav', 'a/x.txt')
    sources = datasets.find_sources(root)
    assert [(s.example_id, s.data_path, s.label) for s in sources] == [
        ('a/deep/one', 'a/deep/one.mov', 'a'), ('a/one', 'a/one.MKV', 'a'),
        ('b/two', 'b/two.mp4', 'b'), ('top', 'top.mp4', ''),
    ]
    assert all(os.path.isabs(s.path) and os.path.isfile(s.path) for s in sources)
    assert all(s.group == s.data_path for s in sources)
    one_level = datasets.find_sources(f'{root}/*/*.[mM]*')
    assert [s.data_path for s in one_level] == ['a/one.MKV', 'b/two.mp4']
    assert [s.label for s in one_level] == ['a', 'b']
    deep = datasets.find_sources(f'{root}/**/one.*')
    assert [s.data_path for s in deep] == ['a/deep/one.mov', 'a/one.MKV']
    assert [s.example_id for s in datasets.find_sources(f'{root}/a/one.MKV')] == ['one']
    sounds = make(tmp_path / 'sounds', 'dog/a.wav', 'cat/a.ogg', 'cat/b.flac')
    assert [(s.example_id, s.label) for s in datasets.find_sources(sounds)] == [
        ('cat/a', 'cat'), ('cat/b', 'cat'), ('dog/a', 'dog')]
    same = make(tmp_path / 'same', 'x.mp4', 'x.mov')
    assert [s.example_id for s in datasets.find_sources(same)] == ['x.mov', 'x.mp4']
    assert 'no file matches' in message(f'{root}/*.avi')
    assert '.mp4' in message(make(tmp_path / 'none', 'a.txt'))
    assert message(root, label_column='x').startswith('label_column=x: only for a CSV')
    both = [s.example_id for s in datasets.find_media(root)]
    assert both == ['a/deep/one', 'a/one', 'a/sound', 'b/two', 'top']


def test_csv(tmp_path):
    root = make(tmp_path / 'in', **{'list.csv': (
        'colour,video_path,start_seconds,end_seconds,split,size\n'
        'red,v/b.mp4,10,20.5,train,1\n'
        'blue,v/b.mp4,0.25,,train,2\n'
        '"a, b",v/a.mp4,,,test,3\n'
    )})
    table = f'{root}/list.csv'
    assert brief(datasets.find_sources(table)) == [
        ('v/b_10_20.5', 'v/b.mp4', 'red', 'train', 'v/b.mp4', 10.0, 20.5),
        ('v/b_0.25_end', 'v/b.mp4', 'blue', 'train', 'v/b.mp4', 0.25, None),
        ('v/a', 'v/a.mp4', 'a, b', 'test', 'v/a.mp4', 0.0, None),
    ]
    [by_size] = datasets.find_sources(table, split='test', label_column='size')
    assert by_size.label == '3'
    train = datasets.find_sources(table, split='train')
    assert [s.example_id for s in train] == ['v/b_10_20.5', 'v/b_0.25_end']
    assert datasets.read_collection(table).labels == ['a, b', 'blue', 'red']  # of all parts
    assert 'it has test, train' in message(table, split='val')
    assert 'size' in message(table, label_column='shape')


def test_mistakes_in_a_csv_are_explained(tmp_path):
    def bad(text):
        (tmp_path / 'bad.csv').write_text(text)
        return message(str(tmp_path / 'bad.csv'))

    assert f'{tmp_path}/bad.csv, line 3: ' in bad('path,start_seconds\na.mp4,1\na.mp4,1\n')
    assert 'line 2' in bad('path,start_seconds\na.mp4,soon\n')
    assert 'line 2' in bad('path,start_seconds\na.mp4,-1\n')
    assert 'not after' in bad('path,start_seconds,end_seconds\na.mp4,3,2\n')
    assert 'more cells' in bad('path,label\na.mp4,laugh, loud\n')
    assert 'one side' in bad('path,start_seconds,split\na.mp4,1,train\na.mp4,2,test\n')
    assert 'video_path' in bad('file,label\na.mp4,x\n')
    assert 'only the first line' in bad('path\n') and 'line 2' in bad('label,path\nx,\n')
    (tmp_path / 'bad.csv').write_bytes(b'\xff\xfe')
    assert 'not a CSV in UTF-8' in message(str(tmp_path / 'bad.csv'))


def test_names_that_are_not_utf8_stay_apart(tmp_path):
    for name in (b'caf\xe9.wav', b'caf\xe8.wav', 'caf\u00e9.wav'.encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b'')
    sources = datasets.find_sources(str(tmp_path))
    names = sorted(source.example_id for source in sources)
    assert names == ['caf\\xe8', 'caf\\xe9', 'caf\u00e9']
    assert all(os.path.exists(source.path) for source in sources)


def test_what_is_no_file_is_named_or_reported(tmp_path):
    os.mkfifo(tmp_path / 'fifo.mp4')
    os.symlink('loop.mp4', tmp_path / 'loop.mp4')
    assert 'it is a FIFO' in message(str(tmp_path / 'fifo.mp4'))
    assert 'leads back to itself' in message(str(tmp_path / 'loop.mp4'))
    assert 'NUL' in message('a\0b.mp4') and 'too long' in message(str(tmp_path / ('a' * 300)))
    for path in (tmp_path, tmp_path / '*.mp4'):  # each is a source, so that a report names it
        assert [s.example_id for s in datasets.find_sources(str(path))] == ['fifo', 'loop']
