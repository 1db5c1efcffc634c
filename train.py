"""Train a dual encoder, evaluate it on the test set and export it.

One process:        python train.py configs/EURLex-4K/dist-de-all_decoupled-softmax.yaml --lr 1e-4
Several GPUs:       accelerate launch --config_file configs/accelerate.yaml --num_processes 4 train.py CONFIG.yaml
Several, no GPU:    accelerate launch --config_file configs/accelerate-cpu.yaml --num_processes 2 train.py CONFIG.yaml
A laptop, minutes:  dexml prepare iconclass && python train.py configs/Iconclass/quickstart.yaml
"""

import sys

from dexml.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
