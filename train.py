"""python train.py --model=gan is `jaxgen train --model=gan`."""

from jaxgen.cli.main import train_main

if __name__ == "__main__":
    train_main()
