"""A user's own small CNN, with a loop of their own: ``python digits_cnn.py RUN`` trains it and records the run."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


def samples():
    """Long-tailed training samples and balanced test samples of scikit-learn's digits."""
    pixels, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    places = [(labels == digit).nonzero()[:, 0] for digit in range(10)]
    kept = torch.cat([place[: int(60 * 0.75**digit) + 4] for digit, place in enumerate(places)])
    held = torch.cat([place[-10:] for place in places])
    return (images[kept], labels[kept]), (images[held], labels[held])


def network():
    """The CNN."""
    body = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 10))


def make():
    """What the commands measure."""
    train, test = samples()
    loss = nn.CrossEntropyLoss(reduction="none")
    return {"model": network(), "loss": loss, "batches": train, "test_batches": test, "batch_size": 32}


def main(place):
    """Train, and record every epoch."""
    from landscape_lab import Recorder

    torch.manual_seed(0)
    (images, labels), (test_images, test_labels) = samples()
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recorder = Recorder(place, model, class_counts=torch.bincount(labels), target="digits_cnn.py:make")
    for _ in range(4):
        for batch in torch.randperm(len(labels)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            output = model(test_images)
        hits = (output.argmax(1) == test_labels).float()
        model.train()
        by_class = [hits[test_labels == digit].mean() for digit in range(10)]
        loss = nn.functional.cross_entropy(output, test_labels)
        recorder.epoch({"test": {"loss": loss, "class_accuracy": by_class}})
    recorder.finish()


if __name__ == "__main__":
    main(sys.argv[1])
