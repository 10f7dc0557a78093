TESTS += %reldir%/t_clients.py %reldir%/t_corpus.py
EXTRA_DIST += %reldir%/t_clients.py %reldir%/t_corpus.py %reldir%/mailgen.py %reldir%/mimewalk.py tests/lib/wire.py
