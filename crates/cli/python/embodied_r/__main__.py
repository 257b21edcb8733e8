"""`python -m embodied_r …` is `embodied-r …`."""

from embodied_r import _main

_main()
