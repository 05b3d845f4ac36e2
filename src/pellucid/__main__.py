"""`python -m pellucid` is the command `pellucid`."""

from .cli import main

if __name__ == "__main__":
    main()
