TESTS += %reldir%/t_bench.py
EXTRA_DIST += %reldir%/t_bench.py
