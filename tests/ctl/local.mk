TESTS += %reldir%/t_culverctl.py
EXTRA_DIST += %reldir%/t_culverctl.py
