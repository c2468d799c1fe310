"""Clips and pairs per second of the training step, beside PyTorch's same nets and beside the machine's matmul rate.

    pip install -r requirements-bench.txt
    python benchmarks/training_step.py

The nets are MC3 and the audio tower, at full width with 16 frames of 112 x 112, and as in the preset `small`; PyTorch runs
them with channels last and the same number of threads. A step is forward, loss, backward and optimiser on a batch that is
in memory already. One clip of ours carries two audio windows, and so two pairs; with independent pairs, as published, a pair
costs a clip.

The arithmetic limit is the rate at which the matmul of the same framework and number type would do the multiplications of
the convolutions and dense layers: a convolution that avoids some of them (Winograd) may pass it.
"""

import argparse
import os
import sys

import side_by_side

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
CASES = {'full': ('large', {'bfloat16': False, 'frames': 16, 'frame_size': 112, 'batch_size': 4}), 'small': ('small', {})}
MATMUL_SIZE = 2048


def make_case(name, bfloat16, windows):
    """The `Config` of a case."""
    from avts_tf.config import make_config
    preset, values = CASES[name]
    return make_config(preset, **values, bfloat16=bfloat16, audio_windows=windows, optimizer='sgd', easy_negatives='drawn')


def random_batch(config):
    """Arrays of a batch as the pipeline gives them."""
    import numpy as np
    rng, clip, windows, size = np.random.default_rng(0), config.clip, config.pairs.audio_windows, config.train.batch_size
    # Half of the pairs are in sync: within each clip, or clip by clip where each has one.
    kind = (np.arange(size * windows, dtype=np.int32) % 2).reshape(size, windows)
    return {
        'video': rng.integers(0, 256, [size, clip.frames, clip.frame_size, clip.frame_size, 3], dtype=np.uint8),
        'audio': rng.integers(-9000, 9000, [size, windows, clip.window_samples], dtype=np.int16),
        'kind': kind, 'label': (kind == 0).astype(np.float32), 'example_hash': np.arange(size, dtype=np.int64),
        'audio_hash': np.tile(np.arange(size, dtype=np.int64)[:, None], [1, windows]),
    }


def tensorflow_step(config):
    """A function that trains one step."""
    import tensorflow as tf

    from avts_tf.models.two_tower import build_two_tower
    from avts_tf.training.optimizer import make_optimizer
    model = build_two_tower(config)
    model.compile(optimizer=make_optimizer(config))
    batch = {name: tf.constant(value) for name, value in random_batch(config).items()}
    step = tf.function(model.train_step)
    return lambda: step(batch)['loss'].numpy()


def multiplications(config):
    """Multiply-adds of a training step by clip, in the convolutions and dense layers, times 2: floating-point operations."""
    from avts_tf.models.two_tower import build_two_tower
    model, total = build_two_tower(config), 0
    audio = model.audio_tower.get_layer('audio_network')
    for tower, passes in ((model.video_tower, 1), (audio, config.pairs.audio_windows)):
        layers = [layer for layer in tower.layers if hasattr(layer, 'kernel')]
        for number, layer in enumerate(layers):
            positions = 1
            for size in layer.output.shape[1:-1]:
                positions *= size
            kernel = 1
            for size in layer.kernel.shape:
                kernel *= size
            # Backwards once for the weights and once for the input, which the first layer of a tower does not need.
            total += passes * 2 * kernel * positions * (2 if number == 0 else 3)
    return total


