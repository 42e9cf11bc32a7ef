"""A user's own small transformer over text: ``python text_transformer.py RUN`` trains it and records the run.

Which module of the standard library are these 24 characters from? The inputs are mappings, the ends are padded, and the
loader shuffles, as loaders of training do.
"""

import argparse
import difflib
import inspect
import json
import sys
import textwrap

import torch
from torch import nn

LENGTH = 24
MODULES = {argparse: 90, difflib: 50, json.decoder: 25, textwrap: 10}
NAMES = [module.__name__ for module in MODULES]


def lines():
    """Pieces of the modules' sources as ``({"tokens", "mask"}, label)``; the mask is true at padding."""
    pieces = []
    for label, (module, count) in enumerate(MODULES.items()):
        text = [line.strip()[:LENGTH] for line in inspect.getsource(module).splitlines() if len(line.strip()) > 8]
        for line in text[:count]:
            codes = [min(ord(character), 127) for character in line]
            padded = torch.tensor(codes + [0] * (LENGTH - len(codes)))
            pieces.append(({"tokens": padded, "mask": torch.arange(LENGTH) >= len(codes)}, label))
    return pieces


class Transformer(nn.Module):
    """One layer with dropout, and the mean over what is not padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(128, 16)
        self.places = nn.Parameter(torch.zeros(LENGTH, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.classifier = nn.Linear(16, len(NAMES))

    def forward(self, tokens, mask):
        """Scores of the modules."""
        hidden = self.encoder(self.embedding(tokens) + self.places, src_key_padding_mask=mask)
        kept = (~mask).unsqueeze(-1).to(hidden.dtype)
        return self.classifier((hidden * kept).sum(1) / kept.sum(1))


def make():
    """What the commands measure."""
    loader = torch.utils.data.DataLoader(lines(), batch_size=32, shuffle=True)
    return {"model": Transformer(), "loss": nn.CrossEntropyLoss(), "batches": loader, "class_names": NAMES}


def main(place):
    """Train, and record every epoch."""
    from landscape_lab import Recorder

    torch.manual_seed(0)
    made = make()
    model, counts = made["model"], list(MODULES.values())
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.003)
    with Recorder(place, model, class_counts=counts, class_names=NAMES, target="text_transformer.py:make") as recorder:
        for _ in range(3):
            total = 0.0
            for inputs, targets in made["batches"]:
                optimiser.zero_grad()
                loss = made["loss"](model(**inputs), targets)
                loss.backward()
                optimiser.step()
                total += loss.item() * len(targets)
            recorder.epoch({"train": {"loss": total / sum(counts)}})


if __name__ == "__main__":
    main(sys.argv[1])
