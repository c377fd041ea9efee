"""``python -m stellwerk.cli``: the command line without its installed script."""

from stellwerk.cli.main import main

main()
