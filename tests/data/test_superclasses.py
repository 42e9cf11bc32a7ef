from collections import Counter

from landscape_lab.data.superclasses import _CIFAR100, superclasses


def test_cifar_100_has_twenty_superclasses_of_five():
    names = [name for part in _CIFAR100.values() for name in part.split()]
    assert len(set(names)) == 100
    assert Counter(Counter(superclasses(names)).values()) == {5: 20}


def test_cifar_10_has_vehicles_and_animals():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert Counter(superclasses(names)) == {"animals": 6, "vehicles": 4}


def test_unknown_classes_have_none():
    assert superclasses([str(k) for k in range(10)]) is None
    assert superclasses(["cat", "unicorn"]) is None
    assert superclasses([]) is None
