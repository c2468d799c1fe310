"""What lies in serving/, and the requests that docs/serving.md shows."""

import base64
import json
import re

import numpy as np
import tensorflow as tf
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.helpers import ROOT

SERVING = ROOT / 'serving'


def test_models_config():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((SERVING / 'models.config').read_text(), config)
    models = {model.name: model.base_path for model in config.model_config_list.config}
    assert models == {'audio_tower': '/models/audio_tower', 'video_tower': '/models/video_tower'}


def test_batching_config():
    """Parsed as BatchingParameters, whose definition (session_bundle_config.proto) no Python
    package carries."""
    file = descriptor_pb2.FileDescriptorProto(
        name='batching.proto', package='check', syntax='proto3',
        dependency=['google/protobuf/wrappers.proto'])
    message = file.message_type.add(name='BatchingParameters')
    numbers = ('max_batch_size', 'batch_timeout_micros', 'max_enqueued_batches',
               'num_batch_threads')
    for number, name in enumerate(numbers, 1):
        message.field.add(name=name, number=number, label=1, type=11,
                          type_name='.google.protobuf.Int64Value')
    message.field.add(name='allowed_batch_sizes', number=6, label=3, type=3)
    message.field.add(name='pad_variable_length_inputs', number=7, label=1, type=8)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    found = pool.FindMessageTypeByName('check.BatchingParameters')
    parameters = message_factory.GetMessageClass(found)()
    text_format.Parse((SERVING / 'batching.config').read_text(), parameters)
    assert parameters.max_batch_size.value > 0 and not parameters.pad_variable_length_inputs


def test_compose():
    services = yaml.safe_load((SERVING / 'compose.yaml').read_text())['services']
    assert services.keys() == {'towers', 'batched'}
    for service in services.values():
        assert re.fullmatch(r'tensorflow/serving:\d+\.\d+\.\d+', service['image'])
        flags = dict(flag.removeprefix('--').split('=') for flag in service['command'])
        inside = {volume.rsplit(':', 2)[1] for volume in service['volumes']}
        configured = {flags['model_config_file'], flags.get('batching_parameters_file', '/models')}
        assert {*configured, '/models'} <= inside
        # Only programs of this machine get in, unless somebody says otherwise.
        assert all(re.fullmatch(r'\$\{ADDRESS:-127\.0\.0\.1\}:\d+:\d+', port)
                   for port in service['ports'])
        ports = {port.split(':')[-1] for port in service['ports']}
        assert ports == {flags['port'], flags['rest_api_port']}
        # Whoever takes the server over has no rights, and no more memory than it is given.
        user, group = map(int, service['user'].split(':'))
        assert user and group and service['read_only'] is True and service['cap_drop'] == ['ALL']
        assert service['security_opt'] == ['no-new-privileges:true']
        assert not service.keys() & {'privileged', 'cap_add'}
        assert service['mem_limit'] == service['memswap_limit']
        assert re.fullmatch(r'\$\{MEMORY:-\d+g\}', service['mem_limit'])
        assert all(volume.endswith(':ro') for volume in service['volumes'])
        for volume in service['volumes']:
            if volume.startswith('./'):
                assert (SERVING / volume.split(':')[0]).is_file()
    ports = [port.split(':')[-2] for service in services.values() for port in service['ports']]
    assert len(set(ports)) == len(ports)
    # Warm-up holds requests that a server with batching refuses.
    assert '--enable_model_warmup=true' in services['towers']['command']
    assert '--enable_model_warmup=false' in services['batched']['command']


def plain(value):
    """JSON as TensorFlow Serving reads it: bytes are base64 under the key `b64`."""
    if isinstance(value, dict):
        return base64.b64decode(value['b64'], validate=True)
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_rest_requests_of_the_documentation(loaded):
    """Every curl line of docs/serving.md is what a signature takes."""
    text = (ROOT / 'docs' / 'serving.md').read_text()
    pattern = r"curl -d '([^']*)'\s*\\?\s*http://localhost:8501(\S+)"
    requests = re.findall(pattern, text)
    assert {('instances' in body) for body, _ in requests} == {True, False}
    jpeg = base64.b64encode(tf.io.encode_jpeg(np.zeros([8, 8, 3], np.uint8)).numpy()).decode()
    for body, path in requests:
        request = json.loads(body.replace('...', jpeg))
        model = re.fullmatch(r'/v1/models/(\w+)(?:/versions/1)?:predict', path)[1]
        signature = request.get('signature_name', 'serving_default')
        function = loaded[model].signatures[signature]
        specification = function.structured_input_signature[1]
        columns = request.get('inputs')
        if columns is None:     # rows, where a single input needs no name
            [name] = specification
            rows = [row if isinstance(row, dict) else {name: row} for row in request['instances']]
            columns = {name: [row[name] for row in rows]}
        inputs = {name: tf.constant(plain(value), specification[name].dtype)
                  for name, value in columns.items()}
        assert 'embedding' in function(**inputs), body
