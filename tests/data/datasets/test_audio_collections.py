"""ESC-50, ESC-10 and DCASE 2014 are read as they are published."""

from avts_tf.data import datasets
from tests.data.datasets.miniatures import brief, make, message


def test_esc_by_its_table(tmp_path):
    meta = ('filename,fold,target,category,esc10,src_file,take\n'
            '1-100032-A-0.wav,1,0,dog,True,100032,A\n'
            '1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n'
            '5-100032-B-0.wav,5,0,dog,True,100032,B\n')
    root = make(tmp_path, 'audio/1-100032-A-0.wav', 'audio/1-100038-A-14.wav',
                **{'meta/esc50.csv': meta})
    expected = [
        ('1-100032-A-0', 'audio/1-100032-A-0.wav', 'dog', 'fold1', '100032', 0.0, None),
        ('1-100038-A-14', 'audio/1-100038-A-14.wav', 'chirping_birds', 'fold1', '100038', 0.0,
         None),
        ('5-100032-B-0', 'audio/5-100032-B-0.wav', 'dog', 'fold5', '100032', 0.0, None),
    ]
    assert brief(datasets.find_sources(root, 'esc50')) == expected
    assert brief(datasets.find_sources(f'{root}/meta/esc50.csv', 'esc50')) == expected
    assert brief(datasets.find_sources(root, 'esc10')) == [expected[0], expected[2]]
    assert brief(datasets.find_sources(root, 'esc50', 'fold5')) == expected[2:]
    two_folds = datasets.find_sources(root, 'esc50', 'fold5,fold1')
    assert [s.split for s in two_folds] == ['fold1', 'fold1', 'fold5']


def test_esc_by_its_names(tmp_path):
    names = make(tmp_path / 'names', '1-100032-A-0.ogg', '2-7-B-14.ogg')
    assert [(s.label, s.split, s.group) for s in datasets.find_sources(names, 'esc50')] == [
        ('dog', 'fold1', '100032'), ('chirping_birds', 'fold2', '7')]
    assert [s.label for s in datasets.find_sources(names, 'esc10')] == ['dog']
    words = make(tmp_path / 'words', '1-100032-A-dog_bark.ogg', '3-8-A-sea_waves.ogg')
    assert [(s.label, s.split) for s in datasets.find_sources(words, 'esc10')] == [
        ('dog_bark', 'fold1'), ('sea_waves', 'fold3')]
    old = make(tmp_path / 'old', '001 - Dog bark/1-30226-A.ogg')
    [bark] = datasets.find_sources(old, 'esc10')
    assert (bark.label, bark.split) == ('Dog bark', 'fold1')
    table = make(tmp_path / 'table', **{'t.csv': (
        'audio_path,fold,label\nx/1-100032-A-dog_bark.ogg,1,bark\nx/mine.ogg,2,mine\n')})
    sources = datasets.find_sources(f'{table}/t.csv', 'esc10')
    assert [(s.label, s.split, s.group) for s in sources] == [
        ('bark', 'fold1', '100032'), ('mine', 'fold2', 'x/mine.ogg')]
    assert 'FOLD-SOURCE-TAKE' in message(make(tmp_path / 'bad', 'dog.ogg'), 'esc50')


def test_dcase2014(tmp_path):
    root = make(tmp_path / 'd', 'scenes_stereo/bus01.wav', 'scenes_stereo/tubestation10.wav',
                'scenes_stereo_testset/bus01.wav')
    test = 'scenes_stereo_testset/bus01'
    assert brief(datasets.find_sources(root, 'dcase2014')) == [
        ('scenes_stereo/bus01', 'scenes_stereo/bus01.wav', 'bus', 'development',
         'scenes_stereo/bus01.wav', 0.0, None),
        ('scenes_stereo/tubestation10', 'scenes_stereo/tubestation10.wav', 'tubestation',
         'development', 'scenes_stereo/tubestation10.wav', 0.0, None),
        (test, f'{test}.wav', 'bus', 'evaluation', f'{test}.wav', 0.0, None),
    ]
    [alone] = datasets.find_sources(f'{root}/scenes_stereo_testset', 'dcase2014')
    assert alone.split == 'evaluation'
    [part] = datasets.find_sources(root, 'dcase2014', 'evaluation')
    assert part.example_id == test
