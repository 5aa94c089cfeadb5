"""The torch side of benchmark_gpu.py, in a process of its own: the same residual network, compiled, trained on request.

    python scripts/torch_residual.py --batch 256

The first line of its output is "ready …" or "skipped …", with the reason; then it answers every line of its input, a
number of training steps, by the seconds that they took. bfloat16 autocast, channels last, torch.compile, fused AdamW.
"""

import argparse
import sys
import time

try:
    import torch
except ImportError:
    sys.exit(print("skipped: torch is not installed", flush=True))
from torch import nn


class Convolution(nn.Sequential):
    """A convolution with its normalisation."""

    def __init__(self, inputs, width, kernel, stride, padding):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, width, kernel, stride, padding)
        self.norm = nn.BatchNorm2d(width, eps=1.001e-5, momentum=0.01)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, widens):
        super().__init__()
        self.shortcut = Convolution(inputs, 4 * width, 1, stride, 0) if widens else nn.Identity()
        self.narrow = Convolution(inputs, width, 1, stride, 0)
        self.middle = Convolution(width, width, 3, 1, 1)
        self.wide = Convolution(width, 4 * width, 1, 1, 0)

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.wide(torch.relu(self.middle(torch.relu(self.narrow(x))))))


class ResidualNetwork(nn.Module):
    """gpu_steps.residual_network: uint8 (batch, 3, height, width) → logits."""

    def __init__(self, blocks=(3, 4, 6, 3), width=64, classes=1000):
        super().__init__()
        self.stem, inputs = Convolution(3, width, 7, 2, 3), width
        for stage, depth in enumerate(blocks):
            modules = nn.Sequential()
            for block in range(depth):
                stride = 2 if stage and not block else 1
                modules.add_module(f"block{block}", Bottleneck(inputs, width * 2**stage, stride, not block))
                inputs = 4 * width * 2**stage
            self.add_module(f"stage{stage}", modules)
        self.stages, self.head = len(blocks), nn.Linear(inputs, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.stem(x / 127.5 - 1)), 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"stage{stage}")(x)
        return self.head(x.mean((2, 3)))


def freeze(network) -> None:
    """Every normalisation runs on its moving statistics, its scale and offset fixed, as `recipes` finetunes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)


def trainer(network, images, labels, compiled: bool):
    """A function that takes one training step."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-5, weight_decay=1e-4, fused=images.is_cuda)

    def loss():
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = network(images)
        return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)

    forward = torch.compile(loss) if compiled else loss

    def step():
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--blocks", type=int, nargs="+", default=[3, 4, 6, 3])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--live-statistics", action="store_true", help="train the normalisation too")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, not compiled: for tests")
    asked = parser.parse_args()
    if not (asked.cpu or torch.cuda.is_available()):
        return print(f"skipped: torch {torch.__version__} sees no GPU", flush=True)
    device = torch.device("cpu" if asked.cpu else "cuda")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    network = ResidualNetwork(asked.blocks, asked.width, asked.classes).to(device, memory_format=torch.channels_last)
    if not asked.live_statistics:
        freeze(network)
    images = torch.randint(0, 256, (asked.batch, 3, asked.size, asked.size), dtype=torch.uint8, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, asked.classes, (asked.batch,), device=device)
    step = trainer(network, images, labels, compiled=not asked.cpu)
    wait = torch.cuda.synchronize if not asked.cpu else lambda: None
    for _ in range(3):
        step()
    wait()
    where = "on the CPU, not compiled" if asked.cpu else f"torch.compile, {torch.cuda.get_device_name()}"
    print(f"ready torch {torch.__version__}, {where}", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        wait()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
