TESTS += %reldir%/t_clients.py %reldir%/t_corpus.py %reldir%/t_stream.py %reldir%/t_hostile.py %reldir%/t_on_s3.py
EXTRA_DIST += %reldir%/README.md %reldir%/t_clients.py %reldir%/t_corpus.py %reldir%/t_stream.py %reldir%/t_hostile.py %reldir%/t_on_s3.py \
	%reldir%/loadclient.py %reldir%/mailgen.py %reldir%/mimewalk.py %reldir%/model.py tests/lib/wire.py
