"""The client against servers that speak TensorFlow Serving's protocols over the exported towers."""

import base64
import concurrent.futures
import http.server
import itertools
import json
import re
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from avts_tf.errors import UserError
from avts_tf.inference import client, extraction
from tests.helpers import PATIENCE_SECONDS, ROOT, noise, write_sound, write_video

RATE, WINDOW = 16000, 7680


class Models:
    """The towers as a server has them, and what was asked of it."""

    def __init__(self, folder):
        self.signatures = {name: tf.saved_model.load(str(folder / name / '1')).signatures
                           for name in ('audio_tower', 'video_tower')}
        self.lengths = []      # bytes of each request
        self.broken = []       # (status code, words) for the next requests
        self.delay_seconds = 0.0

    def predict(self, model, version, signature, inputs):
        """As tensorflow_model_server: (status code, words) or ('OK', dict of arrays)."""
        time.sleep(self.delay_seconds)
        if self.broken:
            return self.broken.pop(0)
        if model not in self.signatures or version not in (0, 1):
            return 'NOT_FOUND', f'Servable not found for request: Latest({model})'
        if signature not in self.signatures[model]:
            return 'INVALID_ARGUMENT', f'Serving signature key "{signature}" not found.'
        function = self.signatures[model][signature]
        specification = function.structured_input_signature[1]
        if inputs.keys() != specification.keys():
            return 'INVALID_ARGUMENT', f'input keys {sorted(inputs)}, wanted {sorted(specification)}'
        try:
            tensors = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
            for name, value in tensors.items():
                if value.dtype != specification[name].dtype:
                    return 'INVALID_ARGUMENT', f'{name}: {value.dtype.name}, wanted {specification[name].dtype.name}'
            return 'OK', {name: value.numpy() for name, value in function(**tensors).items()}
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            return 'INVALID_ARGUMENT', getattr(error, 'message', str(error))


class GrpcService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self._models = models

    def Predict(self, request, context):
        self._models.lengths.append(request.ByteSize())
        try:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        except (TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        spec = request.model_spec
        code, answer = self._models.predict(spec.name, spec.version.value, spec.signature_name or 'serving_default', inputs)
        if code != 'OK':
            context.abort(grpc.StatusCode[code], answer)
        response = predict_pb2.PredictResponse()
        for name, value in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def rest_handler(models):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers['Content-Length']))
            models.lengths.append(len(body))
            code, answer = self._answer(body)
            data = (json.dumps(answer) if code == 200 else json.dumps({'error': answer})).encode()
            self.send_response(code)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, body):
            match = re.fullmatch(r'/v1/models/(\w+)(?:/versions/(\d+))?:predict', self.path)
            if not match:
                return 404, 'Malformed request: POST ' + self.path
            try:
                request = json.loads(body)
            except ValueError as error:
                return 400, f'JSON Parse error: {error}'
            rows = 'instances' in request
            if rows == ('inputs' in request):
                return 400, "Missing 'inputs' or 'instances' key"
            name = request.get('signature_name', 'serving_default')
            function = models.signatures.get(match[1], {}).get(name)
            specification = function.structured_input_signature[1] if function else {}
            values = request['instances'] if rows else request['inputs']
            if rows and not isinstance(values[0], dict):
                values = [{next(iter(specification), 'x'): value} for value in values]
            if not rows and not isinstance(values, dict):
                values = {next(iter(specification), 'x'): values}
            if rows:
                values = {key: [row[key] for row in values] for key in values[0]}
            try:
                inputs = {key: np.array(plain(value), specification[key].dtype.as_numpy_dtype if key in specification else None)
                          for key, value in values.items()}
            except (ValueError, OverflowError, TypeError) as error:
                return 400, f'Failed to process element: {error}'
            code, answer = models.predict(match[1], int(match[2] or 0), name, inputs)
            if code != 'OK':
                return {'NOT_FOUND': 404, 'INVALID_ARGUMENT': 400, 'UNAVAILABLE': 503}[code], answer
            if not rows:
                return 200, {'outputs': {key: value.tolist() for key, value in answer.items()}}
            if len({len(value) for value in answer.values()}) > 1:
                return 400, 'inconsistent batch size'
            columns = {key: value.tolist() for key, value in answer.items()}
            return 200, {'predictions': [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}

        def log_message(self, *_):
            pass

    return Handler


def plain(value):
    if isinstance(value, dict):
        return base64.b64decode(value['b64'], validate=True)
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope='module')
def served(towers):
    """(Models, gRPC address, REST address); the gRPC server has gRPC's default limits."""
    models = Models(towers)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(GrpcService(models), server)
    port = server.add_insecure_port('localhost:0')
    server.start()
    rest = http.server.ThreadingHTTPServer(('localhost', 0), rest_handler(models))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    yield models, f'localhost:{port}', f'localhost:{rest.server_port}'
    server.stop(0)
    rest.shutdown()


