"""Networks: the CIFAR ResNet family, linear and cosine classifiers, projection heads."""

from __future__ import annotations

from landscape_lab.models.classifiers import CosineClassifier, LinearClassifier
from landscape_lab.models.heads import ProjectionHead
from landscape_lab.models.network import Network, build_network
from landscape_lab.models.resnet import ResNetEncoder

__all__ = ["CosineClassifier", "LinearClassifier", "Network", "ProjectionHead", "ResNetEncoder", "build_network"]
