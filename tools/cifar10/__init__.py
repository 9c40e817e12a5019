"""`make cifar10`: from the images of CIFAR-10 to a verdict, with edgeproof's own commands; docs/how-to/cifar10.md."""
