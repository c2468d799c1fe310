"""MC3 and the audio tower once more, in PyTorch: the peer of training_step.py.

They run with channels last and with as many threads as there are cores.
"""

import os
from collections.abc import Callable


def make_step(config: object, batch: dict) -> Callable[[], float]:
    """A function that trains one step of the same nets in PyTorch."""
    import torch
    from torch import nn

    from avts_tf.models.audio import CONV_CHANNELS, HIDDEN, POOLS
    from avts_tf.models.frontend import mel_matrix
    from avts_tf.models.layers import scaled
    from avts_tf.models.mcx import STAGE_WIDTHS, TEMPORAL_KERNEL
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    towers, clip, logmel = config.towers, config.clip, config.logmel

    def conv3d(inputs: int, outputs: int, kernel: tuple, stride: int = 1):
        return nn.Sequential(nn.Conv3d(inputs, outputs, kernel, (1, stride, stride),
                                       [k // 2 for k in kernel], bias=False),
                             nn.BatchNorm3d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, temporal: int, stride: int) -> None:
            super().__init__()
            kernel = (temporal, 3, 3)
            self.first, self.second = conv3d(inputs, outputs, kernel,
                                             stride), conv3d(outputs, outputs, kernel)
            self.shortcut = conv3d(inputs, outputs, (1, 1, 1),
                                   stride) if stride > 1 or inputs != outputs else nn.Identity()

        def forward(self, x: torch.Tensor):
            return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))

    def video_net():
        channels = scaled(64, towers.video_width)
        layers = [conv3d(3, channels, (3, 7, 7), 2), nn.ReLU()]
        for stage, (width, temporal) in enumerate(zip(STAGE_WIDTHS, TEMPORAL_KERNEL['mc3'],
                                                      strict=True)):
            for index in range(2):
                outputs = scaled(width, towers.video_width)
                layers.append(Block(channels, outputs, temporal, 2 if stage and not index else 1))
                channels = outputs
        return nn.Sequential(*layers), channels

    def audio_net():
        layers, channels = [], 1
        for number, width in enumerate(CONV_CHANNELS, 1):
            outputs = scaled(width, towers.audio_width)
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                       nn.BatchNorm2d(outputs), nn.ReLU()]
            if number in POOLS:
                layers.append(nn.MaxPool2d(3, POOLS[number], 1))
            channels = outputs
        return nn.Sequential(*layers)

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.video, channels = video_net()
            self.audio, hidden = audio_net(), scaled(HIDDEN, towers.audio_width)
            part = towers.embedding_size // towers.head_spans
            self.video_head, self.hidden = nn.Linear(channels,
                                                     part), nn.LazyLinear(hidden, bias=False)
            self.norm, self.audio_head = nn.BatchNorm1d(hidden), nn.Linear(hidden, part)
            self.register_buffer('mel',
                                 torch.tensor(mel_matrix(logmel.mel_bands, logmel.fft_size,
                                                         clip.sample_rate,
                                                                logmel.mel_min_hz,
                                                         logmel.mel_max_hz)))
            self.register_buffer('window',
                                 torch.hann_window(round(logmel.stft_window_seconds
                                                         * clip.sample_rate)))

        def spans(self, x: torch.Tensor, head: nn.Module):
            """[batch, time, channels] -> [batch, embedding]"""
            x = nn.functional.adaptive_avg_pool1d(x.transpose(1, 2),
                                                  towers.head_spans).transpose(1, 2)
            return nn.functional.normalize(head(x).flatten(1).float(), dim=-1)

        def forward(self, frames: torch.Tensor, sound: torch.Tensor):
            x = (frames.permute(0, 4, 1, 2, 3) / 255.0 - 0.43) / 0.22
            x = self.video(x.contiguous(memory_format=torch.channels_last_3d))
            video = self.spans(x.mean((3, 4)).transpose(1, 2), self.video_head)
            waveform = sound.flatten(0, 1) / 32768.0
            hop = round(logmel.stft_hop_seconds * clip.sample_rate)
            # [batch, steps, window]
            windows = waveform.unfold(1, len(self.window), hop) * self.window
            # [batch, steps, bands]
            mel = torch.log(torch.fft.rfft(windows, logmel.fft_size).abs() @ self.mel + 1e-3)
            y = self.audio(mel[:, None].contiguous(memory_format=torch.channels_last))
            y = self.hidden(y.permute(0, 2, 1, 3).flatten(2))
            y = torch.relu(self.norm(y.transpose(1, 2)).transpose(1, 2))
            return video, self.spans(y, self.audio_head).view(*sound.shape[:2], -1)

    batch = {name: torch.tensor(value) for name, value in batch.items()}
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
        apart = (config.train.margin - distance).clamp(min=0)
        loss = (label * distance.square() + (1 - label) * apart.square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
