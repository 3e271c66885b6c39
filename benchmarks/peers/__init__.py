"""Other pruning tools on the same net, weights, data, batches and epochs.

    python -m benchmarks.peers.environments torch-pruning       # makes .peers/torch-pruning
    python -m benchmarks.peers.handover dense.keras handover.npz --data cifar10
    python -m benchmarks.peers.tfprune_peer handover.npz dense.keras --out tfprune.jsonl
    .peers/torch-pruning/bin/python -m benchmarks.peers.torch_pruning_peer handover.npz

`schedule` holds what all of them share, on NumPy alone: the order of the batches, the augmentation
and the learning rate. Each peer has an environment of its own, without tfprune.
"""
