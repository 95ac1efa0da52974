"""`python -m everlearn`, as torchrun starts it."""

from everlearn.cli import script

if __name__ == "__main__":
    script()