def torch_step(config):
    """A function that trains one step of the same nets in PyTorch."""
    import torch
    from torch import nn

    from avts_tf.models.audio import CONV_CHANNELS, HIDDEN, POOLS
    from avts_tf.models.frontend import mel_matrix
    from avts_tf.models.mcx import STAGE_WIDTHS, TEMPORAL_KERNEL, scaled
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    towers, clip, logmel = config.towers, config.clip, config.logmel

    def conv3d(inputs, outputs, kernel, stride=1):
        return nn.Sequential(nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), [k // 2 for k in kernel], bias=False),
                             nn.BatchNorm3d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, temporal, stride):
            super().__init__()
            kernel = (temporal, 3, 3)
            self.first, self.second = conv3d(inputs, outputs, kernel, stride), conv3d(outputs, outputs, kernel)
            self.shortcut = conv3d(inputs, outputs, (1, 1, 1), stride) if stride > 1 or inputs != outputs else nn.Identity()

        def forward(self, x):
            return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))

    def video_net():
        channels = scaled(64, towers.video_width)
        layers = [conv3d(3, channels, (3, 7, 7), 2), nn.ReLU()]
        for stage, (width, temporal) in enumerate(zip(STAGE_WIDTHS, TEMPORAL_KERNEL['mc3'], strict=True)):
            for index in range(2):
                outputs = scaled(width, towers.video_width)
                layers.append(Block(channels, outputs, temporal, 2 if stage and not index else 1))
                channels = outputs
        return nn.Sequential(*layers), channels

    def audio_net():
        layers, channels = [], 1
        for number, width in enumerate(CONV_CHANNELS, 1):
            outputs = scaled(width, towers.audio_width)
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            if number in POOLS:
                layers.append(nn.MaxPool2d(3, POOLS[number], 1))
            channels = outputs
        return nn.Sequential(*layers)

    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.video, channels = video_net()
            self.audio, hidden = audio_net(), scaled(HIDDEN, towers.audio_width)
            part = towers.embedding_size // towers.head_spans
            self.video_head, self.hidden = nn.Linear(channels, part), nn.LazyLinear(hidden, bias=False)
            self.norm, self.audio_head = nn.BatchNorm1d(hidden), nn.Linear(hidden, part)
            self.register_buffer('mel', torch.tensor(mel_matrix(logmel.mel_bands, logmel.fft_size, clip.sample_rate,
                                                                logmel.mel_min_hz, logmel.mel_max_hz)))
            self.register_buffer('window', torch.hann_window(round(logmel.stft_window_seconds * clip.sample_rate)))

        def spans(self, x, head):  # [batch, time, channels] -> [batch, embedding]
            x = nn.functional.adaptive_avg_pool1d(x.transpose(1, 2), towers.head_spans).transpose(1, 2)
            return nn.functional.normalize(head(x).flatten(1).float(), dim=-1)

        def forward(self, frames, sound):
            x = self.video(((frames.permute(0, 4, 1, 2, 3) / 255.0 - 0.43) / 0.22).contiguous(memory_format=torch.channels_last_3d))
            video = self.spans(x.mean((3, 4)).transpose(1, 2), self.video_head)
            waveform = sound.flatten(0, 1) / 32768.0
            hop = round(logmel.stft_hop_seconds * clip.sample_rate)
            windows = waveform.unfold(1, len(self.window), hop) * self.window                   # [batch, steps, window]
            mel = torch.log(torch.fft.rfft(windows, logmel.fft_size).abs() @ self.mel + 1e-3)   # [batch, steps, bands]
            y = self.audio(mel[:, None].contiguous(memory_format=torch.channels_last))
            y = self.hidden(y.permute(0, 2, 1, 3).flatten(2))
            y = torch.relu(self.norm(y.transpose(1, 2)).transpose(1, 2))
            return video, self.spans(y, self.audio_head).view(*sound.shape[:2], -1)

    batch = {name: torch.tensor(value) for name, value in random_batch(config).items()}
    model = Towers()
    model.video.to(memory_format=torch.channels_last_3d)
    model.audio.to(memory_format=torch.channels_last)
    with torch.no_grad():
        model(batch['video'], batch['audio'])
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def step():
        with torch.autocast('cpu', torch.bfloat16, enabled=towers.bfloat16):
            video, audio = model(batch['video'], batch['audio'])
        distance = ((video[:, None] - audio).square().sum(-1) + 1e-12).sqrt()
        label = batch['label']
        loss = (label * distance.square() + (1 - label) * (config.train.margin - distance).clamp(min=0).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def matmul(framework, bfloat16):
    """A function that multiplies two square matrices of `MATMUL_SIZE`."""
    if framework == 'torch':
        import torch
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        a = torch.ones([MATMUL_SIZE, MATMUL_SIZE], dtype=torch.bfloat16 if bfloat16 else torch.float32)
        return lambda: a @ a
    import tensorflow as tf
    a = tf.ones([MATMUL_SIZE, MATMUL_SIZE], tf.bfloat16 if bfloat16 else tf.float32)
    return lambda: tf.matmul(a, a).numpy()


def run_side(side, case, bfloat16, windows, seconds):
    """Works as one side of `side_by_side`: clips per second, or floating-point operations per second of the matmul."""
    if side.endswith('matmul'):
        step, unit = matmul(side.removesuffix('_matmul'), bfloat16), 2.0 * MATMUL_SIZE**3
    else:
        config = make_case(case, bfloat16, windows)
        step, unit = (torch_step if side == 'torch' else tensorflow_step)(config), config.train.batch_size

    side_by_side.serve(lambda: unit * side_by_side.steps_per_second(step, seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='*', default=list(CASES), choices=list(CASES))
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seconds', type=float, default=6.0, help='length of a round of one side')
    parser.add_argument('--json', default='benchmarks/training_step.json')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    parser.add_argument('--case', help=argparse.SUPPRESS)
    parser.add_argument('--windows', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--bfloat16', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.case, arguments.bfloat16, arguments.windows, arguments.seconds)
        return
    results = []
    for case in arguments.cases:
        for bfloat16 in (False, True):
            results.append(_compare(case, bfloat16, arguments))
    side_by_side.write_json(arguments.json, {'training_step': results})


def _compare(case, bfloat16, arguments):
    def command(side, windows=2):
        own = [f'--side={side}', f'--case={case}', f'--windows={windows}', f'--seconds={arguments.seconds}']
        return [sys.executable, __file__, *own, *['--bfloat16'] * bfloat16]

    sides = {'ours': command('tensorflow'), 'torch': command('torch'), 'torch_pairs': command('torch', 1),
             'matmul': command('tensorflow_matmul'), 'torch_matmul': command('torch_matmul')}
    rates = side_by_side.take_turns(sides, arguments.rounds)
    operations = multiplications(make_case(case, False, 2))
    limit = [rate / operations for rate in rates['matmul']]
    result = {
        'case': case, 'number_type': 'bfloat16' if bfloat16 else 'float32',
        'clips_per_second': {name: side_by_side.summary(rates[name]) for name in ('ours', 'torch', 'torch_pairs')},
        'matmul_gflops': {name: side_by_side.summary([rate / 1e9 for rate in rates[name]]) for name in ('matmul', 'torch_matmul')},
        'gflop_per_clip': operations / 1e9,
        'clips_ratio_to_torch': side_by_side.ratio(rates['ours'], rates['torch']),
        'pairs_ratio_to_torch_with_independent_pairs': 2 * side_by_side.ratio(rates['ours'], rates['torch_pairs']),
        'part_of_the_arithmetic_limit': side_by_side.ratio(rates['ours'], limit),
    }
    clips = result['clips_per_second']
    print(f'{case}, {result["number_type"]}: {operations / 1e9:.1f} GFLOP a clip')
    print(f'  ours     {clips["ours"]["median"]:8.2f} clips/s [{clips["ours"]["least"]:.2f}, {clips["ours"]["most"]:.2f}]'
          f'   {2 * clips["ours"]["median"]:8.2f} pairs/s')
    print(f'  PyTorch  {clips["torch"]["median"]:8.2f} clips/s [{clips["torch"]["least"]:.2f}, {clips["torch"]["most"]:.2f}]'
          f'   {clips["torch_pairs"]["median"]:8.2f} pairs/s with independent pairs')
    gflops = result['matmul_gflops']
    print(f'  matmul   {gflops["matmul"]["median"]:.0f} GFLOP/s TensorFlow, {gflops["torch_matmul"]["median"]:.0f} PyTorch')
    print(f'  ratios: clips {result["clips_ratio_to_torch"]:.2f}, '
          f'pairs {result["pairs_ratio_to_torch_with_independent_pairs"]:.2f}, '
          f'of the arithmetic limit {result["part_of_the_arithmetic_limit"]:.2f}', flush=True)
    return result


if __name__ == '__main__':
    main()