@pytest.fixture(autouse=True)
def nothing_broken(served):
    served[0].broken.clear()
    served[0].lengths.clear()
    served[0].delay_seconds = 0.0


@pytest.fixture(params=['grpc', 'row', 'column'])
def server(request, served):
    made = client.GrpcServer(served[1]) if request.param == 'grpc' else client.RestServer(served[2], form=request.param)
    yield made
    made.close()


@pytest.fixture
def grpc_server(served):
    made = client.GrpcServer(served[1], retries=2)
    yield made
    made.close()


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / 'sounds'
    (folder / 'deep').mkdir(parents=True)
    write_sound(folder / 'a.wav', noise(20000, 1))
    write_sound(folder / 'deep' / 'b.wav', np.stack([noise(30000, 2)] * 2, 1), 44100)
    (folder / 'c.wav').write_text('no sound')
    return folder


def embed(tower, path, **options):
    sources = extraction.find_inputs([str(path)])
    return [result for _, result in extraction.embed_sources(tower, sources, num_workers=1, **options)]


# What the client gets is what the tower gives.

def test_sounds(server, audio, sounds, tmp_path):
    tower = client.connect(server, 'audio')
    assert (tower.rate, tower.window) == (RATE, WINDOW)
    sources = extraction.find_inputs([str(sounds)])
    options = {'hop_seconds': 0.2, 'centered': True, 'batch_size': 7, 'num_workers': 1}
    extraction.extract_features(sources, str(tmp_path / 'remote'), [tower], **options)
    extraction.extract_features(sources, str(tmp_path / 'local'), [audio], **options)
    assert (tmp_path / 'remote' / 'report.csv').read_text() == (tmp_path / 'local' / 'report.csv').read_text()
    for name in ('a.npz', 'deep/b.npz'):
        with np.load(tmp_path / 'remote' / name) as got, np.load(tmp_path / 'local' / name) as expected:
            assert got.keys() == expected.keys()
            for key, value in expected.items():
                np.testing.assert_allclose(got[key], value, atol=2e-5, err_msg=f'{name} {key}')


@pytest.mark.parametrize('jpeg', [False, True])
def test_videos(server, towers, video, tmp_path, jpeg):
    smooth = np.kron(np.random.default_rng(0).integers(0, 256, [30, 3, 4, 3], np.uint8), np.ones([1, 8, 8, 1], np.uint8))
    write_video(tmp_path / 'clip.mkv', smooth)
    tower = client.connect(server, 'video', metadata=str(towers / 'video_tower' / '1' / 'assets' / 'metadata.json'), jpeg=jpeg)
    (got,) = embed(tower, tmp_path / 'clip.mkv', hop_seconds=0.2)
    (expected,) = embed(video, tmp_path / 'clip.mkv', hop_seconds=0.2)
    np.testing.assert_array_equal(got.timestamps, expected.timestamps)
    np.testing.assert_allclose(got.embedding, expected.embedding, atol=0.05 if jpeg else 2e-5)
    assert np.abs(expected.embedding[0] - expected.embedding[2]).max() > 0.05


# Length of requests.

