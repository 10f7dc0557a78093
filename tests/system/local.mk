TESTS += %reldir%/t_clients.py
EXTRA_DIST += %reldir%/t_clients.py %reldir%/mailgen.py tests/lib/wire.py
