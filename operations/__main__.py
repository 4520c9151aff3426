"""`python -m operations` is `bulk-switch`: how the supervisor starts the processes of a world."""

from operations.command_line import main

if __name__ == "__main__":
    main()
