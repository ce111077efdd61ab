"""The program `tillmap`."""

from tillmap.core.ending import OF_A_COMMAND, end_plainly


def main() -> None:
    """Run the command line."""
    end_plainly("tillmap", OF_A_COMMAND)  # before the imports, which take a second
    from tillmap.cli import run

    run()


if __name__ == "__main__":
    main()