@pytest.mark.parametrize(('limit', 'requests'), [(40_000, 10), (70_000, 5), (10**6, 1)])
def test_long_requests_are_split(served, audio, limit, requests):
    windows = np.stack([noise(WINDOW, seed) for seed in range(20)])
    expected = audio.run(windows)
    remote = client.connect(client.GrpcServer(served[1], max_request_bytes=limit), 'audio')
    served[0].lengths.clear()
    got = remote.run(windows)
    assert max(served[0].lengths) <= limit and requests <= len(served[0].lengths) <= 2 * requests
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=2e-5)


def test_requests_stay_below_the_default_of_grpc(served, grpc_server):
    """400 windows of 15 kB are 6 MB, more than the server here takes at once, whose limit is not ours."""
    windows = np.zeros([400, WINDOW], np.int16)
    remote = client.connect(grpc_server, 'audio')
    assert remote.run(windows)['embedding'].shape == (400, 16)
    assert max(served[0].lengths) <= 4 * 1024 * 1024 < sum(served[0].lengths)
    unlimited = client.connect(client.GrpcServer(served[1], max_request_bytes=10**9), 'audio')
    with pytest.raises(UserError, match='lower --max_request_bytes'):
        unlimited.run(windows)


def test_a_window_that_is_too_long_by_itself(served):
    remote = client.connect(client.GrpcServer(served[1], max_request_bytes=5000), 'video', frames=12)
    with pytest.raises(UserError, match='one window.*--jpeg'):
        remote.run(np.zeros([3, 12, 16, 16, 3], np.uint8))


# Mistakes: the client says what is wrong, and the server goes on.

def test_no_server(sounds, monkeypatch):
    waits = []
    monkeypatch.setattr(time, 'sleep', waits.append)
    for server in (client.GrpcServer('localhost:1', retries=3), client.RestServer('localhost:1', retries=3)):
        waits.clear()
        with pytest.raises(UserError, match='localhost:1: no server answers there'):
            client.connect(server, 'audio')
        assert waits[-3:] == [0.5, 1.0, 2.0]


def test_a_server_that_comes_back(served, server, monkeypatch):
    waits = []
    monkeypatch.setattr(client.time, 'sleep', lambda seconds: waits.append(seconds))
    served[0].broken += [('UNAVAILABLE', 'starting')] * 2
    assert client.connect(server, 'audio').window == WINDOW
    assert [wait for wait in waits if wait >= 0.5] == [0.5, 1.0]


def test_deadline(served):
    served[0].delay_seconds = 2.0
    for server in (client.GrpcServer(served[1], timeout_seconds=0.2), client.RestServer(served[2], timeout_seconds=0.2)):
        with pytest.raises(UserError, match=r'did not answer within 0\.2 s'):
            client.connect(server, 'audio')


def test_models_that_are_not_there(server):
    with pytest.raises(UserError, match="has no model 'organ'.*Servable not found"):
        client.connect(server, 'audio', model='organ')
    with pytest.raises(UserError, match='has no model'):
        client.connect(server, 'audio', version=7)
    assert client.connect(server, 'audio', version=1).path.endswith('/audio_tower/1')


def test_other_sample_rates(server):
    with pytest.raises(UserError, match='16000 Hz, not 44100 Hz'):
        client.connect(server, 'audio', sample_rate=44100)


def test_the_other_tower(server):
    with pytest.raises(UserError, match='video_tower'):
        client.connect(server, 'audio', model='video_tower')
    tower = client.connect(server, 'video', model='audio_tower')
    with pytest.raises(UserError, match='audio_tower'):
        tower.run(np.zeros([1, 25, 8, 8, 3], np.uint8))


@pytest.mark.parametrize(('model', 'signature', 'inputs'), [
    ('audio_tower', 'pcm', {'waveform': np.zeros([2, 3, 100], np.int16)}),
    ('audio_tower', 'pcm', {'waveform': np.zeros([2, 0], np.int16)}),
    ('audio_tower', 'pcm', {'sound': np.zeros([2, 100], np.int16)}),
    ('audio_tower', 'pmc', {'waveform': np.zeros([2, 100], np.int16)}),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 5, 8, 8], np.uint8)}),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 0, 8, 8, 3], np.uint8)}),
    ('video_tower', 'jpeg', {'frames': np.array([[b'no picture']], object)}),
])
def test_malformed_requests(server, model, signature, inputs):
    with pytest.raises(UserError, match='refuses what it was sent'):
        server.predict(model, None, signature, inputs)
    # The server lives on.
    outputs = server.predict('audio_tower', None, 'pcm', {'waveform': np.zeros([1, 100], np.int16)})
    assert outputs['embedding'].shape == (1, 16)


