"""The published figures are those of the slides, written out here a second time."""

import pytest

from avts_tf.experiments.published import PUBLISHED

# Each line: row, then the figures of the columns; - where the slides print none.
SLIDES = {
    'curriculum': ('AVTS accuracy', '''
        easy                                        69.0
        mixed                                       58.9
        hard                                        52.3
        first stage only                            67.2
        curriculum_mixed                            78.4
        curriculum_hard                             65.7
    '''),
    'curriculum_downstream': ('AVTS accuracy|ESC-50|DCASE2014|HMDB51|UCF101', '''
        single stage                                69.8 70.6 89.2 46.4 77.1
        curriculum                                  78.4 82.3 94.1 56.9 85.8
        L3-Net                                      74.3 79.3 93.0 40.2 72.3
    '''),
    'action': ('UCF101|HMDB51', '''
        MC2, none                                   67.2 41.2
        MC2, AVTS Kinetics                          83.6 54.3
        MC2, supervised Kinetics                    87.9 62.0
        MC3, none                                   69.1 43.9
        MC3, AVTS Kinetics                          85.8 56.9
        MC3, AVTS AudioSet                          89.0 61.6
        MC3, supervised Kinetics                    90.5 66.8
        I3D-RGB, none                               57.1 40.0
        I3D-RGB, AVTS Kinetics                      83.7 53.0
        I3D-RGB*, supervised ImageNet               84.5 49.8
        I3D-RGB*, supervised Kinetics               95.1 74.3
        I3D-RGB*, supervised ImageNet and Kinetics  95.6 74.8
    '''),
    'audio': ('ESC-10|ESC-50|DCASE2014', '''
        SVM-MFCC                                    67.5 39.6 -
        random forest                               72.7 44.3 -
        k-NN                                        66.7 -    -
        audio subnet from scratch                   -    61.6 72.0
        SoundNet                                    -    74.2 88.0
        L3-Net                                      -    79.3 93.0
        AVTS Kinetics                               -    76.7 91.0
        AVTS AudioSet                               -    80.6 93.0
        AVTS SoundNet                               -    82.3 94.0
        human                                       -    81.3 -
        RBM                                         -    86.5 -
    '''),
    'multisensory': ('UCF101', '''
        Owens et al., vision only                   77.6
        Owens et al., multisensory                  82.1
        AVTS, vision only                           85.8
        AVTS, multisensory                          87.0
    '''),
}


@pytest.mark.parametrize('name', SLIDES)
def test_every_figure_is_the_printed_one(name):
    columns, text = SLIDES[name]
    columns = columns.split('|')
    printed = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        *words, = line.split()
        row, figures = ' '.join(words[:-len(columns)]), words[-len(columns):]
        printed[row] = {column: float(figure)
                        for column, figure in zip(columns, figures, strict=True) if figure != '-'}
    ours = {row: {column: figure.percent for column, figure in columns.items()}
            for row, columns in PUBLISHED[name].items()}
    assert ours == printed


def test_all_tables_are_compared_and_every_figure_has_its_source():
    assert set(PUBLISHED) == set(SLIDES)
    for table in PUBLISHED.values():
        for columns in table.values():
            for column, figure in columns.items():
                assert figure.source.startswith('Piczak 2015' if column == 'ESC-10'
                                                else 'slides on')
