"""``python -m deri`` is ``deri``; torchrun needs it."""

from deri.cli.main import main

main()
