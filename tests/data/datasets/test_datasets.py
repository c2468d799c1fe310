"""Every layout is read as it is published: a made-up miniature of each, and a split that keeps parts of one source together."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avts_tf.data import datasets
from avts_tf.errors import UserError


def make(root, *names, **texts):
    """Makes empty files of such names, and files with texts; returns the folder as text."""
    for name, text in {**dict.fromkeys(names, ''), **texts}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    return str(root)


def brief(sources):
    return [(s.example_id, s.data_path, s.label, s.split, s.group, s.start_seconds, s.end_seconds) for s in sources]


def message(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        datasets.find_sources(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_folder_glob_and_file(tmp_path):
    root = make(tmp_path / 'in', 'b/two.mp4', 'a/one.MKV', 'a/deep/one.mov', 'top.mp4', 'a/.hidden.mp4', 'a/sound.wav', 'a/x.txt')
    sources = datasets.find_sources(root)
    assert [(s.example_id, s.data_path, s.label) for s in sources] == [
        ('a/deep/one', 'a/deep/one.mov', 'a'), ('a/one', 'a/one.MKV', 'a'), ('b/two', 'b/two.mp4', 'b'), ('top', 'top.mp4', ''),
    ]
    assert all(os.path.isabs(s.path) and os.path.isfile(s.path) and s.group == s.data_path for s in sources)
    assert [s.data_path for s in datasets.find_sources(f'{root}/*/*.[mM]*')] == ['a/one.MKV', 'b/two.mp4']
    assert [s.label for s in datasets.find_sources(f'{root}/*/*.[mM]*')] == ['a', 'b']
    assert [s.data_path for s in datasets.find_sources(f'{root}/**/one.*')] == ['a/deep/one.mov', 'a/one.MKV']
    assert [s.example_id for s in datasets.find_sources(f'{root}/a/one.MKV')] == ['one']
    sounds = make(tmp_path / 'sounds', 'dog/a.wav', 'cat/a.ogg', 'cat/b.flac')
    assert [(s.example_id, s.label) for s in datasets.find_sources(sounds)] == [('cat/a', 'cat'), ('cat/b', 'cat'), ('dog/a', 'dog')]
    same = make(tmp_path / 'same', 'x.mp4', 'x.mov')
    assert [s.example_id for s in datasets.find_sources(same)] == ['x.mov', 'x.mp4']
    assert 'no file matches' in message(f'{root}/*.avi') and '.mp4' in message(make(tmp_path / 'none', 'a.txt'))
    assert 'no such file' in message(f'{root}/gone') and 'label_column=x: only for a CSV' in message(root, label_column='x')
    assert 'must be one of' in message(root, 'kinetiks') and 'without parts' in message(root, split='train')


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
    assert [s.label for s in datasets.find_sources(table, split='test', label_column='size')] == ['3']
    assert [s.example_id for s in datasets.find_sources(table, split='train')] == ['v/b_10_20.5', 'v/b_0.25_end']
    assert datasets.read_collection(table).labels == ['a, b', 'blue', 'red']  # of all parts
    assert 'it has test, train' in message(table, split='val')

    def bad(text):
        (tmp_path / 'bad.csv').write_text(text)
        return message(str(tmp_path / 'bad.csv'))

    assert 'line 3' in bad('path,start_seconds\na.mp4,1\na.mp4,1\n')
    assert 'line 2' in bad('path,start_seconds\na.mp4,soon\n') and 'line 2' in bad('path,start_seconds\na.mp4,-1\n')
    assert 'not after' in bad('path,start_seconds,end_seconds\na.mp4,3,2\n')
    assert 'more cells' in bad('path,label\na.mp4,laugh, loud\n')
    assert 'one side' in bad('path,start_seconds,split\na.mp4,1,train\na.mp4,2,test\n')
    assert 'video_path' in bad('file,label\na.mp4,x\n') and 'only the first line' in bad('path\n')
    assert 'line 2' in bad('label,path\nx,\n') and 'size' in message(table, label_column='shape')


def test_names_that_are_not_utf8_stay_apart(tmp_path):
    for name in (b'caf\xe9.wav', b'caf\xe8.wav', 'caf\u00e9.wav'.encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b'')
    sources = datasets.find_sources(str(tmp_path))
    assert sorted(source.example_id for source in sources) == ['caf\\xe8', 'caf\\xe9', 'caf\u00e9']
    assert all(os.path.exists(source.path) for source in sources)


def test_what_is_no_file_is_named_or_reported(tmp_path):
    os.mkfifo(tmp_path / 'fifo.mp4')
    os.symlink('loop.mp4', tmp_path / 'loop.mp4')
    assert 'it is a FIFO' in message(str(tmp_path / 'fifo.mp4')) and 'leads back to itself' in message(str(tmp_path / 'loop.mp4'))
    assert 'NUL' in message('a\0b.mp4') and 'too long' in message(str(tmp_path / ('a' * 300)))
    for path in (tmp_path, tmp_path / '*.mp4'):  # each is a source, so that a report names it
        assert [source.example_id for source in datasets.find_sources(str(path))] == ['fifo', 'loop']


def test_names_in_lists_are_no_paths(tmp_path):
    tables = {
        'kinetics': ('k.csv', 'label,youtube_id,time_start,time_end,split\nx,../../x,0,10,train\n'),
        'audioset': ('a_segments.csv', '../../x, 0, 10, "/m/1"\n'), 'ucf101': ('trainlist01.txt', '../x.avi 1\n'),
        'hmdb51': ('wave_test_split1.txt', '../../x.avi 1\n'),
        'esc50': ('esc50.csv', 'filename,fold,category\n1-../../x-A-0.wav,1,dog\n'),
    }
    for dataset, (name, text) in tables.items():
        folder = tmp_path / dataset
        folder.mkdir()
        (folder / name).write_text(text)
        assert '..' in message(str(folder), dataset)


def test_kinetics(tmp_path):
    root = make(
        tmp_path / 'k', 'train/air drumming/abcdefghijk_000010_000020.mp4', '-whole-vid_.webm',
        **{
            'lists/train.csv': 'label,youtube_id,time_start,time_end,split,is_cc\n"air drumming",abcdefghijk,10,20,train,0\n'
                               'zumba,-whole-vid_,59,69,train,0\nzumba,goneforever,0,10,train,0\n',
            'lists/val.csv': 'label,youtube_id,time_start,time_end,split,is_cc\nabseiling,-whole-vid_,5,15,val,0\n',
            'lists/notes.csv': 'a,b\n1,2\n',
        },
    )
    assert brief(datasets.find_sources(root, 'kinetics', 'train')) == [
        ('abcdefghijk_000010_000020', 'train/air drumming/abcdefghijk_000010_000020.mp4', 'air drumming', 'train', 'abcdefghijk',
         0.0, None),
        ('-whole-vid__000059_000069', '-whole-vid_.webm', 'zumba', 'train', '-whole-vid_', 59.0, 69.0),
        ('goneforever_000000_000010', 'goneforever_000000_000010.mp4', 'zumba', 'train', 'goneforever', 0.0, None),
    ]
    assert datasets.read_collection(root, 'kinetics').labels == ['abseiling', 'air drumming', 'zumba']
    assert 'train, val' in message(root, 'kinetics', 'test')
    no_split = make(tmp_path / 'test', **{'test.csv': 'youtube_id,time_start,time_end\nabcdefghijk,10,20\n'})
    assert [(s.split, s.label) for s in datasets.find_sources(f'{no_split}/test.csv', 'kinetics')] == [('test', '')]
    assert 'youtube_id' in message(make(tmp_path / 'other', 'a.mp4'), 'kinetics')


def test_audioset(tmp_path):
    lines = '# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=3\n# YTID, start_seconds, end_seconds, positive_labels\n'
    root = make(
        tmp_path / 'a', 'bal/-0RWZT-miFs_420000_430000.flac', 'eval/Y1234567890_.wav', 'whole_video.mp4',
        **{
            'balanced_train_segments.csv': lines + '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n'
                                                   'whole_video, 5.500, 15.500, "/m/0k4j"\n',
            'eval_segments.csv': lines + '1234567890_, 0.000, 8.000, "/m/09x0r"\nnotherenow_, 30.000, 40.000, "/m/09x0r"\n',
        },
    )
    assert brief(datasets.find_sources(root, 'audioset')) == [
        ('-0RWZT-miFs_420000', 'bal/-0RWZT-miFs_420000_430000.flac', '/m/03v3yw', 'balanced_train', '-0RWZT-miFs', 0.0, None),
        ('whole_video_5500', 'whole_video.mp4', '/m/0k4j', 'balanced_train', 'whole_video', 5.5, 15.5),
        ('1234567890__0', 'eval/Y1234567890_.wav', '/m/09x0r', 'eval', '1234567890_', 0.0, None),
        ('notherenow__30000', 'notherenow__30000_40000.wav', '/m/09x0r', 'eval', 'notherenow_', 0.0, None),
    ]
    make(tmp_path / 'a', **{'class_labels_indices.csv': (
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/03v3yw,"Keys, jangling"\n2,/m/0k4j,"Car"\n3,/m/05zppz,"Male speech"\n'
    )})
    collection = datasets.read_collection(f'{root}/eval_segments.csv', 'audioset')
    assert [s.label for s in collection.sources] == ['Speech', 'Speech']
    assert collection.labels == ['Car', 'Keys, jangling', 'Male speech', 'Speech']


def test_ucf101(tmp_path):
    names = ['HandstandPushups/v_HandStandPushups_g01_c01.avi', 'HandstandPushups/v_HandStandPushups_g08_c02.avi',
             'YoYo/v_YoYo_g01_c01.avi', 'YoYo/v_YoYo_g08_c01.avi']
    root = make(
        tmp_path / 'u', *(f'UCF-101/{name}' for name in names[:3]),
        **{
            'ucfTrainTestlist/classInd.txt': '1 HandstandPushups\r\n2 YoYo\r\n',
            'ucfTrainTestlist/trainlist01.txt': f'{names[1]} 1\r\n{names[3]} 2\r\n',
            'ucfTrainTestlist/testlist01.txt': f'{names[0]}\r\n{names[2]}\r\n',
            'ucfTrainTestlist/trainlist02.txt': f'{names[0]} 1\n{names[2]} 2\n',
            'ucfTrainTestlist/testlist02.txt': f'{names[1]}\n{names[3]}\n',
        },
    )
    train = datasets.find_sources(root, 'ucf101', 'train1')
    assert [(s.example_id, s.label, s.split, s.group) for s in train] == [
        ('HandstandPushups/v_HandStandPushups_g08_c02', 'HandstandPushups', 'train1', 'HandStandPushups_g08'),
        ('YoYo/v_YoYo_g08_c01', 'YoYo', 'train1', 'YoYo_g08'),
    ]
    assert [os.path.isfile(s.path) for s in train] == [True, False]
    assert train[0].data_path == f'UCF-101/{names[1]}' and train[1].data_path == names[3]
    assert [s.example_id for s in datasets.find_sources(root, 'ucf101', 'test2')] == [s.example_id for s in train]
    assert [s.split for s in datasets.find_sources(root, 'ucf101')] == [''] * 4
    assert 'test1, test2, train1, train2' in message(root, 'ucf101', 'train3')
    assert 'trainlist01.txt' in message(make(tmp_path / 'no', 'a.avi'), 'ucf101')


def test_hmdb51(tmp_path):
    names = [f'April_09_brush_hair_u_nm_np1_ba_goo_{i}.avi' for i in range(3)]
    walk = 'April_09_walk_f_cm_np1_fr_med_0.avi'
    root = make(
        tmp_path / 'h', *(f'videos/brush_hair/{name}' for name in names), f'videos/walk/{walk}',
        **{
            'splits/brush_hair_test_split1.txt': f'{names[0]} 1 \n{names[1]} 2 \n{names[2]} 0 \n',
            'splits/brush_hair_test_split3.txt': f'{names[0]} 2 \n{names[1]} 1 \n{names[2]} 1 \n',
            'splits/walk_test_split1.txt': f'{walk} 1 \n',
        },
    )
    found = {split: [s.data_path for s in datasets.find_sources(root, 'hmdb51', split)] for split in ('train1', 'test1', 'train3')}
    brush = [f'videos/brush_hair/{name}' for name in names]
    assert found == {'train1': [brush[0], f'videos/walk/{walk}'], 'test1': [brush[1]], 'train3': brush[1:]}
    sources = datasets.find_sources(root, 'hmdb51')
    assert [s.label for s in sources] == ['brush_hair'] * 3 + ['walk'] and {s.group for s in sources} == {'April_09'}
    make(tmp_path / 'h', **{'splits/walk_test_split1.txt': f'{walk} 3\n'})
    assert walk in message(root, 'hmdb51')


def test_esc(tmp_path):
    meta = ('filename,fold,target,category,esc10,src_file,take\n1-100032-A-0.wav,1,0,dog,True,100032,A\n'
            '1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n5-100032-B-0.wav,5,0,dog,True,100032,B\n')
    root = make(tmp_path / 'e', 'audio/1-100032-A-0.wav', 'audio/1-100038-A-14.wav', **{'meta/esc50.csv': meta})
    expected = [
        ('1-100032-A-0', 'audio/1-100032-A-0.wav', 'dog', 'fold1', '100032', 0.0, None),
        ('1-100038-A-14', 'audio/1-100038-A-14.wav', 'chirping_birds', 'fold1', '100038', 0.0, None),
        ('5-100032-B-0', 'audio/5-100032-B-0.wav', 'dog', 'fold5', '100032', 0.0, None),
    ]
    assert brief(datasets.find_sources(root, 'esc50')) == brief(datasets.find_sources(f'{root}/meta/esc50.csv', 'esc50')) == expected
    assert brief(datasets.find_sources(root, 'esc10')) == [expected[0], expected[2]]
    assert brief(datasets.find_sources(root, 'esc50', 'fold5')) == expected[2:]
    assert [s.split for s in datasets.find_sources(root, 'esc50', 'fold5,fold1')] == ['fold1', 'fold1', 'fold5']
    # Without the list, by the names.
    names = make(tmp_path / 'names', '1-100032-A-0.ogg', '2-7-B-14.ogg')
    assert [(s.label, s.split, s.group) for s in datasets.find_sources(names, 'esc50')] == [
        ('dog', 'fold1', '100032'), ('chirping_birds', 'fold2', '7')]
    assert [s.label for s in datasets.find_sources(names, 'esc10')] == ['dog']
    words = make(tmp_path / 'words', '1-100032-A-dog_bark.ogg', '3-8-A-sea_waves.ogg')
    assert [(s.label, s.split) for s in datasets.find_sources(words, 'esc10')] == [('dog_bark', 'fold1'), ('sea_waves', 'fold3')]
    old = make(tmp_path / 'old', '001 - Dog bark/1-30226-A.ogg')
    assert [(s.label, s.split) for s in datasets.find_sources(old, 'esc10')] == [('Dog bark', 'fold1')]
    table = make(tmp_path / 'table', **{'t.csv': 'audio_path,fold,label\nx/1-100032-A-dog_bark.ogg,1,bark\nx/mine.ogg,2,mine\n'})
    assert [(s.label, s.split, s.group) for s in datasets.find_sources(f'{table}/t.csv', 'esc10')] == [
        ('bark', 'fold1', '100032'), ('mine', 'fold2', 'x/mine.ogg')]
    assert 'FOLD-SOURCE-TAKE' in message(make(tmp_path / 'bad', 'dog.ogg'), 'esc50')


def test_dcase2014(tmp_path):
    root = make(tmp_path / 'd', 'scenes_stereo/bus01.wav', 'scenes_stereo/tubestation10.wav', 'scenes_stereo_testset/bus01.wav')
    assert brief(datasets.find_sources(root, 'dcase2014')) == [
        ('scenes_stereo/bus01', 'scenes_stereo/bus01.wav', 'bus', 'development', 'scenes_stereo/bus01.wav', 0.0, None),
        ('scenes_stereo/tubestation10', 'scenes_stereo/tubestation10.wav', 'tubestation', 'development',
         'scenes_stereo/tubestation10.wav', 0.0, None),
        ('scenes_stereo_testset/bus01', 'scenes_stereo_testset/bus01.wav', 'bus', 'evaluation',
         'scenes_stereo_testset/bus01.wav', 0.0, None),
    ]
    assert [s.split for s in datasets.find_sources(f'{root}/scenes_stereo_testset', 'dcase2014')] == ['evaluation']
    assert [s.example_id for s in datasets.find_sources(root, 'dcase2014', 'evaluation')] == ['scenes_stereo_testset/bus01']


groups = st.lists(st.text(max_size=8), min_size=1, max_size=60)
fractions = st.floats(0, 1)


@given(groups, fractions, fractions, st.integers(0, 59))
def test_hold_out(names, fraction, other, extra):
    sources = [datasets.Source(str(i), f'/{i}', str(i), group=name) for i, name in enumerate(names)]
    train, held = (datasets.hold_out(sources, fraction, part) for part in datasets.SIDES)
    assert sorted(train + held, key=lambda s: int(s.example_id)) == sources  # each once
    assert not {s.group for s in train} & {s.group for s in held}
    # What is held out stays so when other files go, and when the fraction grows.
    assert datasets.hold_out(sources[extra:], fraction, 'held') == [s for s in held if s in sources[extra:]]
    less, more = sorted((fraction, other))
    assert set(datasets.hold_out(sources, less, 'held')) <= set(datasets.hold_out(sources, more, 'held'))
    assert datasets.hold_out(sources, 0.0, 'held') == [] and datasets.hold_out(sources, 1.0, 'held') == sources


def test_hold_out_takes_about_the_fraction():
    sources = [datasets.Source(str(i), '', '', group=f'video {i}') for i in range(4000)]
    assert abs(len(datasets.hold_out(sources, 0.2, 'held')) - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5
    # The same on every machine and in every version: golden.
    assert [s.example_id for s in datasets.hold_out(sources[:20], 0.2, 'held')] == ['8', '9', '12']


@pytest.mark.skipif(not os.environ.get('AVTS_DATA'), reason='AVTS_DATA names no folder with real files')
def test_real_lists():
    data = os.environ['AVTS_DATA']
    collection = datasets.read_collection(f'{data}/esc10.csv', 'esc10')
    by_name = datasets.read_collection(f'{data}/esc10', 'esc10')
    assert len(collection.sources) == 240 and sorted(collection.splits) == ['fold1', 'fold2', 'fold3']
    assert all(os.path.isfile(s.path) for s in collection.sources) and len(collection.labels) == 10
    assert {(os.path.basename(s.path), s.label, s.split, s.group) for s in collection.sources} == {
        (os.path.basename(s.path), s.label, s.split, s.group) for s in by_name.sources}
    first = {s.group for s in datasets.find_sources(f'{data}/esc10.csv', 'esc10', 'fold1')}
    assert not first & {s.group for s in datasets.find_sources(f'{data}/esc10.csv', 'esc10', 'fold2,fold3')}
    assert len(datasets.find_sources(f'{data}/grid_s1.csv', label_column='digit')) == 709
