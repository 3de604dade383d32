"""What torchrun starts on every rank."""

from factory.tuner import run_exp


def launch():
    run_exp()


if __name__ == "__main__":
    launch()