def test_malformed_bytes(served, grpc_server):
    with pytest.raises(UserError, match='refuses'):
        grpc_server.predict('audio_tower', None, 'pcm', {'waveform': np.zeros([1, 100], np.float64)})
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = 'audio_tower', 'pcm'
    request.inputs['waveform'].CopyFrom(tf.make_tensor_proto(np.zeros([1, 100], np.int16)))
    request.inputs['waveform'].tensor_content = b'\1\2\3'
    with pytest.raises(grpc.RpcError) as caught:
        prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(served[1])).Predict(request,
                                                                                                    timeout=PATIENCE_SECONDS)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert client.connect(grpc_server, 'audio').window == WINDOW


def test_nan(served, server):
    """NaN never leaves: JSON has none, and the towers refuse it."""
    with pytest.raises(UserError, match='NaN'):
        server.predict('audio_tower', None, 'serving_default', {'waveform': np.array([[0.0, np.nan]], np.float32)})
    assert client.connect(server, 'audio').window == WINDOW


def test_answers_of_something_else(served, monkeypatch):
    answers = itertools.cycle([{'outputs': 3}, {'what': 1}, [], 'x'])
    for _ in range(4):
        server = client.RestServer(served[2])
        monkeypatch.setattr(server, '_post', lambda *_: next(answers))
        with pytest.raises(UserError, match='not as TensorFlow Serving does'):
            server.predict('audio_tower', None, 'pcm', {'waveform': np.zeros([1, 5], np.int16)})
    page = http.server.ThreadingHTTPServer(('localhost', 0), type('Page', (http.server.BaseHTTPRequestHandler,), {
        'do_POST': lambda self: (self.send_response(200), self.end_headers(), self.wfile.write(b'<html>')),
        'log_message': lambda *_: None}))
    threading.Thread(target=page.serve_forever, daemon=True).start()
    with pytest.raises(UserError, match='does not answer in JSON'):
        client.connect(client.RestServer(f'localhost:{page.server_port}'), 'audio')
    page.shutdown()


def test_metadata_of_the_wrong_tower(grpc_server, towers, tmp_path):
    path = str(towers / 'video_tower' / '1' / 'assets' / 'metadata.json')
    with pytest.raises(UserError, match='that of the video_tower'):
        client.connect(grpc_server, 'audio', metadata=path)
    with pytest.raises(UserError, match='--fps: --metadata tells it'):
        client.connect(grpc_server, 'video', metadata=path, fps=10.0)
    with pytest.raises(UserError, match='not the metadata of a tower'):
        client.connect(grpc_server, 'video', metadata=str(tmp_path / 'nowhere.json'))


# The command line.

def run_client(*flags):
    return subprocess.run([sys.executable, '-m', 'avts_tf.inference.client', *flags], check=False, capture_output=True, text=True,
                          timeout=PATIENCE_SECONDS, cwd=ROOT)


def test_command_line(served, audio, sounds):
    printed = run_client(f'--rest={served[2]}', f'--input={sounds}', '--workers=1')
    assert printed.returncode == 0, printed.stderr
    lines = {line['path']: line for line in map(json.loads, printed.stdout.splitlines())}
    expected = audio.embed(noise(20000, 1), RATE)
    np.testing.assert_allclose(lines['a.wav']['embedding'], expected.embedding, atol=2e-5)
    assert lines['c.wav']['reason'] == 'unreadable' and lines['deep/b.wav'].keys() == {'path', *expected._fields}


def test_command_line_without_a_server(sounds):
    alone = run_client('--server=localhost:1', f'--input={sounds}', '--retries=0')
    assert alone.returncode == 2 and 'no server answers there' in alone.stderr and 'Traceback' not in alone.stderr


