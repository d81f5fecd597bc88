"""`python -m spoton`, the same as the `spoton` command."""

from spoton.cli.start import main

if __name__ == "__main__":
    main()
