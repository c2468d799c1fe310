"""Kinetics, AudioSet, UCF101 and HMDB51 are read as they are published."""

import os

from avts_tf.data import datasets
from tests.data.datasets.miniatures import brief, make, message


def test_kinetics(tmp_path):
    columns = 'label,youtube_id,time_start,time_end,split,is_cc\n'
    root = make(
        tmp_path / 'k', 'train/air drumming/abcdefghijk_000010_000020.mp4', '-whole-vid_.webm',
        **{
            'lists/train.csv': columns + '"air drumming",abcdefghijk,10,20,train,0\n'
                               'zumba,-whole-vid_,59,69,train,0\nzumba,goneforever,0,10,train,0\n',
            'lists/val.csv': columns + 'abseiling,-whole-vid_,5,15,val,0\n',
            'lists/notes.csv': 'a,b\n1,2\n',
        },
    )
    assert brief(datasets.find_sources(root, 'kinetics', 'train')) == [
        ('abcdefghijk_000010_000020', 'train/air drumming/abcdefghijk_000010_000020.mp4',
         'air drumming', 'train', 'abcdefghijk', 0.0, None),
        ('-whole-vid__000059_000069', '-whole-vid_.webm', 'zumba', 'train', '-whole-vid_', 59.0,
         69.0),
        ('goneforever_000000_000010', 'goneforever_000000_000010.mp4', 'zumba', 'train',
         'goneforever', 0.0, None),
    ]
    labels = datasets.read_collection(root, 'kinetics').labels
    assert labels == ['abseiling', 'air drumming', 'zumba']
    assert 'train, val' in message(root, 'kinetics', 'test')
    table = 'youtube_id,time_start,time_end\nabcdefghijk,10,20\n'
    no_split = make(tmp_path / 'test', **{'test.csv': table})
    [source] = datasets.find_sources(f'{no_split}/test.csv', 'kinetics')
    assert (source.split, source.label) == ('test', '')
    assert 'youtube_id' in message(make(tmp_path / 'other', 'a.mp4'), 'kinetics')


def test_audioset(tmp_path):
    head = ('# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=3\n'
            '# YTID, start_seconds, end_seconds, positive_labels\n')
    root = make(
        tmp_path / 'a', 'bal/-0RWZT-miFs_420000_430000.flac', 'eval/Y1234567890_.wav',
        'whole_video.mp4',
        **{
            'balanced_train_segments.csv':
                head + '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n'
                'whole_video, 5.500, 15.500, "/m/0k4j"\n',
            'eval_segments.csv':
                head + '1234567890_, 0.000, 8.000, "/m/09x0r"\n'
                'notherenow_, 30.000, 40.000, "/m/09x0r"\n',
        },
    )
    assert brief(datasets.find_sources(root, 'audioset')) == [
        ('-0RWZT-miFs_420000', 'bal/-0RWZT-miFs_420000_430000.flac', '/m/03v3yw',
         'balanced_train', '-0RWZT-miFs', 0.0, None),
        ('whole_video_5500', 'whole_video.mp4', '/m/0k4j', 'balanced_train', 'whole_video', 5.5,
         15.5),
        ('1234567890__0', 'eval/Y1234567890_.wav', '/m/09x0r', 'eval', '1234567890_', 0.0, None),
        ('notherenow__30000', 'notherenow__30000_40000.wav', '/m/09x0r', 'eval', 'notherenow_',
         0.0, None),
    ]
    make(tmp_path / 'a', **{'class_labels_indices.csv': (
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/03v3yw,"Keys, jangling"\n'
        '2,/m/0k4j,"Car"\n3,/m/05zppz,"Male speech"\n'
    )})
    collection = datasets.read_collection(f'{root}/eval_segments.csv', 'audioset')
    assert [s.label for s in collection.sources] == ['Speech', 'Speech']
    assert collection.labels == ['Car', 'Keys, jangling', 'Male speech', 'Speech']
    # A class that the list lacks: another label of the row is taken, or it stays as it is.
    make(tmp_path / 'a', **{'eval_segments.csv': (
        head + '1234567890_, 0.000, 8.000, "/m/xx,/m/09x0r"\n'
        'notherenow_, 30.000, 40.000, "/m/xx"\n')})
    collection = datasets.read_collection(f'{root}/eval_segments.csv', 'audioset')
    assert [s.label for s in collection.sources] == ['Speech', '/m/xx']
    assert {s.label for s in collection.sources} <= set(collection.labels)


def test_ucf101(tmp_path):
    names = [
        'HandstandPushups/v_HandStandPushups_g01_c01.avi',
        'HandstandPushups/v_HandStandPushups_g08_c02.avi',
        'YoYo/v_YoYo_g01_c01.avi', 'YoYo/v_YoYo_g08_c01.avi',
    ]
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
        ('HandstandPushups/v_HandStandPushups_g08_c02', 'HandstandPushups', 'train1',
         'HandStandPushups_g08'),
        ('YoYo/v_YoYo_g08_c01', 'YoYo', 'train1', 'YoYo_g08'),
    ]
    assert [os.path.isfile(s.path) for s in train] == [True, False]
    assert [s.data_path for s in train] == [f'UCF-101/{names[1]}', names[3]]
    test = datasets.find_sources(root, 'ucf101', 'test2')
    assert [s.example_id for s in test] == [s.example_id for s in train]
    assert [s.split for s in datasets.find_sources(root, 'ucf101')] == [''] * 4
    assert 'test1, test2, train1, train2' in message(root, 'ucf101', 'train3')
    assert 'trainlist01.txt' in message(make(tmp_path / 'no', 'a.avi'), 'ucf101')


def test_hmdb51(tmp_path):
    names = [f'April_09_brush_hair_u_nm_np1_ba_goo_{i}.avi' for i in range(3)]
    walk = 'April_09_walk_f_cm_np1_fr_med_0.avi'
    root = make(
        tmp_path / 'h', *(f'videos/brush_hair/{name}' for name in names), f'videos/walk/{walk}',
        **{
            'splits/brush_hair_test_split1.txt':
                f'{names[0]} 1 \n{names[1]} 2 \n{names[2]} 0 \n',
            'splits/brush_hair_test_split3.txt':
                f'{names[0]} 2 \n{names[1]} 1 \n{names[2]} 1 \n',
            'splits/walk_test_split1.txt': f'{walk} 1 \n',
        },
    )
    found = {split: [s.data_path for s in datasets.find_sources(root, 'hmdb51', split)]
             for split in ('train1', 'test1', 'train3')}
    brush = [f'videos/brush_hair/{name}' for name in names]
    assert found == {'train1': [brush[0], f'videos/walk/{walk}'], 'test1': [brush[1]],
                     'train3': brush[1:]}
    sources = datasets.find_sources(root, 'hmdb51')
    assert [s.label for s in sources] == ['brush_hair'] * 3 + ['walk']
    assert {s.group for s in sources} == {'April_09'}
    make(tmp_path / 'h', **{'splits/walk_test_split1.txt': f'{walk} 3\n'})
    assert walk in message(root, 'hmdb51')