# What lies in serving/ and docs/serving.md.

def test_models_config():
    config = text_format.Parse((ROOT / 'serving' / 'models.config').read_text(), model_server_config_pb2.ModelServerConfig())
    models = {model.name: model.base_path for model in config.model_config_list.config}
    assert models == {'audio_tower': '/models/audio_tower', 'video_tower': '/models/video_tower'}


def test_batching_config():
    """Parsed as BatchingParameters, whose definition (session_bundle_config.proto) no Python package carries."""
    file = descriptor_pb2.FileDescriptorProto(name='batching.proto', package='check', syntax='proto3',
                                              dependency=['google/protobuf/wrappers.proto'])
    message = file.message_type.add(name='BatchingParameters')
    for number, name in enumerate(('max_batch_size', 'batch_timeout_micros', 'max_enqueued_batches', 'num_batch_threads'), 1):
        message.field.add(name=name, number=number, label=1, type=11, type_name='.google.protobuf.Int64Value')
    message.field.add(name='allowed_batch_sizes', number=6, label=3, type=3)
    message.field.add(name='pad_variable_length_inputs', number=7, label=1, type=8)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    parameters = message_factory.GetMessageClass(pool.FindMessageTypeByName('check.BatchingParameters'))()
    text_format.Parse((ROOT / 'serving' / 'batching.config').read_text(), parameters)
    assert parameters.max_batch_size.value > 0 and not parameters.pad_variable_length_inputs


def test_compose():
    services = yaml.safe_load((ROOT / 'serving' / 'compose.yaml').read_text())['services']
    assert services.keys() == {'towers', 'batched'}
    for service in services.values():
        assert re.fullmatch(r'tensorflow/serving:\d+\.\d+\.\d+', service['image'])
        flags = dict(flag.removeprefix('--').split('=') for flag in service['command'])
        inside = {volume.rsplit(':', 2)[1] for volume in service['volumes']}
        assert {flags['model_config_file'], flags.get('batching_parameters_file', '/models'), '/models'} <= inside
        # Nobody but this machine's own programs gets in, unless somebody says so.
        assert all(re.fullmatch(r'\$\{ADDRESS:-127\.0\.0\.1\}:\d+:\d+', port) for port in service['ports'])
        assert {port.split(':')[-1] for port in service['ports']} == {flags['port'], flags['rest_api_port']}
        # Whoever takes the server over has no rights, and no more memory than it is given.
        user, group = map(int, service['user'].split(':'))
        assert user and group and service['read_only'] is True and service['cap_drop'] == ['ALL']
        assert service['security_opt'] == ['no-new-privileges:true'] and not service.keys() & {'privileged', 'cap_add'}
        assert service['mem_limit'] == service['memswap_limit'] and re.fullmatch(r'\$\{MEMORY:-\d+g\}', service['mem_limit'])
        assert all(volume.endswith(':ro') for volume in service['volumes'])
        # What lies beside the file is really there.
        for volume in service['volumes']:
            if volume.startswith('./'):
                assert (ROOT / 'serving' / volume.split(':')[0]).is_file()
    ports = [port.split(':')[-2] for service in services.values() for port in service['ports']]
    assert len(set(ports)) == len(ports)
    # Warm-up holds requests that a server with batching refuses.
    assert '--enable_model_warmup=true' in services['towers']['command']
    assert '--enable_model_warmup=false' in services['batched']['command']


def test_requests_of_the_documentation(served):
    """Every curl line of docs/serving.md is answered."""
    text = (ROOT / 'docs' / 'serving.md').read_text()
    requests = re.findall(r"curl -d '([^']*)'\s*\\?\s*(?:-X POST )?http://localhost:8501(\S+)", text)
    assert len(requests) >= 4 and {('instances' in body) for body, _ in requests} == {True, False}
    for body, path in requests:
        body = body.replace('...', base64.b64encode(tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)).numpy()).decode())
        answer = client.RestServer(served[2])._post('', f'http://{served[2]}{path}', body.encode())
        assert 'embedding' in (answer['predictions'][0] if 'predictions' in answer else answer['outputs']), body
