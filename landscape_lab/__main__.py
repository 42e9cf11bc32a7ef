"""``python -m landscape_lab``."""

from landscape_lab.cli import main

if __name__ == "__main__":
    main()
