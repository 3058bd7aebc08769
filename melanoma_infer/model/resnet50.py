"""The ResNet-50 backbone (He et al. 2016, with the stride in the 3×3 convolution), without pooling and classifier.

Parameters have torchvision's names, so its ImageNet weights load at width 64.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1×1 to `channels`, 3×3 with `stride`, 1×1 to 4·`channels`, plus the shortcut; ReLU after the sum."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        channels_out = EXPANSION * channels
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 4·channels, h / stride, w / stride) for x (N, channels_in, h, w)."""
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        result: Tensor = self.relu(self.bn3(self.conv3(inner)) + self.downsample(x))
        return result


class ResNet50Backbone(nn.Module):
    """Maps images (N, 3, H, W) to the feature map x (N, 32·width, H / 32, W / 32) of Eq. 1."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.channels_out = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(width, BLOCKS[0], stride=1)
        self.layer2 = self._stage(2 * width, BLOCKS[1], stride=2)
        self.layer3 = self._stage(4 * width, BLOCKS[2], stride=2)
        self.layer4 = self._stage(8 * width, BLOCKS[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
        strides = (stride, *[1] * (blocks - 1))
        stage = []
        for block_stride in strides:
            stage.append(Bottleneck(self.channels_out, channels, block_stride))
            self.channels_out = EXPANSION * channels
        return nn.Sequential(*stage)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map for normalised images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        result: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return result
