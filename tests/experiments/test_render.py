"""Means, and the text of a table."""

import csv
import io
import math

import pytest

from avts_tf.experiments.render import as_csv, as_markdown, mean_and_deviation


def test_mean_and_deviation_by_hand():
    assert mean_and_deviation([1.0, 2.0, 6.0]) == {'mean': 3.0,
                                                   'deviation': pytest.approx(math.sqrt(7.0))}
    assert mean_and_deviation([4.0]) == {'mean': 4.0, 'deviation': None}


def test_markdown_and_csv():
    line = {'row': 'a', 'column': 'x', 'published': 50.0, 'unit': '%', 'mean': 60.0,
            'deviation': None, 'values': [60.0],
            'missing': ''}
    lines = [line, {**line, 'row': 'b', 'published': None},
             {**line, 'column': 'y', 'mean': None, 'values': [], 'published': None,
                                                            'missing': 'needs --data'}]
    assert as_markdown(lines) == (
        '|  | x | x, published | y |\n|---|---|---|---|\n| a | 60.0 | 50.0 | – [1] |\n| b | 60.0 | '
        ' |  |\n\n[1] needs --data\n')
    assert next(csv.DictReader(io.StringIO(as_csv(lines))))['values'] == '60'


def test_percent_have_one_digit_and_parts_of_one_three():
    line = {'row': 'a', 'column': 'x', 'published': None, 'unit': '%', 'mean': 0.94,
            'deviation': 0.06, 'values': [0.9],
            'missing': ''}
    assert '| 0.9 ± 0.1 |' in as_markdown([line])
    assert '| 0.940 ± 0.060 |' in as_markdown([{**line, 'unit': ''}])
