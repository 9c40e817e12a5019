"""CIFAR-10-JPEG: methods and students from one robust teacher, judged as what was exported."""
