"""The benchmark that owners of a GPU are asked to run goes through, here on the CPU."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT


@pytest.mark.slow
@pytest.mark.parametrize('records', ['', '/nowhere/clips-*'])
def test_one_gpu_in_one_command(tmp_path, records):
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks/gpu.py', '--quick', '--without_xla',
         f'--records={records}', f'--json={tmp_path}/gpu.json'],
        capture_output=True, text=True, check=False,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': '-1'})
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads((tmp_path / 'gpu.json').read_text())
    assert {'TensorFlow', 'CUDA', 'cuDNN', 'processor'} <= set(results['device'])
    row = results['rows'][0]
    assert (row['numbers'], row['xla']) == ('float32', False)
    if records:  # what fails is a row
        assert 'UserError' in row['error'] and row['error'] in done.stdout
    else:
        assert row['step_ms'] > 0 and row['memory_bytes'] > 0 and row['waiting_part'] < 1
        assert 0 < row['part_of_peak'] < 2
    assert 'tf32 is left out' in done.stdout
