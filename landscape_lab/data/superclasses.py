"""Classes that belong together by what they show: the official superclasses of CIFAR-100, and two of CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["superclasses"]

_CIFAR100 = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
# Not official: the one division of CIFAR-10 that nobody disputes.
_CIFAR10 = {"vehicles": "airplane automobile ship truck", "animals": "bird cat deer dog frog horse"}


def superclasses(class_names: Sequence[str]) -> tuple[str, ...] | None:
    """The superclass of each class, known by its name; ``None`` if not every class has one.

    Args:
        class_names: as the data's own files name the classes.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, for CIFAR-100.

    Example:
        >>> superclasses(["trout", "rose", "shark"])
        ('fish', 'flowers', 'fish')
        >>> superclasses(["trout", "airplane"]) is None
        True
    """
    for table in (_CIFAR100, _CIFAR10):
        known = {name: above for above, names in table.items() for name in names.split()}
        if class_names and all(name in known for name in class_names):
            return tuple(known[name] for name in class_names)
    return None
